"""What a file of checks may say, and what is said of one that is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.check.budgets import parse_amount
from memplan.check.places import Places, spelled
from memplan.check.settings import find, read
from memplan.commands.checking import FIRST
from memplan.errors import ConfigurationError

DEFAULTS = '[defaults]\ndevice = "h100-80gb"\n'


def refused(path: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    return str(caught.value)


def test_a_check_with_defaults(written: Any) -> None:
    path = written(
        'baseline = "base.json"\n\n[defaults]\ndevice = "h100-80gb"\nlevel = "warn"\nset = { num_layers = 2 }\n\n'
        '[checks.small]\nmodel = "gpt2"\nsequence_length = 128\nbudget = "90 %"\nlevel = "error"\n',
        "sub/memplan.toml",
    )
    found = read(path)
    assert found.path == path
    assert found.baseline == str(Path("sub", "base.json"))
    (check,) = found.checks
    assert (check.name, check.line, check.model, check.device, check.level) == (
        "small",
        9,
        "gpt2",
        "h100-80gb",
        "error",
    )
    assert check.run == {"sequence_length": 128}
    assert check.changes == {"num_layers": 2}
    assert check.budget == parse_amount("90 %")
    assert check.headroom is check.growth is check.growth_warning is None


def test_a_matrix_is_every_combination_in_order(written: Any) -> None:
    path = written(
        '[matrix.m]\nmodels = ["gpt2", "t5-small"]\ndevices = ["t4"]\nsequence_length = [8, 16]\npadding = [true]\n'
        'lora_targets = ["query"]\nbudget = ["1 GiB", "2 GiB"]\n'
    )
    checks = read(path).checks
    assert [check.name for check in checks][:3] == [
        "m: gpt2, t4, sequence_length 8, padding true, budget 1 GiB",
        "m: gpt2, t4, sequence_length 8, padding true, budget 2 GiB",
        "m: gpt2, t4, sequence_length 16, padding true, budget 1 GiB",
    ]
    assert len(checks) == 8
    assert all(check.run["lora_targets"] == ["query"] and check.line == 2 for check in checks)
    assert [check.budget.size for check in checks[:2] if check.budget] == [2**30, 2**31]


def test_in_a_project_file(written: Any) -> None:
    path = written(
        '[project]\nname = "x"\n[tool.memplan]\nschema_version = 1\n[tool.memplan.checks.a]\nmodel = "gpt2"\n'
        'device = "cpu"\n',
        "pyproject.toml",
        head="",
    )
    assert find(None) == path
    (check,) = read(path).checks
    assert (check.name, check.line) == ("a", 5)
    written("[tool.memplan]\nschema_version = 1\nchekcs = 1\n", "pyproject.toml", head="")
    assert "pyproject.toml:3: chekcs: is not a known key" in refused(path)


def test_the_first_file_is_sound(written: Any) -> None:
    assert [check.name for check in read(written(FIRST, head="")).checks] == ["fine-tune"]


def test_which_file_is_read(written: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no memplan\.toml, and no \[tool\.memplan\] in pyproject\.toml"):
        find(None)
    written('[project]\nname = "x"\n', "pyproject.toml", head="")
    with pytest.raises(ConfigurationError, match=r"no memplan\.toml"):
        find(None)
    own = written("[checks]\n")
    assert find(None) == own
    assert find(str(tmp_path)) == str(tmp_path / "memplan.toml")
    assert find("other.toml") == "other.toml"
    written("[tool.memplan]\nschema_version = 1\n", "pyproject.toml", head="")
    with pytest.raises(ConfigurationError, match="both hold checks"):
        find(None)


@pytest.mark.parametrize("project", ["", "memplan = [", "\xff"])
def test_somebody_elses_broken_project_file_does_not_matter(written: Any, tmp_path: Path, project: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(project.encode("latin-1"))
    assert find(written("[checks]\n")) == "memplan.toml"
    assert find(None) == "memplan.toml"


def test_a_broken_project_file_that_is_all_there_is(written: Any) -> None:
    written("[tool.memplan\n", "pyproject.toml", head="")
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml:1:\d+: not valid TOML"):
        find(None)


WRONG = {
    "no schema version": ("[checks.a]\n", "schema_version: is missing: write schema_version = 1"),
    "an older schema": ("schema_version = 0\n", "memplan.toml:1: schema_version: must be 1, not 0"),
    "a schema version in words": ('schema_version = "1"\n', "must be 1, not '1'"),
    "a true schema version": ("schema_version = true\n", "must be 1, not true"),
    "an unknown key": ("schema_version = 1\nbase = 'x'\n", '2: base: is not a known key; did you mean "baseline"?'),
    "nothing to check": ("schema_version = 1\n", "checks: is missing: there is nothing to check"),
    "checks that are no table": ("schema_version = 1\nchecks = 3\n", "2: checks: must be a table under a [checks]"),
    "a check that is no table": ("schema_version = 1\n[checks]\na = 3\n", "3: [checks.a]: must be a table, not 3"),
    "a baseline that is no path": ("schema_version = 1\nbaseline = 3\n", "baseline: must be the path of a file, not 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_explained(written: Any, name: str) -> None:
    text, said = WRONG[name]
    assert said in refused(written(text, head=""))


CHECKS = {
    "sequence_lenght = 8": '4: [checks.a] sequence_lenght: is not a known key; did you mean "sequence_length"?',
    "batch_size = 8": 'did you mean "micro_batch_size"?',
    "models = ['gpt2']": 'models: is not a known key; did you mean "model"?',
    "sequence_length = [8, 16]": "4: [checks.a] sequence_length: must be a single value; a [matrix.NAME] takes lists",
    "budget = 24": "4: [checks.a] budget: must have a unit, not the bare number 24: 24 GiB are not 24 GB",
    'budget = "24 gib"': "did you mean GiB?",
    'budget = "101 %"': "must be at most 100 % of the card",
    'headroom = "200 %"': "must be at most 100 % of the card",
    "level = 'warm'": "[checks.a] level: must be one of error, warn, off, not 'warm'; did you mean \"warn\"?",
    "level = 3": "level: must be one of error, warn, off, not 3",
    "mode = 'trian'": "mode: must be one of train, generate, not 'trian'; did you mean \"train\"?",
    "implementation = 'hf'": "implementation: must be one of reference, transformers",
    "implementation = 3": "implementation: must be one of reference, transformers, not 3",
    "set = 3": "set: must be a table of the model's fields, such as { num_layers = 4 }, not 3",
    "device = 3": "device: must be a name, not 3",
    "device = ' '": "device: must be a name, not ' '",
}


@pytest.mark.parametrize("line", CHECKS)
def test_a_wrong_check_is_explained(written: Any, line: str) -> None:
    assert CHECKS[line] in refused(written(f'[checks.a]\nmodel = "gpt2"\n{line}\n'))


MATRICES = {
    "models = ['gpt2', 3]": "3: [matrix.m] model: must be a name, not 3",
    "models = ['gpt2']\nmodel = 'gpt2'": "models: and model are one and the same: keep one",
    "models = 'gpt2'": "models: must be a list, not 'gpt2'",
    "models = []": "model: must not be an empty list",
    "model = 'gpt2'": "2: [matrix.m]: has no list",
    "models = ['gpt2']\nbudget = ['1 GiB', 3]": "4: [matrix.m] budget: must have a unit",
    "models = ['gpt2']\nlevel = ['warn', 'x']": "level: must be one of error, warn, off, not 'x'",
    "models = ['gpt2', 'gpt2']": "the name 'm: gpt2' comes twice: a list holds the same value twice",
    "modles = ['gpt2']": 'modles: is not a known key; did you mean "models"?',
    f"models = ['gpt2']\nsequence_length = {list(range(1, 1002))}": "1,001 combinations are more than 1,000",
}


@pytest.mark.parametrize("lines", MATRICES)
def test_a_wrong_matrix_is_explained(written: Any, lines: str) -> None:
    text = refused(written(f"[matrix.m]\n{lines}\n[defaults]\ndevice = 't4'\n"))
    assert MATRICES[lines] in text


def test_what_is_missing(written: Any) -> None:
    text = refused(written("[checks.a]\nsequence_length = 8\n"))
    assert 'memplan.toml:2: [checks.a] model: is missing: write model = "gpt2", here or under [defaults]' in text
    assert 'memplan.toml:2: [checks.a] device: is missing: write device = "h100-80gb"' in text


def test_wrong_defaults_are_told_once_and_where_they_are(written: Any) -> None:
    text = refused(written("[defaults]\nbudget = 3\ndevice = 't4'\n[checks.a]\nmodel = 'x'\n[checks.b]\nmodel = 'y'\n"))
    assert text.startswith("memplan.toml:3: [defaults] budget: must have a unit")
    assert "\n" not in text


def test_every_problem_is_told(written: Any) -> None:
    text = refused(written("bse = 1\n[checks.a]\nmodel = 3\nbudget = 1\n[checks.b]\nlevl = 1\n"))
    assert text.startswith("4 problems in the configuration:")
    assert [line.partition(": ")[0].strip() for line in text.splitlines()[1:]] == [
        "memplan.toml:2", "memplan.toml:4", "memplan.toml:5", "memplan.toml:7",
    ]  # fmt: skip


def test_a_name_is_given_once(written: Any) -> None:
    text = refused(written(DEFAULTS + "[checks.'m: gpt2']\nmodel = 'gpt2'\n[matrix.m]\nmodels = ['gpt2']\n"))
    assert "memplan.toml:6: the name 'm: gpt2' is taken by the check in line 4" in text
    assert "not valid TOML" in refused(written(DEFAULTS + "[checks.a]\nmodel = 'x'\n[checks.a]\nmodel = 'x'\n"))


def test_a_name_is_printable(written: Any) -> None:
    text = refused(written(DEFAULTS + '[checks."a\\u001b"]\nmodel = "gpt2"\n'))
    assert "memplan.toml:4" in text and "must be printable text" in text and "\x1b" not in text


def test_a_newer_file_is_for_a_newer_memplan(written: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(written("schema_version = 2\nsomething = 'else'\n", head=""))
    assert caught.value.message == "memplan.toml:1: schema_version: is 2, newer than 1"
    assert caught.value.hint == "a newer memplan reads it"


def test_models_are_meant_from_the_folder_of_the_file(written: Any, tmp_path: Path) -> None:
    written("{}", "sub/own.json", head="")
    written("{}", "elsewhere.json", head="")
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "folder").mkdir()
    models = ["gpt2", "own.json", "elsewhere.json", "org/name", "folder"]
    text = DEFAULTS + "".join(f"[checks.'{model}']\nmodel = '{model}'\n" for model in models)
    found = [check.model for check in read(written(text, "sub/memplan.toml")).checks]
    assert found == ["gpt2", "sub/own.json", "sub/elsewhere.json", "org/name", "sub/folder"]


PLACES = '''\
schema_version = 1 # [not.a.heading]
text = """
[checks.not]
key = 1
"""
[ tool . "mem plan" ]  # see [1]
a.b = 3
"c]" = { d = 4 }
[checks."a.b"]
model = "x" # model = 3
[checks]
later = { model = "y" }
'''


def test_places_of_keys() -> None:
    places = Places(PLACES)
    tool = ("tool", "mem plan")
    expected = {
        ("schema_version",): 1, tool: 6, (*tool, "a"): 7, (*tool, "a", "b"): 7, (*tool, "c]"): 8,
        ("checks", "a.b"): 9, ("checks", "a.b", "model"): 10, ("checks", "later"): 12, ("checks", "later", "model"): 12,
        ("checks", "not"): 11, ("checks",): 11, ("tool",): 6, ("nowhere",): 0,
    }  # fmt: skip
    assert {path: places.line(path) for path in expected} == expected
    assert places.exact(("checks", "not")) == 0


@settings(max_examples=100)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple))
def test_every_path_is_spelled_as_toml_reads_it_and_found_again(path: tuple[str, ...]) -> None:
    if any("\ud800" <= sign <= "\udfff" for key in path for sign in key):
        return
    text = f"\n[{spelled(path)}]\n"
    document: object = tomllib.loads(text)
    for key in path:
        assert isinstance(document, dict)
        document = document[key]
    assert document == {}
    assert Places(text).exact(path) == 2


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("24 GiB")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "schema_version",
            "baseline",
            "defaults",
            "checks",
            "matrix",
            "model",
            "models",
            "device",
            "devices",
            "budget",
            "level",
            "set",
            "mode",
            "implementation",
            "growth",
            "sequence_length",
            "frozen",
            "padding",
        ]
    ),
)


@settings(max_examples=100)
@given(st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES)))))
def test_any_document_is_read_or_refused(document: dict[str, object]) -> None:
    from memplan.check.reader import Reader

    try:
        Reader("memplan.toml", "").read({"schema_version": 1, **document})
    except ConfigurationError as error:
        assert error.message.isprintable() or "\n" in error.message
