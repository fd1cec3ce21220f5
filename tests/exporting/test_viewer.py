"""PyTorch's own viewer opens the snapshots, and its figures are ours.

The viewer is a page of JavaScript that is no part of PyTorch's wheel: MEMPLAN_MEMORY_VIZ is the path of a copy of
torch/utils/viz/MemoryViz.js from PyTorch's repository (and of process_alloc_data.js beside it, which newer ones need).
It runs in Node without a browser (viewer/harness.mjs).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from memplan.exporting.snapshot import UNKNOWN, snapshot_bytes

from .configurations import CONFIGURATIONS, placed_as

VIEWER = os.environ.get("MEMPLAN_MEMORY_VIZ", "")
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(not VIEWER, reason="MEMPLAN_MEMORY_VIZ names no copy of MemoryViz.js"),
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
]

CASES = [(name, every_step, False) for name in CONFIGURATIONS for every_step in (False, True)]
CASES += [("training, naive, card", True, True)]  # with the bytes that were asked for, as PyTorch records them


@cache
def seen_by_the_viewer(folder: Path) -> list[dict[str, Any]]:
    """What it makes of every case."""
    files = []
    for number, (name, every_step, requested) in enumerate(CASES):
        files.append(folder / f"{number}.pickle")
        files[-1].write_bytes(snapshot_bytes(placed_as(name, every_step), requested))
    harness = Path(__file__).parent / "viewer" / "harness.mjs"
    command = [str(NODE), str(harness), VIEWER, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("snapshots")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}, {'all steps' if case[1] else 'steady step'}")
def test_the_viewer_shows_what_is_predicted(case: tuple[str, bool, bool], folder: Path) -> None:
    name, every_step, requested = case
    over = placed_as(name, every_step)
    seen = seen_by_the_viewer(folder)[CASES.index(case)]
    line = over.timeline.allocated() if requested else over.allocated()
    assert seen["failed"] == {}
    assert seen["peak_bytes"] == seen["summarised_peak_bytes"] == max(line)
    assert seen["tensors"] == len(over.timeline.tensors)
    titles = {each.title for each in over.timeline.tensors}
    shown = {text.splitlines()[-1].split(":0:", 1)[1].rpartition(" (")[0] for text in seen["texts"]}
    assert shown == titles
    moving = {each.component for each in over.timeline.tensors if each.born >= 0 or each.died is not None}
    assert set(seen["categories"]) == {*moving, UNKNOWN}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}, {'all steps' if case[1] else 'steady step'}")
def test_its_view_of_segments_shows_both_tiers(case: tuple[str, bool, bool], folder: Path) -> None:
    name, every_step, requested = case
    over = placed_as(name, every_step)
    states = seen_by_the_viewer(folder)[CASES.index(case)]["states"]
    line = over.timeline.allocated() if requested else over.allocated()
    reserved = over.reserved()
    assert len(states) >= 40
    for state in states:
        if state["action"] not in ("alloc", "free"):
            continue
        time = state["time_us"]
        assert state["allocated_bytes"] == line[time]
        if reserved is not None:
            assert state["reserved_bytes"] == reserved[time]
