"""What `memplan diff` can lay beside each other: a baseline, a file of checks, one of an earlier revision in git, or a
single job."""

from __future__ import annotations

import os
from collections.abc import Callable

from memplan.check.baseline import entry_of, read_baseline
from memplan.check.diff import Entries
from memplan.check.judge import judge
from memplan.check.settings import PROJECT, Settings, find, read
from memplan.config.documents import parse_json, parse_toml, read_text
from memplan.config.fields import did_you_mean, show
from memplan.config.presets import names
from memplan.errors import ConfigurationError

Job = Callable[[str], Entries]
"""Entries of a single job, by what names its model."""


def entries_of(side: str, job: Job) -> Entries:
    """Entries by check of one side of a comparison. `job` estimates what names a model.

    A preset's name is a preset; then come files and folders, then revisions of git.
    """
    if side in names():
        return job(side)
    if os.path.isdir(side):
        return job(side) if os.path.exists(os.path.join(side, "config.json")) else checked(read(find(side)))
    if os.path.isfile(side):
        if _holds_checks(side):
            return checked(read(side))
        return read_baseline(side).checks if _is_baseline(side) else job(side)
    from memplan.check import revisions

    revision, colon, path = side.partition(":")
    if revisions.known(revision):
        return of_revision(revision, path if colon else None)
    organisation, _, name = side.partition("/")
    no_path = not side.startswith(".") and not side.lower().endswith((".json", ".toml"))
    if organisation and name and "/" not in name and not colon and no_path:
        return job(side)  # perhaps org/name of the hub
    raise ConfigurationError(
        f"{show(side)} is neither a file nor a preset{did_you_mean(side, names())}",
        f"nor a revision of git: {revisions.missing(revision)}",
    )


def checked(settings: Settings) -> Entries:
    """Entries of a file's checks. Raises ConfigurationError where one cannot be decided."""
    entries = {}
    for each in judge(settings.unlimited(), remedies=False):
        if each.outcome == "undecided":
            raise ConfigurationError(f"{settings.path}: {each.check.name}: {each.error}", each.hint or None)
        if each.estimate is not None:
            entries[each.check.name] = entry_of(each.estimate, each.upper)
    return entries


def of_revision(revision: str, path: str | None) -> Entries:
    """Entries of the checks as they were at a revision: the file and the configurations it names, from git alone."""
    from memplan.check import revisions

    with revisions.checked_out(revision, path) as (file, folder):
        try:
            return checked(read(file))
        except ConfigurationError as error:
            told = revisions.as_written(error.message, folder, revision)
            raise ConfigurationError(told, error.hint) from None


def _holds_checks(path: str) -> bool:
    if os.path.basename(path) == PROJECT:
        return True
    if not path.lower().endswith(".toml"):
        return False
    document = parse_toml(read_text(path), path)
    return any(key in document for key in ("checks", "matrix", "schema_version", "defaults"))


def _is_baseline(path: str) -> bool:
    return path.lower().endswith(".json") and parse_json(read_text(path), path).get("kind") == "memplan-baseline"
