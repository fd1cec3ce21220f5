"""Recorded memory snapshots (torch.cuda.memory._dump_snapshot): read without torch, and without trusting them.

A snapshot is a pickled dictionary: `segments`, the state when it was taken, and `device_traces`, for each device what
the allocator did before that, as far back as its history goes (torch/cuda/memory.py, torch/csrc/cuda/Module.cpp).
"""

from __future__ import annotations

import copyreg
import os
import pickle
from typing import Any

from memplan.allocator.replay import Comparison, replay_snapshot
from memplan.errors import MeasurementError

__all__ = ["Comparison", "Snapshot", "read_snapshot", "replay_snapshot"]

Snapshot = dict[str, Any]

PLAIN = (str, int, float, bool, type(None))

RECORD = "record it with torch.cuda.memory._record_memory_history() and _dump_snapshot()"


class _PlainUnpickler(pickle.Unpickler):
    """Loads containers, text and numbers only: nothing in the file can name a class or a function."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, and a snapshot holds plain data only")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside of it")


def read_snapshot(file: str | os.PathLike[str]) -> Snapshot:
    """The snapshot in `file`. Raises MeasurementError for what is none, is damaged, or holds more than plain data."""
    # A class that something else has loaded by an extension code would be handed out without `find_class`.
    copyreg.clear_extension_cache()
    try:
        with open(file, "rb") as stream:
            snapshot = _PlainUnpickler(stream).load()
    except OSError as error:
        raise MeasurementError(f"cannot read the snapshot {_name(file)}: {error.strerror or error}") from error
    except EOFError as error:
        raise MeasurementError(f"the snapshot {_name(file)} is cut off or empty", RECORD) from error
    except MemoryError as error:
        raise MeasurementError(f"the snapshot {_name(file)} is too large for this machine's memory") from error
    except Exception as error:  # damaged data makes the unpickler raise nearly anything
        raise MeasurementError(f"{_name(file)} is no snapshot: {error}", RECORD) from error
    stranger = _stranger(snapshot)
    if stranger is not None:
        raise MeasurementError(f"{_name(file)} is no snapshot: it holds a {stranger}, not only plain data", RECORD)
    if not isinstance(snapshot, dict) or not all(
        isinstance(snapshot.get(key), list) for key in ("segments", "device_traces")
    ):
        raise MeasurementError(f"{_name(file)} is no snapshot: it has no segments and device_traces", RECORD)
    return snapshot


def _stranger(root: object) -> str | None:
    """The type of something that is not plain data, or None."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in PLAIN:
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if kind is dict:
            waiting.extend(value)  # type: ignore[arg-type]
            waiting.extend(value.values())  # type: ignore[attr-defined]
        elif kind is list or kind is tuple:
            waiting.extend(value)  # type: ignore[arg-type]
        else:
            return kind.__name__
    return None


def _name(file: str | os.PathLike[str]) -> str:
    return os.fspath(file)
