"""The GitHub Action and the pre-commit hook: their shape by schemas from elsewhere, their shell lines as they run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from memplan.commands import COMMANDS

ROOT = Path(__file__).parent.parent

HEAD = 'schema_version = 1\n[defaults]\ndevice = "t4"\nmodel = "gpt2"\nsequence_length = 64\nattention = "naive"\n'
GOOD = HEAD + "[checks.good]\n"
BAD = GOOD + '[checks.bad]\nbudget = "1 GiB"\n'
UNKNOWN = BAD + '[checks.unknown]\ndevice = "t5"\n'
MARKER = "<!-- memplan-check -->"


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


ACTION = load("action.yml")
STEPS = {step.get("name", "python"): step for step in ACTION["runs"]["steps"]}


def test_the_action_keeps_to_githubs_schema() -> None:
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/github-actions.json")
    jsonschema.validate(ACTION, json.loads(schema.read_text(encoding="utf-8")))


def test_every_input_is_used_and_none_is_part_of_a_script() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{\{ inputs\.([a-z-]+) \}\}", text)) | set(re.findall(r"if: inputs\.([a-z-]+)", text))
    assert used == set(ACTION["inputs"])
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")
        variables = set(re.findall(r"\$\{?([A-Z_]+)", step.get("run", "")))
        given = set(step.get("env", {})) | {"RUNNER_TEMP", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_REPOSITORY"}
        assert variables <= given


def test_the_hook_runs_a_command_that_there_is() -> None:
    (hook,) = load(".pre-commit-hooks.yaml")
    assert set(hook) <= {
        "id", "name", "description", "entry", "language", "files", "pass_filenames", "require_serial",
    }  # fmt: skip
    program, command = hook["entry"].split()
    assert program == "memplan" and command in COMMANDS
    assert hook["language"] == "python" and hook["pass_filenames"] is False
    matched = [
        name for name in ("memplan.toml", "a/pyproject.toml", "b/config.json", "x.py") if re.search(hook["files"], name)
    ]
    assert matched == ["memplan.toml", "a/pyproject.toml", "b/config.json"]


class Runner:
    """A machine of GitHub's, as far as the steps need one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temp = folder / "temp"
        self.temp.mkdir()
        self.work = folder / "work"
        self.work.mkdir()
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.program("memplan", f'exec "{sys.executable}" -m memplan "$@"')
        self.summary = folder / "summary"
        self.output = folder / "output"

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def step(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a step's lines as GitHub does: bash, ending at the first error."""
        self.output.write_text("", encoding="utf-8")
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")},
            **dict.fromkeys(STEPS[name].get("env", {}), ""),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_REPOSITORY": "owner/name",
            **variables,
        }
        script = self.folder / "script.sh"
        script.write_text(STEPS[name]["run"], encoding="utf-8")
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, timeout=120)

    def check(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.step("Check", **{"MEMPLAN": "memplan", "FILE": ".", "REPORT_ONLY": "false", **variables})

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.mark.parametrize(
    ("text", "variables", "code"),
    [
        (GOOD, {}, "0"),
        (BAD, {}, "1"),
        (BAD, {"REPORT_ONLY": "true"}, "0"),
        (BAD, {"ONLY": "good\n\n"}, "0"),
        (UNKNOWN, {}, "2"),
        (UNKNOWN, {"REPORT_ONLY": "true"}, "2"),
        (UNKNOWN, {"ONLY": "good\nb*"}, "1"),
        ("schema_version = 1\n", {}, "2"),
        (GOOD, {"BASELINE": "nowhere.json"}, "2"),
        (GOOD, {"FILE": "nowhere"}, "2"),
        (GOOD, {"FILE": "--help"}, "2"),
    ],
)
def test_the_step_that_checks_never_fails_and_says_how_it_ended(
    runner: Runner, text: str, variables: dict[str, str], code: str
) -> None:
    (runner.work / "memplan.toml").write_text(text, encoding="utf-8")
    done = runner.check(**variables)
    assert done.returncode == 0, done.stderr
    assert runner.outputs() == {"exit-code": code, "markdown": str(runner.temp / "memplan.md")}
    verdict = runner.step("Verdict", CODE=code)
    assert verdict.returncode == int(code)
    if (runner.temp / "memplan.md").exists():
        assert runner.summary.read_text(encoding="utf-8").startswith(MARKER)
        assert (runner.temp / "memplan.md").read_text(encoding="utf-8").startswith(MARKER)
        assert ("::error file=memplan.toml" in done.stdout) == (code != "0" or "REPORT_ONLY" in variables)
    else:
        assert done.stdout.startswith("::error title=memplan check::error: ")
        assert done.stdout.count("\n") == 1
        assert done.stderr.startswith("error: ")


def test_every_format_has_its_file(runner: Runner) -> None:
    (runner.work / "memplan.toml").write_text(BAD, encoding="utf-8")
    runner.check(JSON="out/a b.json", JUNIT="out/j.xml", SARIF="out/s.sarif")
    assert sorted(path.name for path in (runner.work / "out").iterdir()) == ["a b.json", "j.xml", "s.sarif"]


@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        ({}, "0", ""),
        ({"FAIL": "200 %"}, "0", ""),
        ({"FAIL": "1 %"}, "1", "::error title=memplan diff::A check grew by more than 1 %25 since base.json."),
        ({"FAIL": "1 %", "REPORT_ONLY": "true"}, "0", "::error title=memplan diff"),
        ({"FAIL": "1"}, "2", "::error title=memplan diff::error: --fail: must have a unit"),
        ({"COMPARE": "nowhere"}, "2", "::error title=memplan diff::error: 'nowhere' is neither"),
    ],
)
def test_changes_since_a_baseline(runner: Runner, limits: dict[str, str], code: str, said: str) -> None:
    (runner.work / "memplan.toml").write_text(GOOD, encoding="utf-8")
    baseline = [sys.executable, "-m", "memplan", "baseline", "write", "--out", "base.json"]
    subprocess.run(baseline, cwd=runner.work, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    (runner.work / "memplan.toml").write_text(f"{GOOD}micro_batch_size = 16\n", encoding="utf-8")
    done = runner.check(**{"COMPARE": "base.json", **limits})
    assert runner.outputs()["exit-code"] == code
    assert said in done.stdout
    if code != "2":
        for path in (runner.summary, runner.temp / "memplan.md"):
            text = path.read_text(encoding="utf-8")
            assert text.startswith(MARKER) and "<!-- memplan-diff -->\n## Memory: 1 changed" in text


GH = """\
printf '%s\\n' "$*" >> "$LOG"
case "$*" in
  *--jq*) printf '%s' "$COMMENTS"; exit "$LISTING" ;;
  *) exit "$WRITING" ;;
esac
"""


@pytest.mark.parametrize(
    ("comments", "listing", "writing", "called", "notice"),
    [
        ("", "0", "0", "--method POST repos/owner/name/issues/7/comments", False),
        ("12\n13\n", "0", "0", "--method PATCH repos/owner/name/issues/comments/12", False),
        ("", "0", "1", "--method POST", True),
        ("12", "0", "1", "--method PATCH", True),
        ("", "1", "0", "", True),
    ],
)
def test_one_comment_or_a_notice(
    runner: Runner, comments: str, listing: str, writing: str, called: str, notice: bool
) -> None:
    runner.program("gh", GH)
    markdown = runner.temp / "memplan.md"
    markdown.write_text(MARKER, encoding="utf-8")
    log = runner.folder / "log"
    done = runner.step(
        "Comment",
        GH_TOKEN="t", NUMBER="7", MARKDOWN=str(markdown), LOG=str(log), COMMENTS=comments, LISTING=listing,
        WRITING=writing,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = log.read_text(encoding="utf-8").splitlines()
    assert calls[0].startswith("api --paginate repos/owner/name/issues/7/comments --jq")
    assert len(calls) == (2 if called else 1)
    if called:
        assert called in calls[1] and calls[1].endswith(f"--field body=@{markdown}")
    assert ("::notice title=memplan::" in done.stdout) == notice


def test_nothing_to_say_is_no_comment(runner: Runner) -> None:
    done = runner.step("Comment", NUMBER="7", MARKDOWN=str(runner.temp / "memplan.md"))
    assert (done.returncode, done.stdout) == (0, "")
