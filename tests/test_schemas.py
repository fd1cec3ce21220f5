"""The packaged JSON Schemas: sound, closed, and in step with what is read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan import schemas
from memplan.check.budgets import UNITS
from memplan.check.reader import AMOUNTS, CHOICES, KNOWN, LISTS, PLAIN, TOP, Reader
from memplan.cli import run
from memplan.commands.checking import FIRST
from memplan.config.fields import choices_of
from memplan.config.runs import KINDS
from memplan.errors import ConfigurationError
from memplan.estimate import COMPONENTS

FOLDER = Path(schemas.__file__).parent

Schema = dict[str, Any]


def load(name: str) -> Schema:
    schema: Schema = json.loads(schemas.read(name))
    return schema


def inside(value: Any) -> list[Schema]:
    """Every object within a schema, itself among them."""
    if isinstance(value, list):
        return [found for item in value for found in inside(item)]
    if not isinstance(value, dict):
        return []
    return [value, *(found for item in value.values() for found in inside(item))]


# ---- the file of checks: its schema is made here from what the reader knows


def of_field(kind: type, name: str) -> Schema:
    field = kind.__dataclass_fields__[name]  # type: ignore[attr-defined]
    if field.type == "int":
        return {"type": "integer", "minimum": 0 if field.default == 0 else 1}
    if field.type == "float":
        return {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
    if field.type == "Number":
        return {"type": "number", "minimum": 0}
    if field.type == "bool":
        return {"type": "boolean"}
    if field.type == "Names":
        return {"type": "array", "items": {"type": "string"}}
    return {"enum": list(choices_of(kind, name))}


def of_setting(name: str) -> Schema:
    """A setting of any kind of run; where kinds differ, what either takes."""
    found = [of_field(kind, name) for kind in KINDS.values() if name in kind.__slots__]
    if all("enum" in each for each in found):
        return {"enum": list(dict.fromkeys(word for each in found for word in each["enum"]))}
    (one,) = [each for number, each in enumerate(found) if each not in found[:number]]
    return one


def config_schema() -> Schema:
    units = "|".join([*UNITS, "%"])
    amount = {
        "type": "string",
        "pattern": rf"^\s*[0-9]+([._][0-9]+)*\s*({units})\s*$",
        "description": "A size with its unit, or a share: 24 GiB, 90 %.",
    }
    plain: Schema = {
        "model": {
            "type": "string",
            "description": "A preset, or the path of a config.json, its folder, or a TOML file.",
        },
        "implementation": {"enum": list(CHOICES["implementation"])},
        "device": {"type": "string", "description": "A card of `memplan devices`, or cpu."},
        "level": {"enum": list(CHOICES["level"])},
        "set": {"type": "object", "description": "Fields of the model that are changed."},
        **{name: {"$ref": "#/$defs/amount"} for name in AMOUNTS},
    }
    assert set(plain) == set(PLAIN)
    every = {**plain, "mode": {"enum": list(CHOICES["mode"])}}
    every |= {name: of_setting(name) for name in KNOWN if name not in every}
    assert list(every) == list(KNOWN)
    lists = {long: {"type": "array", "items": plain[short], "minItems": 1} for long, short in LISTS.items()}
    many = {
        name: each
        if each.get("type") == "array"
        else {"anyOf": [each, {"type": "array", "items": each, "minItems": 1}]}
        for name, each in every.items()
    }
    table = {"type": "object", "additionalProperties": False}
    body = {
        "schema_version": {"const": 1},
        "baseline": {"type": "string", "description": "The path of a baseline, from the folder of this file."},
        "defaults": {"$ref": "#/$defs/check", "description": "For every check that does not say otherwise."},
        "checks": {"type": "object", "additionalProperties": {"$ref": "#/$defs/check"}},
        "matrix": {
            "type": "object",
            "additionalProperties": {"$ref": "#/$defs/matrix"},
            "description": "A check for every combination of what is a list.",
        },
    }
    assert list(body) == list(TOP)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:memplan:schema:config",
        "title": "memplan.toml, or [tool.memplan] of pyproject.toml, version 1",
        "type": "object",
        "required": ["schema_version"],
        "properties": body,
        "additionalProperties": False,
        "$defs": {
            "amount": amount,
            "check": {**table, "properties": every},
            "matrix": {**table, "properties": {**many, **lists}},
        },
    }


def test_the_schema_of_the_file_of_checks_is_what_the_reader_knows(request: pytest.FixtureRequest) -> None:
    text = json.dumps(config_schema(), indent=2) + "\n"
    path = FOLDER / "config.json"
    if request.config.getoption("--accept-golden"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


# ---- all of them


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_sound_and_closed(name: str) -> None:
    schema = load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:memplan:schema:{name}"
    for part in inside(schema):
        if "properties" in part and part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert set(part.get("required", ())) <= set(part["properties"])
    text = json.dumps(schema)
    assert all(f'"#/$defs/{each}"' in text for each in schema.get("$defs", {}))


@pytest.mark.parametrize("name", schemas.names())
def test_components_are_those_of_an_estimate(name: str) -> None:
    components = load(name).get("$defs", {}).get("components")
    assert components is None or list(components["properties"]) == list(COMPONENTS)
    for part in inside(load(name)):
        if "parameters" in part.get("enum", ()):
            assert part["enum"] == list(COMPONENTS)


def test_a_name_that_none_has() -> None:
    with pytest.raises(ConfigurationError, match=r"'chekc' is not known; did you mean check\?"):
        schemas.read("chekc")


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert capsys.readouterr().out.split() == list(schemas.names())
    assert run(["schema", "check"]) == 0
    assert capsys.readouterr().out == schemas.read("check")
    assert run(["schema", "../presets"]) == 2


# ---- what is real keeps to them

ESTIMATE = ["estimate", "gpt2", "--sequence-length", "64", "--attention", "naive"]
LIBRARY = (
    '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 16, "n_head": 2, '
    '"vocab_size": 50, "n_positions": 64}'
)

REAL = {
    "oom": [["oom", str(Path(__file__).parent / "oom/messages/capacity.txt"), "--json"]],
    "profile": [
        ["report", "gpt2", "--sequence-length", "64", "--attention", "naive", "--json"],
        ["report", "gpt2", "--sequence-length", "64", "--precision", "bf16", "--device", "h100-80gb", "--json"],
    ],
    "estimate": [
        [*ESTIMATE, "--json"],
        [*ESTIMATE, "--json", "--explain"],
        [*ESTIMATE, "--json", "--device", "h100-80gb"],
        ["estimate", "t5-small", "--source-length", "8", "--target-length", "4", "--attention", "naive", "--json"],
        ["estimate", "config.json", "--sequence-length", "64", "--attention", "eager", "--json"],
    ],
    "plan": [
        ["plan", *ESTIMATE[1:], "--device", "t4", "--objective", objective, "--fix", "optimizer", "--json"]
        for objective in ("fit", "card")
    ],
    "profiles": [["profiles", "--json", "records"]],
    "grading": [["verify", "--recorded", "records", "--json"]],
    "devices": [["devices", "--json"]],
    "presets": [["presets", "--json"]],
    "check": [["check", "--format", "json"]],
    "diff": [
        ["diff", "gpt2", "bert-base", *ESTIMATE[2:], "--format", "json"],
        ["diff", "memplan.toml", "memplan.toml", "--format", "json"],
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the command lines above name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(LIBRARY, encoding="utf-8")
    (tmp_path / "memplan.toml").write_text(FIRST, encoding="utf-8")
    recorded = sorted((Path(__file__).parent.parent / "profiles").glob("*/*.json"))
    for record in recorded[:: max(len(recorded) // 8, 1)]:
        target = tmp_path / "records" / record.parent.name / record.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(record.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("name", "arguments"), [(name, line) for name, lines in REAL.items() for line in lines])
def test_what_a_command_prints_keeps_to_its_schema(
    name: str, arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) in (0, 1)
    captured = capsys.readouterr()
    jsonschema.validate(json.loads(captured.out), load(name), jsonschema.Draft202012Validator)


def test_a_written_baseline_keeps_to_its_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["baseline", "write", "--out", "base.json"]) == 0
    jsonschema.validate(json.loads((folder / "base.json").read_text(encoding="utf-8")), load("baseline"))


NUMBERS = [1, 0, -1, 1.5, 0.25, True]
TEXTS = ["gpt2", "24 GiB", "90 %", "24", "warn", "train", "naive", "bf16", ""]
VALUES = st.sampled_from([*NUMBERS, *TEXTS, [], ["a"], [8, 16], {}, {"a": 1}])
TABLES = st.dictionaries(st.sampled_from([*KNOWN, *LISTS, "other"]), VALUES, max_size=4)
DOCUMENTS = st.fixed_dictionaries(
    {"schema_version": st.sampled_from([1, 1, 1, 2, "1"])},
    optional={
        "defaults": TABLES,
        "checks": st.dictionaries(st.sampled_from("ab"), TABLES, max_size=2),
        "matrix": st.dictionaries(st.sampled_from("ab"), TABLES, max_size=1),
        "baseline": VALUES,
        "other": VALUES,
    },
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS)
def test_what_the_schema_of_the_file_refuses_is_refused_by_the_reader_or_the_check(document: dict[str, Any]) -> None:
    """Unless it is a setting of a run, which the reader leaves to its check."""
    validator = jsonschema.Draft202012Validator(load("config"))
    errors = [
        error
        for error in validator.iter_errors(document)
        if not (set(map(str, error.absolute_path)) & (set(KNOWN) - set(PLAIN) - {"mode"}))
    ]
    if not errors:
        return
    with pytest.raises(ConfigurationError):
        Reader("memplan.toml", "").read(document)
