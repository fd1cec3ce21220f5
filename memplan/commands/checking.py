"""The work behind `memplan check`: read, judge, write in every format that is asked for."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from memplan.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from memplan.check.baseline import Baseline
    from memplan.check.judge import Judged
    from memplan.check.settings import Settings

SUMMARY_LIMIT = 2**20
"""GitHub takes no more bytes of a step's summary."""

SUMMARY_LEAST = 2**10
"""Where less is left, none of it is written."""


def run(
    file: str | None,
    *,
    only: Sequence[str],
    forms: Sequence[str],
    outputs: Sequence[str],
    baseline: str | None,
    device: str | None,
    budget: str | None,
    report_only: bool,
) -> int:
    """Judge the checks of a file and write what came of them. Returns the exit code."""
    from memplan.check.judge import judge

    targets = targets_of(forms, outputs)
    settings = chosen(load(file, device, budget), only)
    judged = judge(settings, baseline_of(settings, baseline))
    path = _in_workspace(settings.path)
    for form, target in targets:
        _write(form, target, path if form in ("github", "sarif") else settings.path, judged)
    _summarise(settings.path, judged)
    outcomes = {each.outcome for each in judged}
    if "undecided" in outcomes:
        return 2
    return 1 if "failed" in outcomes and not report_only else 0


def load(file: str | None, device: str | None = None, budget: str | None = None) -> "Settings":
    """The checks of a file; options of the command line win over it."""
    from memplan.check.budgets import named_budget
    from memplan.check.settings import find, read

    settings = read(find(file))
    if device is not None:
        settings = replace(settings, checks=tuple(replace(check, device=device) for check in settings.checks))
    if budget is not None:
        amount = named_budget("--budget", budget)
        settings = replace(settings, checks=tuple(replace(check, budget=amount) for check in settings.checks))
    return settings


def chosen(settings: "Settings", only: Sequence[str]) -> "Settings":
    """The checks whose names match a pattern. Raises ConfigurationError for a pattern that none does."""
    if not only:
        return settings
    names = [check.name for check in settings.checks]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = nearest(pattern, names)
            hint = f"did you mean {close!a}?" if close else f"checks: {', '.join(names[:10])}"
            raise ConfigurationError(f"--only: no check of {settings.path} is called {pattern!a}", hint)
    kept = tuple(check for check in settings.checks if any(fnmatchcase(check.name, pattern) for pattern in only))
    return replace(settings, checks=kept)


def baseline_of(settings: "Settings", path: str | None) -> "Baseline | None":
    """The baseline that is named, if any."""
    path = path or settings.baseline
    if path is None:
        return None
    from memplan.check.baseline import read_baseline

    return read_baseline(path)


def targets_of(forms: Sequence[str], outputs: Sequence[str]) -> list[tuple[str, str | None]]:
    """Each format and the file it goes to, None for standard output. A file without a format has the one of --format,
    or the one its name ends in."""
    from memplan.report.check import FORMATS

    def known(form: str) -> str:
        if form not in FORMATS:
            close = nearest(form, FORMATS)
            suggestion = f"; did you mean {close}?" if close else ""
            raise ConfigurationError(f"--format: must be one of {', '.join(FORMATS)}, not {form[:40]!a}{suggestion}")
        return form

    printed = [known(form) for form in forms]
    targets: list[tuple[str, str | None]] = []
    for output in outputs:
        form, equals, target = output.partition("=")
        if not equals:
            form, target = (printed.pop(0) if len(printed) == 1 else _ending(output)), output
        if any(target == taken for _, taken in targets):
            raise ConfigurationError(f"--output: {target[:60]!a} is written twice", "give each format its own file")
        if not target:
            raise ConfigurationError(
                f"--output: {output[:60]!a} names no file", "for example --output junit=memory.xml"
            )
        targets.append((known(form), target))
    printed = printed or ([] if outputs and forms else ["text"])
    if len(printed) > 1:
        raise ConfigurationError(
            f"--format: {' and '.join(printed)} cannot share standard output", "give all but one an --output KIND=FILE"
        )
    return targets + [(form, None) for form in printed]


_ENDINGS = {".json": "json", ".md": "markdown", ".xml": "junit", ".sarif": "sarif", ".txt": "text"}


def _ending(path: str) -> str:
    form = _ENDINGS.get(os.path.splitext(path)[1].lower())
    if form is None:
        raise ConfigurationError(f"--output: which format is {path[:60]!a}?", "write --output junit=memory.xml")
    return form


def _write(form: str, target: str | None, path: str, judged: "Sequence[Judged]") -> None:
    from memplan.check.baseline import write as write_file
    from memplan.commands.output import colour, columns, write
    from memplan.report.check import render

    if target is None:
        write(render(form, path, judged, width=columns(), colour=colour()))
    else:
        write_file(target, render(form, path, judged, width=100))


def _in_workspace(path: str) -> str:
    """A path as GitHub knows it: from the root of what was checked out, wherever the command runs."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if not workspace:
        return path
    there = os.path.relpath(os.path.realpath(path), os.path.realpath(workspace))
    return path if there.startswith("..") else there


def _summarise(path: str, judged: "Sequence[Judged]") -> None:
    """In a step of GitHub Actions, its summary: appended, since other commands write there as well."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    from memplan.report.check.markdown import render

    try:
        taken = os.path.getsize(summary) if os.path.exists(summary) else 0
        if taken + SUMMARY_LEAST > SUMMARY_LIMIT:
            print("warning: the step summary is full, and the checks are not in it", file=sys.stderr)
            return
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render(path, judged, SUMMARY_LIMIT - taken))
    except (OSError, ValueError) as error:
        print(f"warning: cannot write the step summary {summary}: {error}", file=sys.stderr)


FIRST = """\
# What our training jobs may need. `memplan check` reads this file: exit code 0 where all of it holds, 1 where a job
# outgrows its card or budget, 2 where that cannot be decided.
schema_version = 1

# What the checks needed before; `memplan baseline write` makes it, and `growth` compares with it.
# baseline = "memplan-baseline.json"

[defaults]
device = "h100-80gb"      # `memplan devices` lists the cards
level = "error"           # or "warn", or "off"

[checks.fine-tune]
model = "llama-3.2-1b"    # a preset (`memplan presets`), or the path of a config.json or a TOML file
micro_batch_size = 4
sequence_length = 2048
precision = "bf16-mixed"
budget = "90 %"           # of the card; or a size, such as "72 GiB". 24 GiB are not 24 GB: a unit is a must
# headroom = "2 GiB"      # warn where less than this is left of the budget
# growth = "5 %"          # fail where it needs so much more than in the baseline
# growth_warning = "1 %"

# A check for every combination:
# [matrix.lengths]
# models = ["gpt2", "llama-3.2-1b"]
# devices = ["a100-40gb", "h100-80gb"]
# sequence_length = [1024, 2048]
"""


def first_file(path: str | None) -> None:
    """Write a first file. Raises ConfigurationError where there is one already."""
    from memplan.check.baseline import write as write_file
    from memplan.check.settings import FILE
    from memplan.commands.output import write

    target = os.path.join(path, FILE) if path is not None and os.path.isdir(path) else path or FILE
    if os.path.exists(target):
        raise ConfigurationError(f"{target} is there already", "move it away first, or edit it")
    write_file(target, FIRST)
    write(f"wrote {target}: `memplan check` reads it")
