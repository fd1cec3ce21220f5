"""Memory histories: kept small, read without torch, and understood by the simulated allocator."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from memplan.allocator import parse_settings
from memplan.allocator.replay import replay_snapshot
from memplan.errors import MeasurementError
from memplan.measure.history import SCHEMA_VERSION, read, strip, write

MIB = 2**20
BASE = 0x7F0000000000


def event(action: str, address: int, size: int) -> dict[str, Any]:
    return {"action": action, "addr": BASE + address, "size": size, "stream": 0, "time_us": 7, "frames": [],
            "pool_id": (0, 0)}  # fmt: skip


def snapshot() -> dict[str, Any]:
    """Two tensors in one segment of the small pool; the second is freed."""
    blocks = [
        {"address": BASE, "size": 1024, "requested_size": 1000, "state": "active_allocated", "frames": []},
        {"address": BASE + 1024, "size": 2 * MIB - 1024, "requested_size": 0, "state": "inactive", "frames": []},
    ]
    return {
        "marks": [(1, "forward", 0)],
        "segments": [
            {
                "device": 0, "address": BASE, "total_size": 2 * MIB, "stream": 0, "segment_type": "small",
                "segment_pool_id": (0, 0), "is_expandable": False, "allocated_size": 1024, "active_size": 1024,
                "requested_size": 1000, "frames": [], "blocks": blocks,
            }
        ],
        "device_traces": [
            [
                event("segment_alloc", 0, 2 * MIB),
                event("alloc", 0, 1000),
                event("alloc", 1024, 600),
                event("free_requested", 1024, 600),
                event("free_completed", 1024, 600),
                event("snapshot", 0, 0),
            ]
        ],
    }  # fmt: skip


def test_what_is_kept_is_what_a_replay_needs(tmp_path: Path) -> None:
    file = tmp_path / "run.history.json.gz"
    write(strip(snapshot()), file)
    history = read(file)
    assert history["marks"] == [[1, "forward", 0]]
    assert [entry["action"] for entry in history["device_traces"][0]] == [
        "segment_alloc", "alloc", "alloc", "free_requested", "free_completed"
    ]  # fmt: skip
    assert set(history["device_traces"][0][1]) == {"action", "addr", "size", "stream"}
    comparison = replay_snapshot(history, parse_settings("", (2, 11)))
    assert comparison.same
    assert (comparison.segment_events, comparison.misplaced) == (1, 0)


def test_another_pool_is_not_hidden() -> None:
    other = snapshot()
    other["device_traces"][0][1]["pool_id"] = (0, 1)
    other["segments"][0]["segment_pool_id"] = (0, 1)
    stripped = strip(other)
    assert stripped["device_traces"][0][1]["pool_id"] == [0, 1]
    assert stripped["segments"][0]["segment_pool_id"] == [0, 1]


def test_the_same_events_are_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        write(strip(snapshot()), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_ten_thousand_events_are_small(tmp_path: Path) -> None:
    many = snapshot()
    many["device_traces"] = [[event("alloc", 512 * number * 7919 % 2**34, number * 31) for number in range(10_000)]]
    file = tmp_path / "many"
    write(strip(many), file)
    assert file.stat().st_size < 150_000


NEWER = {"schema_version": SCHEMA_VERSION + 1, "device_traces": []}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot read the history"),
        (b"no gzip", "cannot read the history"),
        (gzip.compress(b"{", mtime=0)[:-1], "cannot read the history"),
        (gzip.compress(b"{", mtime=0), "cannot read the history"),
        (gzip.compress(b"[]", mtime=0), "is not a memory history"),
        (gzip.compress(b"{}", mtime=0), "is not a memory history"),
        (gzip.compress(json.dumps(NEWER).encode(), mtime=0), "newer than"),
    ],
)
def test_what_is_no_history_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(content)
    with pytest.raises(MeasurementError, match=says):
        read(file)
