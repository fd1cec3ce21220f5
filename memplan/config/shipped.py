"""Reads memplan's own data files (presets, cards), which keep to a flat subset of TOML.

Importing tomllib costs 2 ms of every cold start, and these files need none of its power. A test reads each of them with
tomllib as well and compares.
"""

from __future__ import annotations

Table = dict[str, str | int | float | bool]


def read_tables(path: str) -> dict[str, Table]:
    """The tables of a file by name; keys above the first header are in the table named ""."""
    tables: dict[str, Table] = {"": {}}
    table = tables[""]
    with open(path, encoding="utf-8") as file:
        for line in file:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            if text.startswith("["):
                table = tables[text.strip("[]")] = {}
            else:
                key, _, value = text.partition(" = ")
                table[key] = _value(value)
    return tables


def _value(text: str) -> str | int | float | bool:
    if text.startswith('"'):
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text)
