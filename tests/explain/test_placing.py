"""Runs that go as planned but for one thing: it is found, and nothing else is said to be wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.estimate import backend_of, trace
from memplan.expansion import expand
from memplan.explain.explanation import explained
from memplan.explain.naming import Names, names_at_peak
from memplan.explain.placing import Placement
from memplan.explain.program import Program
from memplan.explain.recording import record_of
from memplan.explain.rules import settings_of
from memplan.explain.story import Story
from memplan.ledger import Ledger
from memplan.replay import module_of
from memplan.units import MIB

from .simulated import Hook, Recorder, frame, run_plan
from .subject import CARD, MODEL, RUN

DEEP = replace(MODEL, num_layers=6)


@cache
def ledger_of(run: TrainingRun = RUN) -> Ledger:
    return trace(DEEP, run, backend_of(CARD))


class Found:
    """A run, named by its plan."""

    def __init__(
        self,
        hook: Hook | None = None,
        steps: int = 3,
        frames: bool = True,
        keep: int | None = None,
        kept: int = -1,
        run: TrainingRun = RUN,
    ) -> None:
        recorder = Recorder()
        run_plan(ledger_of(run), steps, recorder, hook, kept)
        snapshot = recorder.snapshot(keep)
        if not frames:
            for entry in snapshot["device_traces"][0]:
                entry["frames"] = []
        recording = record_of(snapshot)
        self.story = Story(recording, settings_of(recording))
        self.program = Program(ledger_of(run))
        self.names: Names = names_at_peak(Placement(self.story, self.program))

    @property
    def statuses(self) -> Counter[str]:
        return Counter(each.status for each in self.names.alive)

    def bytes_of(self, status: str) -> int:
        return sum(each.life.size for each in self.names.alive if each.status == status)

    def is_as_planned(self) -> bool:
        """Whether every block has a tensor of its size, and no tensor is missing."""
        return (
            self.statuses.keys() == {"planned"}
            and self.names.unseen == ()
            and all(self.program.tensors[each.tensor or 0].size == each.life.requested for each in self.names.alive)
        )


@pytest.mark.parametrize("keep", [None, 4000, 1500, 900])
def test_a_run_as_planned_is_explained_wherever_its_trace_begins(keep: int | None) -> None:
    found = Found(keep=keep)
    assert found.is_as_planned()
    assert found.names.extra == 0
    assert found.names.found == found.names.planned > 0


@pytest.mark.parametrize("keep", [300, 10])
def test_a_trace_of_a_few_events_tells_what_lasts(keep: int) -> None:
    """No step can be recognised in it; what a run keeps from step to step is named all the same."""
    found = Found(keep=keep)
    assert found.names.step is None
    assert found.names.unseen == ()
    assert found.bytes_of("unplanned") < 4 * MIB
    assert found.bytes_of("planned") > 150 * MIB


@pytest.mark.parametrize("setting", [{"recompute": "full"}, {"gradient_accumulation_steps": 3}, {"optimizer": "sgd"}])
def test_other_runs_are_explained_too(setting: dict[str, object]) -> None:
    assert Found(run=validate_run(DEEP, replace(RUN, **setting), CARD)).is_as_planned()  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("place", [3, 90, 125])
@pytest.mark.parametrize("alike", [True, False])
def test_a_leak_is_found_whatever_its_size(place: int, alike: bool, frames: bool) -> None:
    """Also where it is as large as the tensor that is made next to it."""
    planned = expand(ledger_of()).births[place].size
    leaked: list[int] = []

    def leak(recorder: Recorder, step: int, birth: int) -> None:
        if birth == place:
            recorder.frames = [frame("remember", 99)]
            leaked.append(recorder.take(planned if alike else planned + 512).address)

    found = Found(leak, steps=4, frames=frames)
    strange = {each.life.address for each in found.names.alive if each.status == "unplanned"}
    alive = [life for life in found.story.alive(found.story.peak.event) if life.died is None]
    assert strange == {life.address for life in alive} & set(leaked) != set()
    assert found.statuses["kept"] == 0
    assert found.names.unseen == ()


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("place", [7, 61, 104, 130])
def test_a_tensor_that_is_never_freed_is_named(place: int, frames: bool) -> None:
    found = Found(steps=4, kept=place, frames=frames)
    assert found.names.step == 3
    kept = [each for each in found.names.alive if each.status == "kept"]
    tensors = [found.program.tensors[each.tensor or 0] for each in kept]
    made = expand(ledger_of())
    expected = made.births[place]
    assert {tensor.operation for tensor in tensors} == {expected.operation}
    assert {tensor.module for tensor in tensors} == {module_of(expected, made.layer(place))}
    assert [each.step for each in kept][:3] == [0, 1, 2]
    assert found.statuses["unplanned"] == 0 and found.names.unseen == ()


def test_allocations_that_come_and_go_are_no_leak() -> None:
    def busy(recorder: Recorder, step: int, birth: int) -> None:
        if birth % 7 == 0:
            recorder.drop(recorder.take(123 * 1024 + birth))

    found = Found(busy)
    assert found.is_as_planned()
    assert found.names.extra > 15


@pytest.mark.parametrize(
    ("run", "setting", "value"),
    [
        ({"attention": "efficient"}, "attention", "efficient"),
        ({"precision": "bf16-mixed"}, "precision", "bf16-mixed"),
    ],
)
def test_a_plan_with_one_wrong_setting_is_put_right(run: dict[str, object], setting: str, value: str) -> None:
    recorder = Recorder()
    run_plan(ledger_of(validate_run(DEEP, replace(RUN, **run), CARD)), 2, recorder)  # type: ignore[arg-type]
    found = explained(recorder.snapshot(), request=(DEEP, RUN, CARD))
    assert found.beside is not None and found.beside.nearer is not None
    assert (found.beside.nearer.setting, found.beside.nearer.value) == (setting, value)
    assert found.beside.nearer.off == 0 < found.beside.nearer.before


def test_a_plan_of_something_else_is_not_believed() -> None:
    other = replace(MODEL, hidden_size=320, intermediate_size=640, num_layers=4, vocab_size=3000, head_dim=80)
    recorder = Recorder()
    run_plan(ledger_of(), 2, recorder)
    found = explained(recorder.snapshot(), request=(other, RUN, CARD))
    assert found.beside is not None
    assert not found.beside.goes_with
    assert found.beside.blocks("unplanned") > found.story.peak.allocated * 6 // 10
    assert all(change.kind == "allocator" for change in found.changes)
