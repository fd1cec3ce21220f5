"""Real CPU runs of the reference transformer, recorded event by event (on_cpu.py) and explained by the CPU's rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memplan.config.devices import load_device
from memplan.config.validate import validate_run
from memplan.explain.explanation import Explanation, explain

from .subject import MODEL, RUN

ROOT = Path(__file__).parent.parent.parent
CPU = load_device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cpu")
    subprocess.run([sys.executable, "-m", "tests.explain.on_cpu", str(made)], check=True, cwd=ROOT, capture_output=True)
    return made


def explained(folder: Path, scene: str) -> Explanation:
    return explain(folder / f"{scene}.pickle", (MODEL, validate_run(MODEL, RUN, CPU), CPU))


def test_a_real_run_leaves_nothing_unexplained(folder: Path) -> None:
    found = explained(folder, "plain")
    beside = found.beside
    assert beside is not None
    assert found.story.differing == found.story.strange == 0
    assert {each.status for each in beside.names.alive} == {"planned"}
    assert beside.unseen == () and beside.names.extra == 0
    assert dict(beside.planned) == dict(beside.seen)
    assert sum(beside.seen.values()) == found.story.peak.requested == beside.estimate.tiers.allocated_bytes
    assert (found.phase, found.phase_basis) == ("backward", "its stack")


def test_what_user_code_keeps_is_found_by_its_line(folder: Path) -> None:
    found = explained(folder, "leaking")
    beside = found.beside
    assert beside is not None
    assert {each.status for each in beside.names.alive} == {"planned", "unplanned"}
    assert beside.unseen == ()
    (group,) = beside.unplanned_by_code
    assert group.origin is not None and group.origin.frame.name == "remember"
    assert group.origin.frame.file.endswith("on_cpu.py")
    assert beside.names.step is not None
    assert (group.count, group.requested) == (beside.names.step + 1, 4 * 256)  # a byte for each token of every step


def test_where_memory_ends_is_named(folder: Path) -> None:
    found = explained(folder, "out-of-memory")
    (shortage,) = found.story.shortages
    assert found.beside is not None and found.beside.wanted is not None
    assert found.beside.wanted.size == shortage.requested == 4 * 256 * 8000 * 4
    assert found.beside.wanted.module == "loss"
    assert {each.status for each in found.beside.names.alive} == {"planned"}
