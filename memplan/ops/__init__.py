"""Sizes-only PyTorch: tensors with a shape, a dtype and a name, but no data.

Python's own reference counts are the lifetimes, as in PyTorch: a storage is freed when the last tensor on it goes.
"""
