"""Reads a file of checks: every problem is gathered, with its line, and all are told together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from memplan.check.budgets import parse_amount
from memplan.check.places import Path, Places, spelled
from memplan.check.settings import LEVELS, SCHEMA_VERSION, Check, Settings
from memplan.config.fields import Problem, did_you_mean, lines_of, refuse, show
from memplan.config.load import IMPLEMENTATIONS
from memplan.config.presets import names
from memplan.config.runs import KINDS
from memplan.errors import ConfigurationError

TOP = ("schema_version", "baseline", "defaults", "checks", "matrix")
GROWTHS = ("growth", "growth_warning")
AMOUNTS = ("budget", "headroom", *GROWTHS)
"""A growth may be 0; of the others a share is one of what the card can give, of which there is no more than all."""

PLAIN = ("model", "implementation", "device", "level", "set", *AMOUNTS)
"""Keys of a check that are no settings of its run."""

CHOICES = {"level": LEVELS, "implementation": IMPLEMENTATIONS, "mode": tuple(KINDS)}
LISTS = {"models": "model", "devices": "device"}
"""How a matrix spells the keys it has many of."""

MOST_CHECKS = 1000

KNOWN = (*PLAIN, "mode", *dict.fromkeys(name for kind in KINDS.values() for name in kind.__slots__))
"""Every key that a check may have."""

Table = Mapping[str, Any]


class Reader:
    """A file being read. `inside` is where in the document the checks are: () or ("tool", "memplan")."""

    def __init__(self, path: str, text: str, inside: Path = ()) -> None:
        self.path = path
        self.inside = inside
        self.places = Places(text)
        self.problems: list[str] = []
        self.sound = True  # whether the defaults are

    def read(self, document: Table) -> Settings:
        """The checks of a document. Raises one ConfigurationError for all that is wrong with it."""
        version = document.get("schema_version")
        if type(version) is int and version > SCHEMA_VERSION:  # what else is in it cannot be known
            self.complain((), [("schema_version", f"is {show(version)}, newer than {SCHEMA_VERSION}")])
            raise ConfigurationError(self.problems[0], "a newer memplan reads it")
        if version is None:
            self.complain((), [("schema_version", f"is missing: write schema_version = {SCHEMA_VERSION}")])
        elif type(version) is not int or version != SCHEMA_VERSION:
            self.complain((), [("schema_version", f"must be {SCHEMA_VERSION}, not {show(version)}")])
        self.complain((), [(str(key), _unknown(str(key), TOP)) for key in document if key not in TOP])
        baseline = document.get("baseline")
        if baseline is not None and (not isinstance(baseline, str) or not baseline.strip()):
            self.complain((), [("baseline", f"must be the path of a file, not {show(baseline)}")])
        defaults = self.defaults(document)
        checks: list[Check] = []
        for name, table in self.table(document, "checks").items():
            checks += self.one(str(name), ("checks", str(name)), table, defaults)
        for name, table in self.table(document, "matrix").items():
            checks += self.many(str(name), ("matrix", str(name)), table, defaults)
        self.refuse_duplicates(checks)
        if not checks and not self.problems:
            self.complain((), [("checks", "is missing: there is nothing to check, add a [checks.NAME]")])
        if self.problems:
            refuse(list(dict.fromkeys(self.problems)))
        beside = os.path.join(os.path.dirname(self.path), baseline) if baseline is not None else None
        return Settings(self.path, tuple(checks), beside)

    def refuse_duplicates(self, checks: list[Check]) -> None:
        seen: dict[str, Check] = {}
        for check in checks:
            first = seen.setdefault(check.name, check)
            if first is check:
                continue
            if first.line == check.line:
                text = f"the name {check.name!a} comes twice: a list holds the same value twice"
            else:
                text = f"the name {check.name!a} is taken by the check in line {first.line}"
            self.problems.append(f"{self.path}:{check.line}: {text}")

    def table(self, document: Table, key: str) -> Table:
        table = document.get(key, {})
        if isinstance(table, dict):
            return table
        heading = spelled((*self.inside, key))
        self.complain((), [(key, f"must be a table under a [{heading}] heading, not {show(table)}")])
        return {}

    def defaults(self, document: Table) -> Table:
        table = self.table(document, "defaults")
        problems = [*_unknown_keys(table, KNOWN), *_lists(table), *_value_problems(table)]
        self.complain(("defaults",), problems)
        self.sound = not problems
        return table if self.sound else {}

    def one(self, name: str, where: Path, table: object, defaults: Table) -> Iterator[Check]:
        if not isinstance(table, dict):
            self.complain(where, [("", f"must be a table, not {show(table)}")])
            return
        problems = [*_unknown_keys(table, KNOWN), *_lists(table), *_value_problems(table)]
        if problems:
            self.complain(where, problems)
        else:
            yield from self.build(name, where, {**defaults, **table})

    def many(self, name: str, where: Path, table: object, defaults: Table) -> Iterator[Check]:
        if not isinstance(table, dict):
            self.complain(where, [("", f"must be a table, not {show(table)}")])
            return
        values: dict[str, Any] = {LISTS.get(str(key), str(key)): value for key, value in table.items()}
        axes = {key: value for key, value in values.items() if isinstance(value, list) and not _is_names(key)}
        problems = [*_unknown_keys(table, (*KNOWN, *LISTS)), *_axis_problems(table, axes)]
        problems += _value_problems({key: value for key, value in values.items() if key not in axes})
        for key, options in axes.items():
            for option in options:
                problems += _value_problems({key: option})
        if problems:
            self.complain(where, problems)
            return
        for chosen in product(*axes.values()):
            picked = dict(zip(axes, chosen, strict=True))
            words = [
                str(value) if key in ("model", "device") else f"{key} {_plain(value)}" for key, value in picked.items()
            ]
            yield from self.build(f"{name}: {', '.join(words)}", where, {**defaults, **values, **picked})

    def build(self, name: str, where: Path, values: Table) -> Iterator[Check]:
        """A check of its keys, defaults among them, which are sound each by itself."""
        problems: list[Problem] = []
        if not name.isprintable() or not name.strip():
            problems.append(("", f"the name {show(name)} must be printable text"))
        for key, example in (("model", "gpt2"), ("device", "h100-80gb")):
            if key not in values and self.sound:  # else it may stand among the defaults
                problems.append((key, f'is missing: write {key} = "{example}", here or under [defaults]'))
        if problems or not self.sound:
            self.complain(where, problems)
            return
        amounts: dict[str, Any] = {
            key: parse_amount(values[key], zero=key in GROWTHS) for key in AMOUNTS if key in values
        }
        yield Check(
            name=name,
            line=self.line(where),
            model=self.beside(values["model"]),
            device=values["device"],
            implementation=values.get("implementation"),
            level=values.get("level", "error"),
            changes=values.get("set", {}),
            run={key: value for key, value in values.items() if key not in PLAIN},
            **amounts,
        )

    def beside(self, model: str) -> str:
        """A path is meant from the folder of the file. A preset's name is no path; nor is org/name of the hub."""
        folder = os.path.dirname(self.path)
        if model in names() or not folder:
            return model
        path = os.path.join(folder, model)
        plain = not model.lower().endswith((".json", ".toml")) and not model.startswith(".")
        # what lies below the present folder by that name is never meant
        return model if plain and not os.path.exists(path) and not os.path.exists(model) else path

    def line(self, where: Path, key: str = "") -> int:
        """The line of a key of a table, else of the table."""
        return self.places.line((*self.inside, *where, *((key,) if key else ())))

    def complain(self, where: Path, problems: list[Problem]) -> None:
        self.problems += lines_of(problems, self.locate(where))

    def locate(self, where: Path) -> Callable[[str], str]:
        def place(key: str) -> str:
            # a matrix may spell a key in its own way
            other = next((long for long, short in LISTS.items() if short == key), "")
            own = self.places.exact((*self.inside, *where, other)) if other else 0
            line = own or self.line(where, key)
            inside = f"[{spelled(where)}]" + (" " if key else "") if where else ""
            return f"{self.path}:{line}: {inside}" if line else f"{self.path}: {inside}"

        return place


def _unknown(key: str, known: tuple[str, ...]) -> str:
    return "is not a known key" + did_you_mean(key, known)


def _unknown_keys(table: Table, known: tuple[str, ...]) -> list[Problem]:
    return [(str(key), _unknown(str(key), known)) for key in table if key not in known]


def _lists(table: Table) -> list[Problem]:
    return [
        (str(key), "must be a single value; a [matrix.NAME] takes lists")
        for key, value in table.items()
        if isinstance(value, list) and key in KNOWN and not _is_names(str(key))
    ]


def _axis_problems(table: Table, axes: Mapping[str, list[Any]]) -> Iterator[Problem]:
    for long, short in LISTS.items():
        if long in table and short in table:
            yield long, f"and {short} are one and the same: keep one"
        elif long in table and not isinstance(table[long], list):
            yield long, f"must be a list, not {show(table[long])}"
    count = 1
    for key, options in axes.items():
        count *= len(options)
        if not options:
            yield key, "must not be an empty list"
    if count > MOST_CHECKS:
        yield "", f"{count:,} combinations are more than {MOST_CHECKS:,}"
    if not axes:
        yield "", "has no list: write models = [...], devices = [...] or a list of lengths"


def _value_problems(values: Table) -> list[Problem]:
    """What is wrong with values by themselves, of keys that are no settings of a run: those wait for their model."""
    problems: list[Problem] = []
    for key, value in values.items():
        if key in ("model", "device"):
            if not isinstance(value, str) or not value.strip():
                problems.append((key, f"must be a name, not {show(value)}"))
        elif key in CHOICES:
            if value not in CHOICES[key]:
                close = did_you_mean(value, CHOICES[key]) if isinstance(value, str) else ""
                problems.append((key, f"must be one of {', '.join(CHOICES[key])}, not {show(value)}{close}"))
        elif key == "set":
            if not isinstance(value, dict):
                example = "{ num_layers = 4 }"
                problems.append((key, f"must be a table of the model's fields, such as {example}, not {show(value)}"))
        elif key in AMOUNTS and not isinstance(value, list):
            problems += _amount_problems(key, value)
    return problems


def _amount_problems(key: str, value: object) -> Iterator[Problem]:
    try:
        amount = parse_amount(value, zero=key in GROWTHS)
    except ConfigurationError as error:
        yield key, error.message + (f" ({error.hint})" if error.hint else "")
        return
    if key not in GROWTHS and not amount.possible:
        yield key, f"must be at most 100 % of the card, not {show(value)}"


def _is_names(key: str) -> bool:
    """Whether a setting is a list by itself."""
    return any(
        kind.__dataclass_fields__[key].type == "Names" for kind in KINDS.values() if key in kind.__dataclass_fields__
    )


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
