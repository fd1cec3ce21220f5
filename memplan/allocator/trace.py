"""One device's part of a snapshot, checked: what the allocator did, and what it held in the end."""

from __future__ import annotations

from typing import Any

from memplan.errors import MeasurementError, NotModelledError

SEGMENT_ACTIONS = ("segment_alloc", "segment_free", "segment_map", "segment_unmap")
RELEASES = ("segment_free", "segment_unmap")
GAINS = ("segment_alloc", "segment_map")
ACTIONS = (*SEGMENT_ACTIONS, "alloc", "free_requested", "free_completed", "oom")

DEFAULT_POOL = (0, 0)


class Event:
    """One line of the trace. `size` is what was asked for (rounded in an `oom`), or the bytes of a segment."""

    __slots__ = ("action", "address", "size", "stream")

    def __init__(self, action: str, address: int, size: int, stream: int) -> None:
        self.action = action
        self.address = address
        self.size = size
        self.stream = stream

    def __repr__(self) -> str:
        return f"{self.action} of {self.size:,} bytes at {self.address:#x} (stream {self.stream})"


class RecordedBlock:
    """A block of a recorded segment. `live`: in use, or waiting for other streams (`pending`)."""

    __slots__ = ("address", "live", "pending", "requested", "size")

    def __init__(self, address: int, size: int, requested: int, live: bool, pending: bool) -> None:
        self.address = address
        self.size = size
        self.requested = requested
        self.live = live
        self.pending = pending


class RecordedSegment:
    """A segment, or one mapped range of an expandable one."""

    __slots__ = ("address", "blocks", "expandable", "size", "small", "stream")

    def __init__(self, address: int, size: int, stream: int, small: bool, expandable: bool) -> None:
        self.address = address
        self.size = size
        self.stream = stream
        self.small = small
        self.expandable = expandable
        self.blocks: list[RecordedBlock] = []


def events_of(snapshot: dict[str, Any], device: int) -> list[Event]:
    """The trace of a device, oldest first, without the lines that change nothing.

    Raises MeasurementError for what is no trace, and NotModelledError where other pools than the default one were used.
    """
    traces = snapshot.get("device_traces")
    if not isinstance(traces, list) or not 0 <= device < len(traces) or not isinstance(traces[device], list):
        raise MeasurementError(f"the snapshot has no trace of device {device}")
    events: list[Event] = []
    for number, entry in enumerate(traces[device]):
        where = f"entry {number} of the trace"
        action = _field(entry, "action", str, where)
        if action == "snapshot":
            continue
        if action not in ACTIONS:
            raise MeasurementError(f"{where}: unknown action {action!a}")
        _default_pool(entry.get("pool_id"), where)
        address = 0 if action == "oom" else _field(entry, "addr", int, where)
        size = _field(entry, "size", int, where)
        if size <= 0:
            raise MeasurementError(f"{where}: a size of {size}")
        events.append(Event(action, address, size, _field(entry, "stream", int, where)))
    if not events:
        raise MeasurementError(f"the snapshot's trace of device {device} is empty")
    return events


def segments_of(snapshot: dict[str, Any], device: int) -> list[RecordedSegment]:
    """The segments of a device when the snapshot was taken; their blocks tile them.

    Raises MeasurementError where they do not, and NotModelledError for segments of other pools.
    """
    found: list[RecordedSegment] = []
    listed = snapshot.get("segments")
    for number, entry in enumerate(listed if isinstance(listed, list) else ()):
        where = f"segment {number}"
        if isinstance(entry, dict) and entry.get("device", device) != device:
            continue
        segment = RecordedSegment(
            _field(entry, "address", int, where),
            _field(entry, "total_size", int, where),
            _field(entry, "stream", int, where),
            _field(entry, "segment_type", str, where) == "small",
            bool(entry.get("is_expandable", False)),
        )
        _default_pool(entry.get("segment_pool_id"), where)
        address = segment.address
        for block in _field(entry, "blocks", list, where):
            size = _field(block, "size", int, where)
            state = _field(block, "state", str, where)
            live = state != "inactive"
            requested = _field(block, "requested_size", int, where) if live else 0
            segment.blocks.append(RecordedBlock(address, size, requested, live, live and state != "active_allocated"))
            address += size
        if address != segment.address + segment.size:
            raise MeasurementError(f"{where}: its blocks do not tile its {segment.size:,} bytes")
        found.append(segment)
    return found


def _field(entry: Any, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MeasurementError(f"{where} has no {key}")
    return value


def _default_pool(pool: Any, where: str) -> None:
    if pool is not None and not (isinstance(pool, list | tuple) and tuple(pool) == DEFAULT_POOL):
        raise NotModelledError(
            f"{where} is of another memory pool (CUDA graphs, MemPool), and memplan has no rules for it"
        )
