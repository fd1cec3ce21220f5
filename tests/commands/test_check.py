"""`memplan check`, `baseline` and `diff`: what they write where, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.report.check import FORMATS

HEAD = """\
schema_version = 1
[defaults]
device = "t4"
model = "gpt2"
sequence_length = 64
attention = "naive"
"""
GOOD = "[checks.good]\n"
BAD = '[checks.bad]\nbudget = "1 GiB"\n'
WARNED = '[checks.warned]\nbudget = "1 GiB"\nlevel = "warn"\n'
UNKNOWN = '[checks.unknown]\ndevice = "t5"\n'
OFF = '[checks.off]\nlevel = "off"\nmodel = "nowhere"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def written(folder: Path, *checks: str, head: str = HEAD) -> None:
    (folder / "memplan.toml").write_text(head + "".join(checks), encoding="utf-8")


OUTCOMES: dict[str, tuple[list[str], int]] = {
    "good": ([GOOD, OFF], 0),
    "warned": ([GOOD, WARNED], 0),
    "bad": ([GOOD, BAD], 1),
    "unknown": ([GOOD, UNKNOWN], 2),
    "both": ([BAD, UNKNOWN], 2),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", OUTCOMES)
def test_the_format_never_changes_the_exit_code(name: str, form: str, folder: Path) -> None:
    checks, code = OUTCOMES[name]
    written(folder, *checks)
    assert run(["check", "--format", form]) == code
    assert run(["check", "--format", form, "--report-only"]) == (2 if code == 2 else 0)
    assert run(["check", "--output", f"{form}=out"]) == code


def test_patterns_choose_checks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder, GOOD, BAD, UNKNOWN)
    assert run(["check", "--only", "g*"]) == 0
    assert "1 passed of 1 check" in capsys.readouterr().out
    assert run(["check", "--only", "good", "--only", "b?d"]) == 1
    assert run(["check", "--only", "goood"]) == 2
    assert "did you mean 'good'?" in capsys.readouterr().err


def test_options_win_over_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder, GOOD, BAD)
    assert run(["check", "--budget", "50 %"]) == 0
    assert run(["check", "--device", "h100-80gb", "--only", "good", "--format", "json"]) == 0
    text = capsys.readouterr().out
    assert '"device": "h100-80gb"' in text
    for option, value, said in (
        ("--budget", "5", "--budget: must have a unit"),
        ("--budget", "120 %", "--budget: must be at most 100 %"),
        ("--baseline", "nowhere.json", "nowhere.json: no such file"),
    ):
        assert run(["check", option, value]) == 2
        assert said in capsys.readouterr().err


def test_several_formats_in_one_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder, GOOD, BAD)
    outputs = [f"--output={form}=deep/out/{form}" for form in FORMATS]
    assert run(["check", *outputs]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("check ") and captured.err == ""
    assert sorted(path.name for path in (folder / "deep" / "out").iterdir()) == sorted(FORMATS)
    assert json.loads((folder / "deep/out/json").read_text(encoding="utf-8"))["counts"]["failed"] == 1
    assert ElementTree.parse(folder / "deep/out/junit").getroot().get("failures") == "1"


@pytest.mark.parametrize(
    ("arguments", "printed", "files"),
    [
        ([], "text", {}),
        (["--format", "json"], "json", {}),
        (["--format", "json", "--output", "x.any"], "", {"x.any": "json"}),
        (["--format", "json", "--output", "junit=x.any"], "json", {"x.any": "junit"}),
        (["--output", "x.json", "--output", "y.md"], "text", {"x.json": "json", "y.md": "markdown"}),
        (["--output", "x.sarif"], "text", {"x.sarif": "sarif"}),
        (["--output", "x.xml"], "text", {"x.xml": "junit"}),
    ],
)
def test_where_formats_go(
    arguments: list[str], printed: str, files: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beginnings = {
        "": "", "text": "check  ", "json": '{\n  "schema_version"', "markdown": "<!-- memplan-check", "junit": "<?xml",
        "sarif": '{\n  "$schema"',
    }  # fmt: skip
    written(folder, GOOD)
    assert run(["check", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith(beginnings[printed]) and bool(out) == bool(printed)
    for name, form in files.items():
        assert (folder / name).read_text(encoding="utf-8").startswith(beginnings[form])


WRONG_LINES = {
    "unknown format": (["--format", "jsn"], "--format: must be one of", "did you mean json?"),
    "two to standard output": (["--format", "json", "--format", "text"], "cannot share standard output", "--output"),
    "a file of no format": (["--output", "x.any"], "which format is 'x.any'?", "junit=memory.xml"),
    "no file": (["--output", "json="], "names no file", "junit=memory.xml"),
    "unknown format of a file": (["--output", "yaml=x"], "must be one of", "yaml"),
    "a file twice": (["--output", "json=x", "--output", "text=x"], "'x' is written twice", "its own file"),
    "a folder": (["--output", "json=."], "cannot write the file .", ""),
    "no file of checks": (["nowhere.toml"], "nowhere.toml: no such file", ""),
    "a folder without": (["empty"], "no memplan.toml, and no [tool.memplan] in pyproject.toml in empty", "--init"),
}


@pytest.mark.parametrize("name", WRONG_LINES)
def test_wrong_command_lines(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, wrong, right = WRONG_LINES[name]
    written(folder, GOOD)
    (folder / "empty").mkdir()
    assert run(["check", *arguments]) == 2
    err = capsys.readouterr().err
    assert wrong in err and right in err and "Traceback" not in err


WRONG_FILES = {
    "no TOML": b"[checks",
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "binary": b"schema_version = 1\0",
    "deep": b"a = " + b"[" * 5000,
    "a number of thousands of digits": b"schema_version = " + b"9" * 5000,
    "another schema": b"schema_version = 2\n",
    "no checks": b"schema_version = 1\n",
    "a twice": b"schema_version = 1\n[checks.a]\n[checks.a]\n",
}


@pytest.mark.parametrize("name", WRONG_FILES)
@pytest.mark.parametrize(
    "command", [["check"], ["baseline", "write", "--out", "b.json"], ["diff", "memplan.toml", "gpt2"]]
)
def test_wrong_files_are_undecided(
    name: str, command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "memplan.toml").write_bytes(WRONG_FILES[name])
    assert run(command) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and "Traceback" not in captured.err


def test_a_first_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--init"]) == 0
    assert run(["check"]) == 0
    assert run(["check", "--init"]) == 2
    assert "memplan.toml is there already" in capsys.readouterr().err


# ---- GitHub Actions


def test_the_step_summary_is_appended_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, GOOD, BAD)
    summary = folder / "summary"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run(["check", "--format", "github"]) == 1
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- memplan-check -->\n## Memory: 1 failed, 1 passed of 2 checks")


@pytest.mark.parametrize(("taken", "more"), [(2**20 - 3_000, True), (2**20 - 100, False), (2**21, False)])
def test_a_step_summary_has_an_end(
    taken: int, more: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(folder, *(BAD.replace("bad", f"bad{number}") for number in range(3)))
    summary = folder / "summary"
    summary.write_bytes(b"x" * taken)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run(["check"]) == 1
    assert (summary.stat().st_size > taken) == more
    assert not more or summary.stat().st_size <= 2**20
    assert ("the step summary is full" in capsys.readouterr().err) == (not more)


def test_a_step_summary_that_cannot_be_written_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(folder, GOOD)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder))
    assert run(["check"]) == 0
    assert capsys.readouterr().err.startswith("warning: cannot write the step summary")


def test_annotations_point_into_what_was_checked_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "jobs").mkdir()
    written(folder / "jobs", BAD)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(folder))
    monkeypatch.chdir(folder / "jobs")
    assert run(["check", "--format", "github"]) == 1
    assert capsys.readouterr().out.startswith("::error file=jobs/memplan.toml,line=7,title=bad%3A")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(folder / "elsewhere"))
    assert run(["check", "--format", "github"]) == 1
    assert capsys.readouterr().out.startswith("::error file=memplan.toml,line=7,")


# ---- baselines and differences


def test_growth_from_a_written_baseline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = HEAD.replace("\n", '\nbaseline = "base.json"\n', 1)
    written(folder, GOOD, 'growth = "1 %"\n', head=head)
    assert run(["check"]) == 2
    assert "base.json: no such file\nhint: `memplan baseline write`" in capsys.readouterr().err
    assert run(["baseline", "write"]) == 0
    assert capsys.readouterr().out == "wrote base.json: 1 check\n"
    first = (folder / "base.json").read_bytes()
    assert run(["baseline", "write"]) == 0
    assert (folder / "base.json").read_bytes() == first
    assert run(["check"]) == 0
    written(folder, GOOD, 'growth = "1 %"\nmicro_batch_size = 32\n', "[checks.new]\n", head=head)
    assert run(["check"]) == 1
    assert "grew by more than 1 %" in capsys.readouterr().out
    assert run(["diff", "base.json", "."]) == 0
    out = capsys.readouterr().out
    assert "run.micro_batch_size: 1 -> 32" in out and "1 changed, 1 added" in out
    assert run(["diff", "base.json", ".", "--fail", "1 %"]) == 1
    assert run(["diff", "base.json", ".", "--warn", "1 %", "--format", "json", "--output", "diff.json"]) == 0
    assert json.loads((folder / "diff.json").read_text(encoding="utf-8"))["differences"][0]["level"] == "warn"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["baseline", "write"], "memplan.toml names no baseline"),
        (["baseline", "read"], "'read' is not an action"),
        (["diff", ".", ".", "--fail", "5"], "--fail: must have a unit"),
        (["diff", ".", ".", "--format", "yaml"], "--format: must be one of text, json, markdown"),
        (["diff", ".", "nowhere"], "'nowhere' is neither a file nor a preset"),
        (["diff", "gpt2", "gpt2"], "sequence_length"),
    ],
)
def test_wrong_baselines_and_differences(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(folder, GOOD)
    assert run(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_baseline_of_what_cannot_be_decided_is_not_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder, GOOD, UNKNOWN)
    assert run(["baseline", "write", "--out", "base.json"]) == 2
    assert "the check 'unknown' cannot be decided" in capsys.readouterr().err
    assert not (folder / "base.json").exists()


def test_two_models_beside_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sequence-length", "64", "--attention", "naive"]
    assert run(["diff", "gpt2", "gpt2-medium", *options]) == 0
    out = capsys.readouterr().out
    assert "model.num_layers: 12 -> 24" in out and "the job" in out


# ---- a process


CHILD = """
import sys
from memplan.cli import run
code = run(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("form", FORMATS)
def test_a_check_imports_nothing_heavy(form: str, folder: Path) -> None:
    written(folder, BAD)
    child = subprocess.run([sys.executable, "-c", CHILD, "check", "--format", form], capture_output=True, text=True)
    assert child.returncode == 1
    assert not set(child.stderr.split()) & {"torch", "numpy", "pydantic", "jinja2", "pynvml", "rich"}


def test_twenty_checks_are_soon_done(folder: Path) -> None:
    """35 times a bare Python on a quiet machine (benchmarks/check.py); here processor time, both in one run."""
    matrix = "[matrix.m]\nmodels = ['llama-3.2-1b', 'gpt2']\ndevices = ['h100-80gb', 'a100-80gb']\n"
    written(folder, matrix + "sequence_length = [128, 256, 512, 768, 1024]\nattention = 'naive'\n")

    def spent(*arguments: str) -> tuple[float, str]:
        before = os.times()
        child = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        after = os.times()
        spans = after.children_user - before.children_user, after.children_system - before.children_system
        return sum(spans), child.stdout + child.stderr

    bare = min(spent("-c", "pass")[0] for _ in range(5))
    taken, said = spent("-m", "memplan", "check")
    assert said.rstrip().endswith("20 passed of 20 checks"), said
    assert taken < 150 * max(bare, 0.01), f"{taken:.2f} s of a core against {bare:.3f} s"


def test_the_process_ends_with_the_code(folder: Path) -> None:
    written(folder, BAD)
    done: Any = subprocess.run([sys.executable, "-m", "memplan", "check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    done = subprocess.run([sys.executable, "-m", "memplan", "check", "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
