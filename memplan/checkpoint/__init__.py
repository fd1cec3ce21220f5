"""Bytes on disk: how long the files of a checkpoint are, without torch and without writing any.

What is saved is built as Python builds it (tree.py, training.py), and each format says how long its files get:
torch.save (pickling.py, archive.py) and safetensors (safetensors.py, sharding.py).
"""

from memplan.checkpoint.sizes import Checkpoint as Checkpoint
from memplan.checkpoint.sizes import checkpoint as checkpoint
