"""The sample repository of examples/ci: every way in which its checks can end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

from memplan import schemas
from memplan.cli import run

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "ci"


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sample repository, the present folder."""
    folder = shutil.copytree(SAMPLE, tmp_path / "sample")
    monkeypatch.chdir(folder)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_a_job_that_does_not_fit(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check"]) == 1
    out = capsys.readouterr().out
    assert "does not fit h100-80gb" in out and "what would fit, each tried:" in out and "sequence_length = " in out
    assert "1 failed, 3 passed of 4 checks" in out


@pytest.mark.parametrize("pattern", ["fine-tune", "ours*", "*l40s"])
def test_jobs_that_fit(sample: Path, pattern: str) -> None:
    assert run(["check", "--only", pattern]) == 0


def test_what_the_readme_says(sample: Path) -> None:
    lines = (sample / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line.partition("#")[0].split() for line in lines if line.startswith("    memplan ")]
    assert len(commands) == 4
    codes = [run([word.strip('"') for word in _joined(command[1:])]) for command in commands]
    assert codes == [1, 0, 0, 0]


def _joined(words: list[str]) -> list[str]:
    """`"5 %"` is one word of a shell."""
    return " ".join(words).replace('"5 %"', "5%").split()


def changed(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "memplan.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def with_baseline(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "memplan-baseline.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")

    return change


UNDECIDED: dict[str, tuple[Callable[[Path], None], str]] = {
    "an unknown key": (changed("precision", "precison"), 'precison: is not a known key; did you mean "precision"?'),
    "a bare number": (changed('"95 %"', "95"), "budget: must have a unit, not the bare number 95"),
    "another unit": (changed('"95 %"', '"60 gib"'), "'gib' is not a unit; did you mean GiB?"),
    "a newer file": (changed("schema_version = 1", "schema_version = 2"), "schema_version: is 2, newer than 1"),
    "no TOML": (changed("[defaults]", "[defaults"), "memplan.toml:4:10: not valid TOML"),
    "a name twice": (changed("[checks.pretrain-8b]", "[checks.fine-tune]"), "not valid TOML"),
    "an unknown card": (changed("l40s", "l40x"), "device: 'l40x' is not known; did you mean"),
    "an unknown preset": (changed("llama-3-8b", "lama-3-8b"), "'lama-3-8b' is neither a preset nor a file"),
    "a model that is missing": (changed("ours.toml", "theirs.toml"), "configs/theirs.toml: no such file"),
    "a setting that is not modelled": (changed('"bf16"', '"bf17"'), "precision: must be one of"),
    "no baseline": (lambda folder: (folder / "memplan-baseline.json").unlink(), "memplan-baseline.json: no such file"),
    "a damaged baseline": (with_baseline(checks={"fine-tune": {}}), "checks.fine-tune: upper_bytes: must be a size"),
    "a newer baseline": (with_baseline(schema_version=2), "has schema version 2, newer than 1"),
    "another file": (with_baseline(kind="other"), "is not a baseline of memplan"),
    "no file": (lambda folder: (folder / "memplan.toml").unlink(), "no memplan.toml, and no [tool.memplan]"),
    "two files": (
        lambda folder: (folder / "pyproject.toml").write_text("[tool.memplan]\n", encoding="utf-8") and None,
        "both hold checks",
    ),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_cannot_be_decided(name: str, sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = UNDECIDED[name]
    change(sample)
    assert run(["check"]) == 2
    captured = capsys.readouterr()
    told = " ".join((captured.out + captured.err).split())
    assert said in told and "Traceback" not in told
    assert run(["check", "--report-only"]) == 2


def test_the_baseline_keeps_to_its_schema() -> None:
    document = json.loads((SAMPLE / "memplan-baseline.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, json.loads(schemas.read("baseline")), jsonschema.Draft202012Validator)


def test_the_file_keeps_to_its_schema() -> None:
    import tomllib

    document = tomllib.loads((SAMPLE / "memplan.toml").read_text(encoding="utf-8"))
    jsonschema.validate(document, json.loads(schemas.read("config")), jsonschema.Draft202012Validator)


def test_the_workflow_keeps_to_githubs_schema_and_gives_the_action_what_it_takes() -> None:
    workflow = yaml.safe_load((SAMPLE / ".github/workflows/memory.yml").read_text(encoding="utf-8"))
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/github-workflows.json")
    document = {("on" if key is True else key): value for key, value in workflow.items()}  # YAML 1.1 reads `on` as true
    jsonschema.validate(document, json.loads(schema.read_text(encoding="utf-8")))
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in workflow["jobs"]["check"]["steps"] if "/memplan@" in step["uses"]]
    assert set(step["with"]) <= set(action["inputs"])
