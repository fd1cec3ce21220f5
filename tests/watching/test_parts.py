"""The parts of a watch that need no torch: marks, readings, growth, pace, settings, differences."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.errors import ConfigurationError
from memplan.ledger import Allocation
from memplan.measure.watching import DriftError, Finding, MemoryWarning
from memplan.measure.watching.findings import Findings
from memplan.measure.watching.marks import Mark, folded
from memplan.measure.watching.pace import Pace
from memplan.measure.watching.plan import Difference, differences
from memplan.measure.watching.process import peak_resident_bytes, resident_bytes
from memplan.measure.watching.readings import BETWEEN, FIRST, LAST, WINDOW, Growth, Reading, Readings
from memplan.measure.watching.record import Kept, to_record, write
from memplan.measure.watching.settings import Settings, checked


def phases(*marks: str) -> list[str]:
    """The phases of marks; those the loop sets itself end in an exclamation mark."""
    made = [(place, Mark(name.rstrip("!"), name.endswith("!"))) for place, name in enumerate(marks)]
    return [f"{name} {place}" for place, name in folded(made)]


MARKS: list[tuple[tuple[str, ...], list[str]]] = [
    (
        ("begin", "forward", "loss", "backward", "backward_end", "stepped"),
        ["zero_grad 0", "forward 1", "loss 2", "backward 3", "optimizer_step 4"],
    ),
    (  # an optimizer step begins behind the last of several backward passes
        ("begin", "forward", "backward", "backward_end", "forward", "backward", "backward_end"),
        ["zero_grad 0", "forward 1", "backward 2", "forward 4", "backward 5", "optimizer_step 6"],
    ),
    (  # what the loop says counts
        ("begin", "zero_grad!", "forward!", "forward", "loss", "backward!", "backward", "optimizer_step!", "stepped"),
        ["zero_grad 0", "zero_grad 1", "forward 2", "loss 4", "backward 5", "optimizer_step 7"],
    ),
    (("begin", "forward", "backward!", "backward", "backward_end"), ["zero_grad 0", "forward 1", "backward 2",
                                                                     "optimizer_step 4"]),
]  # fmt: skip


@pytest.mark.parametrize(("marks", "expected"), MARKS)
def test_phases_are_made_of_marks(marks: tuple[str, ...], expected: list[str]) -> None:
    assert phases(*marks) == expected


@given(st.lists(st.integers(min_value=0, max_value=10**6), max_size=2000))
def test_readings_take_the_same_room_whatever_the_number_of_steps(sizes: list[int]) -> None:
    readings = Readings()
    for step, size in enumerate(sizes, 1):
        readings.add(Reading(step, allocated_peak=size))
    kept = readings.kept()
    steps = [reading.step for reading in kept]
    assert len(kept) <= FIRST + BETWEEN + LAST + 1
    assert steps == sorted(set(steps))
    assert readings.count == len(sizes)
    assert steps[:FIRST] == list(range(1, min(len(sizes), FIRST) + 1))
    assert steps[-min(LAST, len(sizes)) :] == list(range(1, len(sizes) + 1))[-min(LAST, len(sizes)) :]
    if sizes:
        assert max(reading.allocated_peak or 0 for reading in kept) == max(sizes)
    between = [step for step in steps[FIRST:-LAST] if readings.worst is None or step != readings.worst.step]
    assert all((later - earlier) % readings._stride == 0 for earlier, later in pairwise(between))


@given(st.lists(st.integers(min_value=0, max_value=100), max_size=60))
def test_growth_is_that_of_a_whole_window(sizes: list[int]) -> None:
    growth = Growth()
    for step, size in enumerate(sizes, 1):
        rate = growth.add(step, size)
        last = sizes[max(step - WINDOW - 1, 0) : step]
        grows = len(last) == WINDOW + 1 and all(low < high for low, high in pairwise(last))
        assert (rate is not None) == grows
        if rate is not None:
            assert rate == (last[-1] - last[1]) / (WINDOW - 1)


def test_looking_takes_its_share_and_no_more() -> None:
    now = [0.0]
    pace = Pace(0.01, lambda: now[0])
    assert pace.due
    with pace.looking():
        now[0] += 0.5
    assert not pace.due
    now[0] += 49.9
    assert not pace.due
    now[0] += 0.2
    assert pace.due


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"recrod": "x"}, 'recrod: is not a known argument; did you mean "record"?'),
    ({"record": 3}, "record: must be a path, not 3"),
    ({"warn": 2}, "warn: must be a share between 0 and 1, such as 0.02, not 2"),
    ({"on_drift": "stop"}, "on_drift: must be warn, raise or a function of a finding, not 'stop'"),
    ({"recorded_step": 1}, "recorded_step: must be 0 for none, or at least 2: the first step begins without"),
    ({"recorded_step": True}, "recorded_step: must be 0 for none"),
    ({"reset_peaks": 1}, "reset_peaks: must be true or false, not 1"),
    ({"loop": "mine"}, "loop: must be one of own, reference, not 'mine'"),
    ({"save_every": 0}, "save_every: must be a number of seconds, not 0"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        checked(values)
    assert message in raised.value.message


def test_every_wrong_setting_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        checked({"warn": "x", "loop": "y", "record": Path("run.json")})
    assert raised.value.message.count("must be") == 2
    assert checked({}) == Settings()


def allocation(size: int, operation: str) -> Allocation:
    return Allocation(size, operation, (size,), "uint8", "", "forward", 1, 0)


def test_what_is_alive_beside_what_was_planned() -> None:
    planned = {allocation(100, "aten::mm"): 3, allocation(8, "step"): 2, allocation(50, "aten::cat"): 1}
    alive = [(100, "aten::mm")] * 3 + [(100, "aten::add")] * 2 + [(8, "aten::zeros")]
    found = differences(planned, alive)
    assert found == (
        Difference(100, 2, ("aten::add",)),
        Difference(50, -1, ("aten::cat",)),
        Difference(8, -1, ("step",)),
    )
    assert [str(each) for each in found] == [
        "2 more of 100 bytes (aten::add)",
        "1 fewer of 50 bytes (aten::cat)",
        "1 fewer of 8 bytes (step)",
    ]
    assert differences(planned, [(100, "")] * 3 + [(8, "")] * 2 + [(50, "")]) == ()


def finding(kind: Any = "drift", tier: str = "allocated") -> Finding:
    return Finding(kind, 3, f"{kind} of {tier}", tier)


def test_each_kind_is_told_once_for_each_tier() -> None:
    findings = Findings("warn")
    with pytest.warns(MemoryWarning) as told:
        for each in (finding(), finding(), finding(tier="reserved"), finding("growth"), finding("growth")):
            findings.tell(each)
    assert [str(each.message) for each in told] == ["drift of allocated", "drift of reserved", "growth of allocated"]
    assert {each.filename for each in told} == {__file__}
    assert len(findings.told) == 3


def test_what_the_watch_cannot_do_stops_nothing() -> None:
    findings = Findings("raise")
    with pytest.warns(MemoryWarning, match="no_plan"):
        findings.tell(finding("no_plan"))
    with pytest.raises(DriftError, match="growth of allocated") as raised:
        findings.tell(finding("growth"))
    assert raised.value.finding.kind == "growth"


def test_findings_are_logged_where_somebody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "memplan.watch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Findings("warn").tell(finding())
    assert [(record.name, record.message) for record in caplog.records] == [("memplan.watch", "drift of allocated")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what is resident")
def test_the_memory_of_the_process_is_that_of_the_process() -> None:
    gc.collect()  # else garbage of other tests may go in between
    before = resident_bytes()
    assert before is not None
    held = bytearray(os.urandom(1)) * (64 * 2**20)
    after, peak = resident_bytes(), peak_resident_bytes()
    assert after is not None and peak is not None
    assert 56 * 2**20 < after - before < 128 * 2**20
    assert peak > after - 32 * 2**20
    assert len(held) == 64 * 2**20


def test_a_record_of_a_run_that_nothing_is_known_of(tmp_path: Path) -> None:
    kept = Kept(loop="own", environment={"torch": "2.13.0"}, why_no_plan="Mine is no model of transformers")
    record = to_record(kept)
    assert record["request"] is None
    assert record["outcome"] == "killed"
    assert record["watched"]["plan"] == {"why_not": "Mine is no model of transformers"}
    assert write(kept, tmp_path) == tmp_path / "watched.json"
    assert json.loads((tmp_path / "watched.json").read_text()) == record


def test_nothing_of_it_imports_torch_before_it_is_called() -> None:
    code = (
        "import sys, memplan.measure.watching as watching; watching.watch, watching.MemoryWarning; "
        "from memplan.measure.watching import plan, loops, judging, record, settings, readings; "
        "print('torch' in sys.modules, 'transformers' in sys.modules, 'numpy' in sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["False", "False", "False"]


def test_a_plan_of_another_loop_needs_no_torch() -> None:
    """On a card what the Trainer lets go of is told from what the loop of an estimate holds."""
    code = """
import sys
from memplan.config.devices import load_device
from memplan.config.library.model import library_model_from, read_values
from memplan.config.library.types import library_type
from memplan.config.run import TrainingRun
from memplan.measure.watching.loops import TRAINER, Loop
from memplan.measure.watching.plan import make_plan
config = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
          "num_key_value_heads": 4, "intermediate_size": 1024, "vocab_size": 8000}
kind = library_type("llama")
model = library_model_from(kind, read_values(kind, config, "config")[0])
run = TrainingRun(micro_batch_size=4, sequence_length=128, attention="naive", gradient_clipping=1.0)
plain = make_plan(model, run, load_device("a100-80gb"), (2, 13))
other = make_plan(model, run, load_device("a100-80gb"), (2, 13), loop=Loop(TRAINER, counted_items=True))
assert "torch" not in sys.modules
print(plain.estimate.tiers.allocated_bytes - other.estimate.tiers.allocated_bytes, other.loop, other.assumptions[0])
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    less, loop, *assumption = child.stdout.split()
    logits = 4 * 128 * 8000 * 4
    assert abs(int(less) - logits) < 0.05 * logits  # but for blocks, which are split otherwise
    assert loop == "transformers.Trainer"
    assert " ".join(assumption).startswith("Trainer of transformers 5.23 on one device: logits are let go of")
