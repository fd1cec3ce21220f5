"""Files of snapshots: read without trusting them."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.allocator import CachingAllocator, OutOfMemory, Settings
from memplan.allocator.snapshot import read_snapshot, replay_snapshot
from memplan.errors import MeasurementError, NotModelledError
from memplan.units import MIB

from .builder import A, Trace
from .test_laws import OPERATIONS, Operation


def small_snapshot() -> dict[str, Any]:
    trace = Trace()
    trace.segment(A, 2 * MIB)
    trace.alloc(A, 512)
    trace.holds(A, [(512, 512), (2 * MIB - 512, 0)], large=False)
    return trace.snapshot()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [str, Path])
def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path, protocol: int, kind: type) -> None:
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(pickle.dumps(small_snapshot(), protocol=protocol))
    assert read_snapshot(kind(file)) == small_snapshot()
    assert replay_snapshot(read_snapshot(file), Settings()).same


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "strange",
    [Harmful(), collections.OrderedDict(a=1), {1, 2}, frozenset((1,)), b"bytes", bytearray(b"more"), 1j, Path("x")],
    ids=lambda strange: type(strange).__name__,
)
def test_anything_but_plain_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: object) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(pickle.dumps({**small_snapshot(), "more": [({"deep": strange},)]}))
    with pytest.raises(MeasurementError, match=r"snapshot\.pickle is no snapshot: it holds a"):
        read_snapshot(file)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "cut off or empty"),
        (pickle.dumps(small_snapshot())[:-200], "is no snapshot|cut off"),
        (b"text, not a pickle", "is no snapshot"),
        (b"\x80\x7f", "is no snapshot"),
        (b"\x80\x04\x8c\xff", "is no snapshot|cut off"),
        (b"\x80\x04\x8d" + b"\xff" * 8, "is no snapshot|cut off|too large"),
        (pickle.dumps([1, 2]), "no segments and device_traces"),
        (pickle.dumps({"segments": []}), "no segments and device_traces"),
        (pickle.dumps({"segments": {}, "device_traces": []}), "no segments and device_traces"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(content)
    with pytest.raises(MeasurementError, match=fault):
        read_snapshot(file)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="No such file"):
        read_snapshot(tmp_path / "nothing.pickle")
    with pytest.raises(MeasurementError, match="Is a directory"):
        read_snapshot(tmp_path)


def test_data_that_contains_itself_is_no_endless_loop(tmp_path: Path) -> None:
    snapshot = small_snapshot()
    snapshot["segments"].append(snapshot["segments"])
    file = tmp_path / "snapshot.pickle"
    file.write_bytes(pickle.dumps(snapshot))
    with pytest.raises(MeasurementError, match="segment 1 has no address"):
        replay_snapshot(read_snapshot(file), Settings())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_damaged_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, position: int, value: int) -> None:
    content = bytearray(pickle.dumps(small_snapshot()))
    content[position % len(content)] = value
    file = tmp_path_factory.mktemp("damaged") / "snapshot.pickle"
    file.write_bytes(content)
    try:
        snapshot = read_snapshot(file)
        replay_snapshot(snapshot, Settings())
    except (MeasurementError, NotModelledError) as error:
        assert str(error)


class Recorder(CachingAllocator):
    """Writes a trace of what it does, as PyTorch does."""

    def __init__(self, settings: Settings, capacity: int | None) -> None:
        self.trace = Trace()
        super().__init__(settings, capacity, device_memory=1 << 35)

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        self.trace.add(action, address, size, stream)

    def snapshot(self, live: list[Any]) -> dict[str, Any]:
        in_use = {block.address: block for block in live}
        free = [
            block for pools in (self.small, self.large) for pool in pools.values() for block in pool.blocks.values()
        ]
        blocks = sorted([*in_use.values(), *free], key=lambda block: block.address)
        for block in blocks:
            if block.prev is None or not block.prev.mapped:
                chain = [block]
                while (following := chain[-1].next) is not None and following.mapped:
                    chain.append(following)
                sizes = [(link.size, 0 if link.free else link.requested) for link in chain]
                pool = block.pool
                self.trace.holds(block.address, sizes, pool.stream, not pool.small, block.segment.page > 0)
        return self.trace.snapshot()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    configuration=st.builds(
        Settings,
        expandable_segments=st.booleans(),
        max_split_size=st.sampled_from((None, None, 25 * MIB)),
        ties=st.sampled_from(("address", "serial", "segment")),
    ),
    capacity=st.sampled_from((None, 64 * MIB, 200 * MIB)),
    operations=OPERATIONS,
)
def test_what_the_simulation_does_is_replayed_the_same(
    configuration: Settings, capacity: int | None, operations: list[Operation]
) -> None:
    recorder = Recorder(configuration, capacity)
    live = []
    for action, number, stream in operations:
        if action == "allocate":
            try:
                live.append(recorder.allocate(number, stream))
            except OutOfMemory:
                recorder.trace.add("oom", 0, configuration.round_size(number), stream)
            else:
                recorder.trace.alloc(live[-1].address, number, stream)
        elif action == "free" and live:
            block = live.pop(number % len(live))
            recorder.trace.free(block.address, block.requested, block.pool.stream)
            recorder.free(block)
        elif action == "empty":
            recorder.empty_cache()
    if not recorder.trace.entries:
        return
    snapshot = recorder.snapshot(live)
    # With the capacity the driver's refusals are predicted; without, they are told by the trace.
    for limit in {capacity, None}:
        result = replay_snapshot(snapshot, configuration, capacity=limit, device_memory=1 << 35)
        assert result.difference is None
        assert result.misplaced == 0
        assert result.reserved_predicted == result.reserved_recorded == recorder.reserved
        assert result.peak_predicted == recorder.peak_reserved
