"""Running configurations and keeping what comes of each, so that an interrupted run of many can go on. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memplan.config.device import Device
from memplan.errors import MeasurementError
from memplan.measure import history
from memplan.measure.child import Child
from memplan.measure.effort import seconds
from memplan.measure.prediction import DEFAULT, Prediction, Rules, predict, rules_of
from memplan.measure.suites.case import Case, Task
from memplan.measure.suites.core import FRESH
from memplan.profiles import Record, make_record, outcome_of, read, record_path, save

SETTLED = ("ran", "out_of_memory")
"""Outcomes that say something of the configuration. What failed, hung or was killed is measured again."""

INDIFFERENT = ("python",)
"""Keys of an environment on which no bytes depend."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A task, what it is predicted to need, and roughly how long it takes (on an H100; memplan/measure/effort.py)."""

    task: Task
    prediction: Prediction
    seconds: float
    expected: str  # outcome

    @property
    def title(self) -> str:
        """The task's."""
        return self.task.title


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a task. `skipped` is one that was recorded before; its record is the old one."""

    planned: Planned
    outcome: str
    file: Path
    record: Record | None
    skipped: bool = False
    message: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether it ended as predicted. Failing, hanging and being killed never are."""
        return self.outcome == self.planned.expected


def plan(tasks: Iterable[Task], device: Device, rules: Rules = DEFAULT) -> list[Planned]:
    """Tasks with their predictions."""
    planned = []
    for task in tasks:
        prediction = predict(*task.case, device, rules)
        expected = "ran" if prediction.fits(device) else "out_of_memory"
        effort = seconds(task.case.model, task.case.run, prediction.needed_bytes, task.fresh)
        planned.append(Planned(task, prediction, effort, expected))
    return planned


def requested(device: Device) -> Device:
    """The device as a record names it: what others held of the card at one moment is no part of the request."""
    return replace(device, used_by_others_bytes=0) if device.used_by_others_bytes else device  # type: ignore[call-arg]


class Recording:
    """Configurations measured one after the other, each record written below `folder` at once.

    What is recorded there already, in the same environment, is skipped; `restart` measures it again and replaces it.
    `fresh` gives every run a process of its own.
    """

    def __init__(
        self, child: Child, device: Device, folder: Path, *, restart: bool = False, fresh: bool = False
    ) -> None:
        self.child = child
        self.device = requested(device)
        self.folder = folder
        self.restart = restart
        self.fresh = fresh
        self.environment = child.environment(self.device)
        self.rules = rules_of(self.environment)
        self.kept = 0  # records written

    def check(self, planned: Sequence[Planned]) -> None:
        """Look at what is recorded before anything runs. Raises MeasurementError where `folder` holds some of these
        configurations from another environment."""
        for each in planned:
            self._recorded(each)

    def result(self, planned: Planned) -> Result:
        """Measure one configuration and keep its record, or find it recorded.

        Raises MeasurementError where the record cannot be written; those written before it stay.
        """
        recorded = self._recorded(planned)
        return recorded if recorded is not None else self._measure(planned)

    def _recorded(self, planned: Planned) -> Result | None:
        """What is recorded of a task already; None where it has to be measured."""
        file = self._file(planned)
        if self.restart or not file.exists():
            return None
        try:
            record = read(file)
        except MeasurementError as error:  # it may be a newer memplan's: never overwritten unasked
            return Result(planned, "failed", file, None, message=f"{error.message}; --restart replaces it")
        differing = differences(record["environment"], self._environment_of(planned))
        if differing:
            raise MeasurementError(
                f"{file} was recorded in another environment: {'; '.join(differing)}",
                "give another --out, or replace the records with --restart",
            )
        whole = not planned.task.history or history_file(file).exists()
        if outcome_of(record) in SETTLED and whole:
            return Result(planned, outcome_of(record), file, record, skipped=True)
        return None

    def _measure(self, planned: Planned) -> Result:
        if self.fresh or planned.task.fresh:
            self.child.replace()
        attempt = self.child.attempt(*planned.task.case, self.device, planned.task.history)
        record, events = attempt.record, history_file(self._file(planned))
        if attempt.history is not None:
            history.write(attempt.history, events)
            record["history"] = events.name
        try:
            file = save(record, self.folder)
        except MeasurementError:
            if attempt.history is not None:
                with suppress(OSError):
                    events.unlink()
            raise
        self.kept += 1
        return Result(planned, outcome_of(record), file, record, message=attempt.message)

    def _environment_of(self, planned: Planned) -> dict[str, Any]:
        """What a run here can depend on: the library that a model is of, as well."""
        library: str | None = getattr(planned.task.case.model, "implementation", None)
        if library is None:
            return self.environment
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {**self.environment, library: version(library)}
        except PackageNotFoundError:
            return self.environment

    def _file(self, planned: Planned) -> Path:
        return self.folder / record_path(
            make_record(*planned.task.case, self.device, {"environment": self.environment})
        )


def repeated(results: Sequence[Result]) -> list[tuple[str, bool]]:
    """For each case that ran both in a process of its own and behind others in one: its title, and whether every phase
    and both of the allocator's tiers had the same bytes."""
    by_case = {result.planned.task.case: result.record for result in results}
    pairs = []
    for case, fresh in by_case.items():
        if not case.model.name.endswith(FRESH):
            continue
        shared = by_case.get(Case(replace(case.model, name=case.model.name.removesuffix(FRESH)), case.run))
        if fresh is None or shared is None or (fresh.get("process"), shared.get("process")) != ("fresh", "shared"):
            continue
        if outcome_of(fresh) == outcome_of(shared) == "ran":
            same = fresh["phases"] == shared["phases"] and all(
                fresh["tiers"][tier] == shared["tiers"][tier] for tier in ("allocated_bytes", "reserved_bytes")
            )
            pairs.append((Task(case).title, same))
    return pairs


def history_file(record_file: Path) -> Path:
    """Where the memory history of a record lies: beside it."""
    return record_file.with_name(record_file.name.removesuffix(".json") + history.SUFFIX)


def differences(recorded: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What of two environments differs, `torch: 2.11.0 there, 2.13.0 here`."""
    names = [*recorded, *(name for name in current if name not in recorded)]
    return [
        f"{name}: {recorded.get(name)} there, {current.get(name)} here"
        for name in names
        if name not in INDIFFERENT and recorded.get(name) != current.get(name)
    ]
