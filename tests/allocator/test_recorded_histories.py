"""Recorded runs of PyTorch's own caching allocator: what it was asked for goes in, its segments come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from memplan.allocator import parse_settings
from memplan.allocator.replay import replay_snapshot
from memplan.measure import history
from memplan.ops.backend import release
from memplan.profiles import profiles_folder, read
from memplan.units import MIB

FILES = sorted(Path(profiles_folder()).rglob(f"*{history.SUFFIX}"))


def test_histories_are_recorded() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(history.SUFFIX))
def test_a_recorded_history_replays_to_its_segments(file: Path) -> None:
    record = read(file.with_name(file.name.replace(history.SUFFIX, ".json")))
    torch = release(record["environment"]["torch"])
    settings = parse_settings(record["environment"]["allocator_settings"], torch)
    found = replay_snapshot(history.read(file), settings)
    assert found.difference is None and found.same
    assert found.events > 500 and found.segment_events >= 5
    assert found.peak_predicted == found.peak_recorded == record["tiers"]["reserved_bytes"]
    assert found.reserved_recorded >= 2 * MIB
