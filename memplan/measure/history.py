"""Memory histories: every event of a caching allocator, kept small. Torch-free.

The document is gzipped JSON in the shape of PyTorch's own snapshots (torch.cuda.memory._snapshot), so that whatever
reads those reads these: `segments` as they are at the end, and `device_traces` with one list of events, each with
`action`, `addr` (but for `oom`), `size` in bytes as it was requested, and `stream`. Frames and times are left out, and
the pool where it is the default one. `marks` lists [step, phase, number of `alloc` events before it].
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from memplan.errors import MeasurementError

SCHEMA_VERSION = 1
SUFFIX = ".history.json.gz"

History = dict[str, Any]

_EVENT = ("action", "addr", "size", "stream", "device_free")
_SEGMENT = ("address", "total_size", "stream", "segment_type", "allocated_size", "active_size", "is_expandable")
_DEFAULT_POOL = (0, 0)
_BLOCK = ("address", "size", "requested_size", "state")


def strip(snapshot: History) -> History:
    """Only what a replay of the allocator needs."""
    return {
        "schema_version": SCHEMA_VERSION,
        "marks": [list(mark) for mark in snapshot["marks"]],
        "device_traces": [
            [_only(_EVENT, event) for event in events if event["action"] != "snapshot"]
            for events in snapshot["device_traces"]
        ],
        "segments": [
            {**_only(_SEGMENT, segment), "blocks": [_only(_BLOCK, block) for block in segment["blocks"]]}
            for segment in snapshot["segments"]
        ],
    }


def write(history: History, target: Path) -> None:
    """Write a stripped history under a temporary name and rename it. Raises MeasurementError if it cannot."""
    import gzip

    text = json.dumps(history, separators=(",", ":"))
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # no time: the same events, the same bytes
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise MeasurementError(f"cannot write the history {target}: {error.strerror or error}") from error


def read(file: Path) -> History:
    """The history in `file`. Raises MeasurementError for what is none, or is of a newer schema."""
    import gzip
    import zlib

    try:
        history = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise MeasurementError(f"cannot read the history {file}: {error}") from error
    if not isinstance(history, dict) or not isinstance(history.get("device_traces"), list):
        raise MeasurementError(f"{file} is not a memory history")
    if history.get("schema_version", 0) > SCHEMA_VERSION:
        raise MeasurementError(
            f"the history {file} has schema version {history['schema_version']}, newer than {SCHEMA_VERSION}",
            "a newer memplan reads it",
        )
    return history


def _only(names: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    kept = {name: values[name] for name in names if name in values}
    for pool in ("pool_id", "segment_pool_id"):
        if tuple(values.get(pool, _DEFAULT_POOL)) != _DEFAULT_POOL:
            kept[pool] = list(values[pool])
    return kept
