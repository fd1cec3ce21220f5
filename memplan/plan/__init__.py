"""Which settings fit: the largest micro-batch or length, the cheapest change, the smallest card. Torch-free.

knobs.py says what may be turned and what that costs, search.py finds the largest size that fits, choices.py puts the
two together.
"""
