"""What a watch is made of, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.config.devices import load_device  # noqa: E402
from memplan.errors import ConfigurationError  # noqa: E402
from memplan.measure.watching import DriftError, watch  # noqa: E402
from memplan.measure.watching.settings import checked  # noqa: E402
from memplan.measure.watching.subject import Subject  # noqa: E402
from memplan.measure.watching.watcher import Watch  # noqa: E402
from memplan.profiles import read  # noqa: E402

from .cases import MODEL, ReferenceLoop, here, run_of  # noqa: E402


def test_a_watch_within_a_watch_is_refused() -> None:
    with watch(MODEL, run_of()) as outer:
        with pytest.raises(ConfigurationError, match="watch: small is watched already: a process has one watch"):
            watch(MODEL, run_of()).__enter__()
        assert outer.is_running
    with watch(MODEL, run_of()):
        pass


def test_a_watch_is_used_once() -> None:
    watched = watch(MODEL, run_of())
    with pytest.raises(ConfigurationError, match=r"watch: step\(\): the watch has not begun"):
        watched.step()
    with watched, pytest.raises(ConfigurationError, match="watch: this watch is running already: each is used once"):
        watched.begin()
    with pytest.raises(ConfigurationError, match="watch: this watch has ended: each is used once"):
        watched.begin()
    with pytest.raises(ConfigurationError, match=r"watch: steps\(\): the watch has ended"):
        next(watched.steps([1]))


def test_a_phase_that_does_not_exist() -> None:
    with (
        watch(MODEL, run_of()) as watched,
        pytest.raises(ConfigurationError, match="phase: must be one of zero_grad, forward, loss, backward") as raised,
    ):
        watched.phase("backwards")
    assert raised.value.message.endswith('did you mean "backward"?')


THREADS = torch.get_num_threads()
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": 3}, "model: must be the module that is trained, a Trainer of transformers"),
    ({"model": "gpt3"}, "model: 'gpt3' is neither a preset nor a file"),
    ({"model": "gpt2"}, "run: is missing: a configuration does not say how it is trained: gpt2"),
    ({"model": "gpt2", "run": 8}, "run: must be a TrainingRun or settings of one by name, not 8"),
    ({"model": "gpt2", "run": {"length": 8}}, "length: is not a known key"),
    ({"model": "gpt2", "run": {"sequence_length": 5000}}, "sequence_length: 5000 tokens are too many"),
    ({"model": "gpt2", "run": {"sequence_length": 8}, "device": 3}, "device: must be a name or a Device, not 3"),
    (
        {"model": "gpt2", "run": {"sequence_length": 8}, "device": f"cpu:{THREADS + 1}"},
        f"device: cpu:{THREADS + 1} has {THREADS + 1} threads, and PyTorch runs with {THREADS}",
    ),
    ({"model": torch.nn.Linear(2, 2), "device": "t4"}, "device: t4: the module is on cpu"),
    ({"model": torch.nn.Linear(2, 2), "run": {"length": 8}}, "run: 'length' is no setting of a run"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_meant_is_refused_before_anything_runs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        watch(arguments.pop("model"), **arguments)
    assert message in raised.value.message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    target = tmp_path / "none" / "run.json"
    with (
        pytest.raises(ConfigurationError, match=f"record: there is no folder {target.parent}"),
        watch(MODEL, run_of(), record=target),
    ):
        pass


def test_a_configuration_is_planned_before_the_first_step(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with watch(MODEL, {"micro_batch_size": 2, "sequence_length": 16}, record=file) as watched:
        assert watched.plan is not None
        assert watched.plan.estimate.run == run_of()
        assert watched.plan.estimate.device == here()
        assert read(file)["outcome"] == "killed"
    record = read(file)
    assert record["outcome"] == "failed"
    assert record["error"] == "the training ended well, and no step of it was recorded"


def test_no_step_has_to_be_recorded() -> None:
    loop = ReferenceLoop(run_of())
    with watch(MODEL, run_of(), recorded_step=0) as watched:
        for _ in range(3):
            loop.step()
            watched.step()
    assert watched.recorded is None
    assert watched.findings == ()
    assert watched._kept.readings.count >= 1


def test_a_record_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.errors import MeasurementError
    from memplan.measure.watching import watcher

    def refuse(kept: Any, target: Path) -> Path:
        raise MeasurementError("cannot write the record: no space left on device")

    monkeypatch.setattr(watcher, "write", refuse)
    loop = ReferenceLoop(run_of())
    with (
        pytest.warns(UserWarning, match="no space left on device") as told,
        watch(MODEL, run_of(), record=tmp_path / "run.json") as watched,
    ):
        for _ in range(3):
            loop.step()
            watched.step()
    assert len(told) == 1
    assert watched.recorded is not None


def test_what_will_not_fit_can_stop_a_training_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.measure.watching import judging
    from memplan.measure.watching.findings import Finding

    monkeypatch.setattr(judging, "does_not_fit", lambda plan, step: Finding("does_not_fit", step, "will not fit"))
    subject = Subject(model=MODEL, run=run_of(), device=load_device(f"cpu:{THREADS}"))
    watched = Watch(subject, checked({"on_drift": "raise"}))
    with pytest.raises(DriftError, match="will not fit"), watched:
        pass
    assert not watched.is_running


def test_the_summary_says_what_came_of_it() -> None:
    loop = ReferenceLoop(run_of())
    with watch(MODEL, run_of()) as watched:
        for _ in range(2):
            loop.step()
            watched.step()
    lines = watched.summary().splitlines()
    assert lines[0] == "2 steps watched"
    assert lines[1].startswith("small is planned to need ")
    assert watched.plan is not None
    peak = watched.plan.estimate.peak.peak_allocated_bytes
    assert lines[2] == f"step 2: as planned to the byte, {peak:,} bytes at the peak, in backward"


def test_a_fault_of_memplans_own_stops_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.measure.watching.profiled import ProfiledSteps

    def fails(*arguments: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(ProfiledSteps, "seen", fails)
    loop = ReferenceLoop(run_of())
    with pytest.warns(UserWarning, match="no step of small is recorded: KeyError"), watch(MODEL, run_of()) as watched:
        for _ in range(3):
            loop.step()
            watched.step()
    assert watched.recorded is None
