"""JSON Schemas of what memplan reads and writes, one file each: draft 2020-12, everything named, nothing beside it."""

from __future__ import annotations

import os

from memplan.errors import ConfigurationError, nearest

_FOLDER = os.path.dirname(__file__)


def names() -> tuple[str, ...]:
    """Every schema's name, sorted."""
    return tuple(sorted(entry[: -len(".json")] for entry in os.listdir(_FOLDER) if entry.endswith(".json")))


def read(name: str) -> str:
    """The text of a schema. Raises ConfigurationError for a name that none has."""
    if name not in names():
        close = nearest(name, names())
        suggestion = f"; did you mean {close}?" if close else ""
        raise ConfigurationError(f"schema: {name[:40]!a} is not known{suggestion}", f"known are {', '.join(names())}")
    with open(os.path.join(_FOLDER, f"{name}.json"), encoding="utf-8") as file:
        return file.read()
