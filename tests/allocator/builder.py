"""Snapshots written by hand, in the form of torch.cuda.memory._snapshot()."""

from __future__ import annotations

from typing import Any

from memplan.units import MIB

A, B, C, D = (0x7F0000000000 + number * 1024 * MIB for number in range(4))
"""Addresses of segments, rising."""


class Trace:
    """A device's trace, line by line as PyTorch records it. `addresses` rise in no particular order: they are given."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.segments: list[dict[str, Any]] = []

    def add(self, action: str, address: int, size: int, stream: int = 0) -> None:
        where = {"device_free": address} if action == "oom" else {"addr": address}
        self.entries.append(
            {"action": action, **where, "size": size, "stream": stream, "time_us": len(self.entries), "frames": []}
        )

    def segment(self, address: int, size: int, stream: int = 0) -> None:
        self.add("segment_alloc", address, size, stream)

    def release(self, address: int, size: int, stream: int = 0) -> None:
        self.add("segment_free", address, size, stream)

    def map(self, address: int, size: int, stream: int = 0) -> None:
        self.add("segment_map", address, size, stream)

    def unmap(self, address: int, size: int, stream: int = 0) -> None:
        self.add("segment_unmap", address, size, stream)

    def alloc(self, address: int, size: int, stream: int = 0) -> None:
        self.add("alloc", address, size, stream)

    def free(self, address: int, size: int, stream: int = 0) -> None:
        self.add("free_requested", address, size, stream)
        self.add("free_completed", address, size, stream)

    def holds(
        self, address: int, blocks: list[tuple[int, int]], stream: int = 0, large: bool = True, expandable: bool = False
    ) -> None:
        """A segment at the end; its blocks as (bytes, requested), requested 0 for free ones."""
        self.segments.append(
            {
                "device": 0,
                "address": address,
                "total_size": sum(size for size, _ in blocks),
                "allocated_size": sum(size for size, requested in blocks if requested),
                "active_size": sum(size for size, requested in blocks if requested),
                "requested_size": sum(requested for _, requested in blocks),
                "stream": stream,
                "segment_type": "large" if large else "small",
                "segment_pool_id": (0, 0),
                "is_expandable": expandable,
                "frames": [],
                "blocks": [
                    {
                        "size": size,
                        "requested_size": requested,
                        "state": "active_allocated" if requested else "inactive",
                        "frames": [],
                    }
                    for size, requested in blocks
                ],
            }
        )

    def snapshot(self) -> dict[str, Any]:
        return {"segments": self.segments, "device_traces": [self.entries]}
