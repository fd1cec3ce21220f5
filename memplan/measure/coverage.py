"""What is recorded, folder by folder, and what is missing of each suite. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memplan.config.device import Device
from memplan.measure.prediction import rules_of
from memplan.measure.recording import SETTLED, history_file, requested
from memplan.measure.suite import CARD_SUITES, CPU_SUITES, SUITES, tasks
from memplan.measure.suites.case import Case, Task
from memplan.profiles import OUTCOMES, Record, card_of, folder_name, outcome_of, request_of


@dataclass(frozen=True, slots=True)
class SuiteCoverage:
    """How much of a suite a folder holds."""

    name: str
    total: int
    missing: tuple[str, ...]  # titles
    command: str  # what measures it

    @property
    def recorded(self) -> int:
        """How many of its configurations have an outcome that says something."""
        return self.total - len(self.missing)


@dataclass(frozen=True, slots=True)
class FolderCoverage:
    """The records of one machine and software."""

    folder: str
    card: str
    records: int
    torch: tuple[str, ...]
    outcomes: dict[str, int]
    suites: tuple[SuiteCoverage, ...]


def coverage(records: Sequence[tuple[Path, Record]], out: str) -> list[FolderCoverage]:
    """The folders in the order of their names. Records of one folder share a device, a release and a driver."""
    groups: dict[str, list[tuple[Path, Record]]] = {}
    for file, record in records:
        groups.setdefault(folder_name(record), []).append((file, record))
    return [_folder(name, group, out) for name, group in sorted(groups.items())]


def missing_everywhere(folders: Sequence[FolderCoverage], out: str) -> dict[str, str]:
    """Suites of which nothing at all is recorded, with the command that measures them."""
    seen = {suite.name for folder in folders for suite in folder.suites if suite.recorded}
    return {name: command(name, "cpu" if name in CPU_SUITES else "local", out) for name in SUITES if name not in seen}


def command(suite: str, device: str, out: str) -> str:
    """What to type to measure a suite, or what is missing of it."""
    return f"memplan measure --suite {suite} --device {device} --out {out}"


def _folder(name: str, group: Sequence[tuple[Path, Record]], out: str) -> FolderCoverage:
    device = requested(request_of(group[0][1])[2])
    rules = rules_of(group[0][1]["environment"])
    settled: dict[Case, Path] = {}
    for file, record in group:
        model, run, _ = request_of(record)
        if outcome_of(record) in SETTLED:
            settled[Case(model, run)] = file
    outcomes = Counter(outcome_of(record) for _, record in group)
    suites = []
    for suite in CPU_SUITES if device.backend == "cpu" else CARD_SUITES:
        wanted = tasks(suite, device, rules)
        missing = tuple(task.title for task in wanted if not _holds(settled, task))
        suites.append(SuiteCoverage(suite, len(wanted), missing, command(suite, _device(device), out)))
    return FolderCoverage(
        folder=name,
        card=card_of(group[0][1]),
        records=len(group),
        torch=tuple(sorted({str(record["environment"]["torch"]) for _, record in group})),
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES},
        suites=tuple(suites),
    )


def _holds(settled: dict[Case, Path], task: Task) -> bool:
    file = settled.get(task.case)
    return file is not None and (not task.history or history_file(file).exists())


def _device(device: Device) -> str:
    return device.name if device.backend == "cpu" else "local"
