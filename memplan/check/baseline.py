"""What the checks of a file needed before: a committed file, so that a change of it can be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.config.documents import parse_json, read_text
from memplan.config.fields import show
from memplan.errors import ConfigurationError

if TYPE_CHECKING:
    from memplan.check.judge import Judged
    from memplan.estimate import Estimate

SCHEMA_VERSION = 1
LARGEST = 20
"""Tensors that are kept of each check: for each place, operation and component, all that is alive at the peak."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline and where it was read. `checks` are its entries by the name of the check."""

    path: str
    checks: dict[str, dict[str, Any]]

    def upper_of(self, name: str) -> int | None:
        """The upper end that a check had, in bytes; None for one that is not in it."""
        entry = self.checks.get(name)
        return None if entry is None else int(entry["upper_bytes"])


def entry_of(found: Estimate, upper: int) -> dict[str, Any]:
    """What is kept of an estimate: bytes, and the request in words that a reader of a diff understands."""
    from memplan.config.model import told

    peak = found.peak
    return {
        "upper_bytes": upper,
        "peak_phase": peak.name,
        "allocated_bytes": peak.peak_allocated_bytes,
        "reserved_bytes": found.tiers.reserved_bytes,
        "device_bytes": found.tiers.device_bytes,
        "at_peak": dict(found.at_peak),
        "largest": _largest(found),
        "request": {"model": told(found.model), "run": told(found.run), "device": found.device.name},
    }


def _largest(found: Estimate) -> list[dict[str, Any]]:
    """The LARGEST tensors at the peak; those that one operation makes at one place count as one, whose formula is that
    of the largest."""
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in found.largest:
        key = (line.module, line.operation, line.component)
        size = line.size * line.copies
        if key in lines:
            lines[key]["bytes"] += size
        else:
            names = {"module": line.module, "operation": line.operation, "component": line.component}
            lines[key] = {**names, "formula": line.formula, "bytes": size}
    return sorted(lines.values(), key=lambda line: -line["bytes"])[:LARGEST]


def baseline_to_text(judged: Sequence[Judged]) -> str:
    """The file: JSON with integer bytes, a stable order, no times."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "memplan-baseline",
        "memplan_version": __version__,
        "checks": {
            each.check.name: entry_of(each.estimate, each.upper) for each in judged if each.estimate is not None
        },
    }
    return json.dumps(document, indent=1) + "\n"


def read_baseline(path: str) -> Baseline:
    """A baseline. Raises ConfigurationError for what is none, is damaged, or is of a newer schema."""
    try:
        document: Any = parse_json(read_text(path), path)
    except ConfigurationError as error:
        raise ConfigurationError(error.message, error.hint or "`memplan baseline write` writes a baseline") from None
    if document.get("kind") != "memplan-baseline":
        raise ConfigurationError(f"{path}: is not a baseline of memplan", "`memplan baseline write` writes one")
    version = document.get("schema_version")
    if type(version) is not int or version < 1:
        raise ConfigurationError(f"{path}: schema_version: must be {SCHEMA_VERSION}, not {show(version)}")
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path}: has schema version {version}, newer than {SCHEMA_VERSION}", "a newer memplan reads it"
        )
    checks = document.get("checks")
    if not isinstance(checks, dict):
        raise ConfigurationError(f"{path}: checks: must hold an entry for each check, not {show(checks)}")
    for name, entry in checks.items():
        fault = _fault(entry)
        if fault:
            raise ConfigurationError(f"{path}: checks.{name}: {fault}", "`memplan baseline write` writes it anew")
    return Baseline(path, checks)


def _fault(entry: object) -> str:
    if not isinstance(entry, dict):
        return f"must be a table, not {show(entry)}"
    for key in ("upper_bytes", "allocated_bytes"):
        if not _is_size(entry.get(key)):
            return f"{key}: must be a size in bytes, not {show(entry.get(key))}"
    components = entry.get("at_peak")
    if not isinstance(components, dict) or not all(map(_is_size, components.values())):
        return "at_peak: must hold sizes by component"
    if sum(components.values()) != entry["allocated_bytes"]:
        return "at_peak: its components must add up to allocated_bytes"
    largest = entry.get("largest", [])
    if not isinstance(largest, list) or not all(
        isinstance(line, dict) and _is_size(line.get("bytes")) for line in largest
    ):
        return "largest: must hold tensors with their bytes"
    request = entry.get("request", {})
    if not isinstance(request, dict) or not all(isinstance(request.get(key, {}), dict) for key in ("model", "run")):
        return "request: must hold a model and a run"
    return ""


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def write(path: str, text: str) -> None:
    """Under a temporary name first, so that a baseline that is there is never lost half-way."""
    from memplan.profiles import write_text

    if "\0" in path:
        raise ConfigurationError(f"{path!a}: not a possible path")
    write_text(Path(path), text, "the file")
