"""One device's part of a snapshot, checked: what its allocator did, in order, and what it held in the end.

More is read here than a replay takes (memplan/allocator/trace.py): private pools, frames, devices, the settings that
the snapshot names. What a newer PyTorch adds is passed over, and an action that is not known is counted.
"""

from __future__ import annotations

from typing import Any

from memplan.allocator.trace import ACTIONS, DEFAULT_POOL
from memplan.errors import ConfigurationError, MeasurementError

Pool = tuple[int, int]

LARGEST = 1 << 48
"""No size that a card could have: what has it is damaged."""

NEWER = "this memplan may be older than the PyTorch that wrote it"


class Event:
    """One line of the trace. `size` is what was asked for, or the bytes of a segment."""

    __slots__ = ("action", "address", "frames", "free", "pool", "size", "stream", "time")

    def __init__(self, action: str, address: int, size: int, stream: int, entry: dict[str, Any]) -> None:
        self.action = action
        self.address = address
        self.size = size
        self.stream = stream
        self.pool = _pool(entry.get("pool_id"))
        self.frames = entry.get("frames")
        self.time = entry.get("time_us")
        self.free = entry.get("device_free")  # of an `oom`: what the driver could still give


class Block:
    """A block of a segment at the end. `requested` is None where the snapshot does not say it."""

    __slots__ = ("address", "frames", "live", "pending", "requested", "size")

    def __init__(self, address: int, size: int, requested: int | None, state: str, frames: Any) -> None:
        self.address = address
        self.size = size
        self.requested = requested
        self.live = state != "inactive"
        self.pending = self.live and state != "active_allocated"  # freed, but other streams still use it
        self.frames = frames


class Segment:
    """A segment at the end, or one mapped range of an expandable one."""

    __slots__ = ("address", "blocks", "expandable", "pool", "size", "stream")

    def __init__(self, address: int, size: int, stream: int, pool: Pool, expandable: bool) -> None:
        self.address = address
        self.size = size
        self.stream = stream
        self.pool = pool
        self.expandable = expandable
        self.blocks: list[Block] = []


class Recording:
    """What was recorded of one device. `unknown` counts the actions that are passed over, `marks` are those of a
    memplan history: step, phase and how many allocations were made before."""

    __slots__ = ("annotations", "device", "events", "marks", "segments", "settings", "unknown")

    def __init__(self, device: int) -> None:
        self.device = device
        self.events: list[Event] = []
        self.segments: list[Segment] = []
        self.unknown: dict[str, int] = {}
        self.marks: list[tuple[int, str, int]] = []
        self.annotations: list[tuple[int, str, str]] = []  # time, START or END, name
        self.settings: dict[str, Any] | None = None  # as PyTorch names them


def devices_of(snapshot: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """The devices that a snapshot says anything of: number -> bytes reserved at the end, lines of the trace."""
    found: dict[int, tuple[int, int]] = {}
    for number, trace in enumerate(snapshot["device_traces"]):
        if isinstance(trace, list) and trace:
            found[number] = (0, len(trace))
    for segment in snapshot["segments"]:
        if isinstance(segment, dict):
            number, size = segment.get("device", 0), segment.get("total_size", 0)
            if _whole(number) and _whole(size):
                reserved, lines = found.get(number, (0, 0))
                found[number] = (reserved + int(size), lines)
    return dict(sorted(found.items()))


def record_of(snapshot: dict[str, Any], device: int | None = None) -> Recording:
    """The recording of a device; of the one that holds most where none is named.

    Raises ConfigurationError for a device that is not in the snapshot, and MeasurementError for what is damaged.
    """
    known = devices_of(snapshot)
    if not known:
        raise MeasurementError(
            "the snapshot is empty: no device has a segment or a trace",
            "call torch.cuda.memory._record_memory_history() before the first allocation",
        )
    if device is None:
        device = max(known, key=lambda number: (known[number], -number))
    elif device not in known:
        numbers = ", ".join(map(str, known))
        raise ConfigurationError(f"--device-index: the snapshot says nothing of device {device}", f"it has {numbers}")
    found = Recording(device)
    _read_trace(found, snapshot["device_traces"])
    _read_segments(found, snapshot["segments"])
    _read_marks(found, snapshot)
    settings = snapshot.get("allocator_settings")
    found.settings = settings if isinstance(settings, dict) else None
    return found


def _read_trace(found: Recording, traces: list[Any]) -> None:
    trace = traces[found.device] if found.device < len(traces) else []
    for number, entry in enumerate(trace if isinstance(trace, list) else []):
        where = f"entry {number} of the trace"
        action = _field(entry, "action", str, where)
        if action == "snapshot":
            continue
        if action not in ACTIONS:
            found.unknown[action] = found.unknown.get(action, 0) + 1
            continue
        size = _size(entry, "size", where)
        address = 0 if action == "oom" else _field(entry, "addr", int, where)
        found.events.append(Event(action, address, size, _field(entry, "stream", int, where), entry))


def _read_segments(found: Recording, segments: list[Any]) -> None:
    for number, entry in enumerate(segments):
        where = f"segment {number}"
        if isinstance(entry, dict) and entry.get("device", 0) != found.device:
            continue
        segment = Segment(
            _field(entry, "address", int, where),
            _size(entry, "total_size", where),
            _field(entry, "stream", int, where),
            _pool(entry.get("segment_pool_id")),
            bool(entry.get("is_expandable", False)),
        )
        address = segment.address
        for block in _field(entry, "blocks", list, where):
            size = _size(block, "size", where)
            requested = block.get("requested_size")
            block_state = _field(block, "state", str, where)
            segment.blocks.append(
                Block(address, size, requested if _whole(requested) else None, block_state, block.get("frames"))
            )
            address += size
        if address != segment.address + segment.size:
            raise MeasurementError(f"{where}: its blocks do not tile its {segment.size:,} bytes")
        found.segments.append(segment)


def _read_marks(found: Recording, snapshot: dict[str, Any]) -> None:
    """Marks and annotations are extras: one that is not understood is left out."""
    marks = snapshot.get("marks")
    for mark in marks if isinstance(marks, list) else ():
        if isinstance(mark, list) and len(mark) == 3 and _whole(mark[0]) and _whole(mark[2]):
            found.marks.append((mark[0], str(mark[1]), mark[2]))
    noted = snapshot.get("external_annotations")
    for entry in noted if isinstance(noted, list) else ():
        if isinstance(entry, dict) and entry.get("device", 0) == found.device and _whole(entry.get("time_us")):
            found.annotations.append((entry["time_us"], str(entry.get("stage")), str(entry.get("name"))))


def _field(entry: Any, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MeasurementError(f"the snapshot is not as PyTorch writes them: {where} has no {key}", NEWER)
    return value


def _size(entry: Any, key: str, where: str) -> int:
    size: int = _field(entry, key, int, where)
    if not 0 <= size < LARGEST:
        raise MeasurementError(f"the snapshot is damaged: {where} has a size of {size:,} bytes")
    return size


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _pool(value: Any) -> Pool:
    """A pool's number; older releases (2.6) do not tell it in the trace."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return (value[0], value[1])
    return DEFAULT_POOL
