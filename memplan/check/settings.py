"""What a team's file asks: memplan.toml, or [tool.memplan] in pyproject.toml.

schema_version = 1
baseline = "memplan-baseline.json"       # optional

[defaults]                               # optional: for every check that does not say otherwise
device = "h100-80gb"

[checks.train-8b]
model = "llama-3-8b"
sequence_length = 8192
precision = "bf16"
budget = "90 %"

[matrix.lengths]                         # a check for every combination of what is a list
models = ["gpt2", "configs/ours.json"]
devices = ["a100-80gb", "h100-80gb"]
sequence_length = [512, 1024]
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from memplan.check.budgets import Amount
from memplan.config.documents import parse_toml, read_text
from memplan.errors import ConfigurationError

SCHEMA_VERSION = 1
FILE = "memplan.toml"
PROJECT = "pyproject.toml"
SECTION = ("tool", "memplan")
LEVELS = ("error", "warn", "off")

INIT_HINT = "`memplan check --init` writes a first one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One job and what it may need. `line` is where the file asks for it; `run` are settings of a run, not yet
    checked."""

    name: str
    line: int
    model: str
    device: str
    implementation: str | None = None
    level: str = "error"
    changes: Mapping[str, object] = field(default_factory=dict)  # fields of the model
    run: Mapping[str, object] = field(default_factory=dict)
    budget: Amount | None = None  # None: all that the card can give
    headroom: Amount | None = None  # less left than this is a warning
    growth: Amount | None = None  # more than this over the baseline fails
    growth_warning: Amount | None = None  # and more than this warns
    limited: bool = True  # whether it must be held against anything


@dataclass(frozen=True, slots=True)
class Settings:
    """A file and its checks, in the file's order."""

    path: str
    checks: tuple[Check, ...]
    baseline: str | None  # path

    def unlimited(self) -> Settings:
        """The same jobs, held against nothing: neither a budget nor a baseline."""

        def free(check: Check) -> Check:
            return replace(check, budget=None, headroom=None, growth=None, growth_warning=None, limited=False)

        return replace(self, checks=tuple(map(free, self.checks)))


def find(path: str | None) -> str:
    """The file to read: the one that is named, else the one of this folder. Raises ConfigurationError where there is
    none, or where there are two."""
    if path is not None:
        return _in_folder(path) if os.path.isdir(path) else path
    return _in_folder(".")


def _in_folder(folder: str) -> str:
    own, project = (os.path.normpath(os.path.join(folder, name)) for name in (FILE, PROJECT))
    if os.path.isfile(own):
        if os.path.isfile(project) and _has_section(project, strict=False):
            raise ConfigurationError(
                f"{own} and [tool.memplan] in {project} both hold checks", "keep one, or name the file to read"
            )
        return own
    if os.path.isfile(project) and _has_section(project, strict=True):
        return project
    where = "" if folder == "." else f" in {folder}"
    raise ConfigurationError(f"no {FILE}, and no [tool.memplan] in {PROJECT}{where}", INIT_HINT)


def _has_section(path: str, strict: bool) -> bool:
    """Whether a pyproject.toml speaks of memplan. One that cannot be read is somebody else's to complain of, unless it
    is all there is (`strict`) and names memplan."""
    try:
        text = read_text(path)
    except ConfigurationError:
        return False
    if "memplan" not in text:
        return False
    try:
        tool = parse_toml(text, path).get("tool")
    except ConfigurationError:
        if strict:
            raise
        return False
    return isinstance(tool, dict) and "memplan" in tool


def read(path: str) -> Settings:
    """The checks of a file. Raises one ConfigurationError that names every line that is wrong."""
    from memplan.check.reader import Reader

    text = read_text(path)
    document: Any = parse_toml(text, path)
    inside: tuple[str, ...] = ()
    if os.path.basename(path) == PROJECT:
        inside = SECTION
        for key in SECTION:
            document = document.get(key) if isinstance(document, dict) else None
        if not isinstance(document, dict):
            raise ConfigurationError(f"{path}: has no [tool.memplan]", INIT_HINT)
    return Reader(path, text, inside).read(document)
