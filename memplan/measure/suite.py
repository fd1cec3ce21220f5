"""Which configurations make a suite, and in which order they run. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from memplan.config.device import Device
from memplan.errors import ConfigurationError, nearest
from memplan.measure.prediction import DEFAULT, Rules
from memplan.measure.suites import boundary, core, generation, library_generation, quick, setups, snapshots
from memplan.measure.suites.case import Case as Case
from memplan.measure.suites.case import Task as Task

SUITES = ("quick", "setups", "generation", "families", "core", "boundary", "snapshots")
CPU_SUITES = ("quick", "setups", "generation", "families")
ONLY_ON_THE_CPU = ("setups", "generation", "families")
CARD_SUITES = tuple(name for name in SUITES if name not in CPU_SUITES)


def suite(name: str, device: Device, rules: Rules = DEFAULT, implementation: str | None = None) -> list[Case]:
    """The configurations of a suite, validated; of one implementation, where that is named. Raises ConfigurationError
    where it has none of it."""
    cases = [task.case for task in tasks(name, device, rules)]
    kept = [case for case in cases if implementation in (None, getattr(case.model, "implementation", "reference"))]
    if not kept:
        raise ConfigurationError(f"the suite {name} has no {implementation} models", "leave out --implementation")
    return kept


def tasks(name: str, device: Device, rules: Rules = DEFAULT) -> list[Task]:
    """The configurations of a suite in the order in which they run.

    `quick` covers every option with small models, `setups` every way to set a training up, `generation` models that
    write, `families` every type of model of the library transformers. The others need a card: `core` goes from tens of
    MB to nearly all of an 80 GB one, `boundary` runs the largest micro-batch that is predicted to fit by these rules,
    and one more, and `snapshots` records every event of the allocator. Raises ConfigurationError for an unknown name,
    and for a device that the suite is not for.
    """
    check_name(name)
    if name in ONLY_ON_THE_CPU and device.backend != "cpu":
        raise ConfigurationError(f"the suite {name} is for the CPU, not for {device.name}", "use --device cpu")
    if name not in CPU_SUITES and device.backend == "cpu":
        raise ConfigurationError(
            f"the suite {name} is for cards, not for {device.name}",
            f"the CPU has {', '.join(f'--suite {each}' for each in CPU_SUITES)}",
        )
    if name == "families":
        from memplan.measure.suites import library

        return list(library.tasks(device))
    if name == "setups":
        return list(setups.tasks(device))
    if name == "generation":
        return [*generation.tasks(device), *library_generation.tasks(device)]
    if name == "boundary":
        return list(boundary.tasks(device, rules))
    if name == "core":
        return core.tasks(device)
    return list(quick.tasks(device) if name == "quick" else snapshots.tasks(device))


def check_name(name: str) -> None:
    """Raises ConfigurationError for a name that no suite has."""
    if name not in SUITES:
        close = nearest(name, SUITES)
        hint = f"did you mean {close}? " if close else ""
        raise ConfigurationError(f"{name!a} is not a suite", f"{hint}known suites: {', '.join(SUITES)}")


def matching(chosen: Sequence[Task], pattern: str | None) -> list[Task]:
    """The tasks whose title has `pattern` in it; with * or ? in it, those that match as a whole, as file names do.

    Raises ConfigurationError where none does.
    """
    if pattern is None:
        return list(chosen)
    wanted = pattern.lower()
    whole = wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*"
    found = [task for task in chosen if fnmatchcase(task.title.lower(), whole)]
    if not found:
        close = nearest(pattern, [task.title for task in chosen])
        hint = f"did you mean {close!r}? " if close else ""
        raise ConfigurationError(
            f"--only: none of {len(chosen)} configurations matches {pattern!a}", f"{hint}--dry-run shows them all"
        )
    return found
