"""The reference transformer in PyTorch: the same files and names as memplan/transformer, which predicts its memory.

Shapes in comments: B batch, S queries (sequence), T keys (sequence, or source), E hidden size, H attention heads,
K key-value heads, D head dimension, F intermediate size, V vocabulary.
"""
