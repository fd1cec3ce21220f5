"""Snapshots in: what a recorded run had in memory at its peak, by tensor, beside what the plan says. Torch-free.

opened.py reads a file without trusting it, recording.py checks what is in it, layout.py follows every block by its
address, story.py finds the peak; program.py and placing.py lay the predicted steps beside the recorded ones, naming.py
gives each block its name, changes.py tries what would need less. explanation.py puts it all together.
"""

from memplan.explain.explanation import Explanation as Explanation
from memplan.explain.explanation import explain as explain
