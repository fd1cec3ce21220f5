"""The models memplan knows by name: one data file each, with its source and its published parameter count."""

from __future__ import annotations

import os

from memplan.config.shipped import Table, read_tables

_FOLDER = os.path.dirname(__file__)


def names() -> tuple[str, ...]:
    """Every preset's name, sorted."""
    return tuple(sorted(entry[: -len(".toml")] for entry in os.listdir(_FOLDER) if entry.endswith(".toml")))


def read(name: str) -> Table:
    """The fields a preset gives its Transformer, `name` among them; KeyError where there is no such preset."""
    if name not in names():  # also keeps a name from being a path
        raise KeyError(name)
    return {"name": name, **read_tables(os.path.join(_FOLDER, f"{name}.toml"))[""]}
