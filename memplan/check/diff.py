"""What changed between two sets of jobs: by check, by component, by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memplan.check.baseline import LARGEST
from memplan.check.budgets import Amount

Entries = Mapping[str, Mapping[str, Any]]
"""Entries of a baseline (baseline.py, entry_of) by the name of a check."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure before and after, in bytes; 0 where it was not there."""

    name: str
    before: int
    after: int

    @property
    def difference(self) -> int:
        """After less before."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Difference:
    """One check: the upper end of its estimate, its components at the peak, and the tensors that grew most."""

    name: str
    kind: Literal["same", "changed", "added", "removed"]
    upper: Change
    components: tuple[Change, ...] = ()  # that changed, largest change first
    grown: tuple[Change, ...] = ()  # tensors, by place and operation; 0 before: not among the largest
    settings: tuple[tuple[str, Any, Any], ...] = ()  # of the request: name, before, after
    level: Literal["ok", "warn", "fail"] = "ok"


def compare(
    before: Entries, after: Entries, warn: Amount | None = None, fail: Amount | None = None
) -> list[Difference]:
    """Every check of either side, those of `after` first, in their order. Growth beyond an amount has a level."""
    found = [_one(name, before.get(name), entry, warn, fail) for name, entry in after.items()]
    found += [_one(name, entry, None, warn, fail) for name, entry in before.items() if name not in after]
    return found


def _one(
    name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, warn: Amount | None, fail: Amount | None
) -> Difference:
    upper = Change(name, _upper(old), _upper(new))
    if old is None or new is None:
        return Difference(name, "added" if old is None else "removed", upper)
    components = _changes(dict(old["at_peak"]), dict(new["at_peak"]))
    grown = tuple(_grown(_tensors(old), _tensors(new)))
    settings = tuple(_settings(old.get("request", {}), new.get("request", {})))
    changed = bool(upper.difference or components or settings)
    return Difference(
        name,
        "changed" if changed else "same",
        upper,
        components,
        grown,
        settings,
        level_of(upper, warn, fail),
    )


def level_of(upper: Change, warn: Amount | None, fail: Amount | None) -> Literal["ok", "warn", "fail"]:
    """How bad a growth is by the two thresholds; a share is one of what was before."""
    if fail is not None and upper.difference > fail.of(upper.before):
        return "fail"
    if warn is not None and upper.difference > warn.of(upper.before):
        return "warn"
    return "ok"


def _upper(entry: Mapping[str, Any] | None) -> int:
    return 0 if entry is None else int(entry["upper_bytes"])


def _tensors(entry: Mapping[str, Any]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for line in entry.get("largest", ()):
        name = f"{line.get('module') or 'the model itself'} ({line.get('operation')})"
        sizes[name] = sizes.get(name, 0) + int(line["bytes"])
    return sizes


def _grown(old: Mapping[str, int], new: Mapping[str, int]) -> Iterator[Change]:
    """Tensors that have certainly grown. An entry keeps the largest alone: one that was not among them was no larger
    than the smallest that was, and as large it has perhaps not changed at all."""
    least = min(old.values(), default=0) if len(old) >= LARGEST else 0
    for change in _changes(old, new):
        if change.difference > 0 and (change.before or change.after > least):
            yield change


def _changes(old: Mapping[str, int], new: Mapping[str, int]) -> tuple[Change, ...]:
    names = [*new, *(name for name in old if name not in new)]
    changes = [Change(name, old.get(name, 0), new.get(name, 0)) for name in names]
    return tuple(
        sorted((change for change in changes if change.difference), key=lambda change: -abs(change.difference))
    )


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Sequence[tuple[str, Any, Any]]:
    """Settings of model, run and device that differ. One that is left out has its default, which nobody wrote."""
    found = []
    for part in ("model", "run"):
        first, second = old.get(part) or {}, new.get(part) or {}
        for name in [*second, *(name for name in first if name not in second)]:
            if first.get(name) != second.get(name) and name != "name":
                found.append((f"{part}.{name}", first.get(name), second.get(name)))
    if old.get("device") != new.get("device"):
        found.append(("device", old.get("device"), new.get("device")))
    return found
