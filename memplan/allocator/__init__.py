"""PyTorch's CUDA caching allocator, simulated exactly and without torch: what a run reserves, not only what it uses.

Mirrors c10/cuda/CUDACachingAllocator.cpp and its settings (c10/cuda/CUDAAllocatorConfig.cpp,
c10/core/AllocatorConfig.cpp) for PyTorch 2.6 to 2.14. Recorded snapshots are read and replayed by
`memplan.allocator.snapshot`.
"""

from __future__ import annotations

from memplan.allocator.blocks import Block, OutOfMemory, Segment
from memplan.allocator.caching import CachingAllocator
from memplan.allocator.settings import Settings, parse_settings

__all__ = ["Block", "CachingAllocator", "OutOfMemory", "Segment", "Settings", "parse_settings"]
