"""A file of checks as it was at a revision in git, with the configurations that it names. The working tree is not
touched, and nothing of it is read: an old job is never judged by a new configuration."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memplan.check.settings import FILE, PROJECT
from memplan.config.documents import parse_toml, read_text
from memplan.config.presets import names
from memplan.errors import ConfigurationError, MissingDependencyError


def known(revision: str) -> bool:
    """Whether git knows a revision of that name here."""
    if not revision or revision.startswith("-"):
        return False
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is not None
    except MissingDependencyError:
        return False


def missing(revision: str) -> str:
    """Why a revision is not known."""
    try:
        inside = _git("rev-parse", "--is-inside-work-tree") is not None
    except MissingDependencyError as error:
        return error.message
    return f"git knows no {revision[:40]!a} here" if inside else "this folder is in no repository of git"


@contextmanager
def checked_out(revision: str, path: str | None) -> Iterator[tuple[str, str]]:
    """The path of a copy of the file of checks, and the copy of the present folder that it is in, which is gone
    afterwards. Raises ConfigurationError where the revision has no such file."""
    path = path or next((name for name in (FILE, PROJECT) if _shown(revision, name) is not None), None)
    content = None if path is None else _shown(revision, path)
    if path is None or content is None:
        raise ConfigurationError(
            f"{revision} has no {path or f'{FILE} and no {PROJECT}'}", "name the file: REVISION:folder/memplan.toml"
        )
    prefix = (_git("rev-parse", "--show-prefix") or b"").decode().strip()
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.normpath(os.path.join(os.path.realpath(root), prefix))
        file = _put(folder, root, path, content)
        told = as_written(file, folder, revision)
        for model in _models(parse_toml(read_text(file), told)):
            beside = os.path.join(os.path.dirname(path), model)
            for name in (beside, os.path.join(beside, "config.json")):
                shown = None if os.path.isabs(model) else _shown(revision, name)
                if shown is not None:
                    _put(folder, root, name, shown)
        yield file, folder


def as_written(text: str, folder: str, revision: str) -> str:
    """A message of files in the copy `folder` as one of the revision."""
    return text.replace(f"{folder}{os.sep}", f"{revision}:").replace(folder, f"{revision}:")


def _models(document: Any) -> Iterator[str]:
    """Every text under a key `model` or `models`, wherever it stands."""
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key in ("model", "models"):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str) and each not in names():
                    yield each
        yield from _models(value)


def _put(folder: str, root: str, name: str, content: bytes) -> str:
    """Write a file below `folder`, and never outside of `root`."""
    target = Path(os.path.normpath(os.path.join(folder, name)))
    if not target.is_relative_to(os.path.realpath(root)):
        raise ConfigurationError(f"{name}: lies outside of the repository")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return str(target)


def _shown(revision: str, path: str) -> bytes | None:
    """A file as it was, by its path from the current folder; None for none, or a folder."""
    name = f"{revision}:./{path}"
    if _git("cat-file", "-t", name) != b"blob\n":
        return None
    return _git("show", name)


def _git(*arguments: str) -> bytes | None:
    """What git says, None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise MissingDependencyError(
            "comparing revisions needs git, which is not installed", "give two files instead"
        ) from None
    return done.stdout if done.returncode == 0 else None
