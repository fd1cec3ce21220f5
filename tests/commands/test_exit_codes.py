"""What a command line says and how it ends. Commands run in this process unless the process is the subject."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import memplan
import memplan.commands.presets
from memplan.cli import run
from memplan.commands import COMMANDS
from memplan.errors import ConfigurationError, MissingDependencyError

LENGTH = ["--sequence-length", "128", "--attention", "naive"]

BAD_COMMAND_LINES = {
    "unknown command": (["estimat", "gpt2"], "'estimat' is not a command", "did you mean estimate?"),
    "no model": (["estimate"], "Missing argument 'MODEL'", "`memplan estimate --help`"),
    "unknown option": (["estimate", "gpt2", "--sequence-lenght", "8"], "--sequence-lenght", "--sequence-length"),
    "unknown root option": (["--verbose"], "No such option: --verbose", "`memplan --help`"),
    "option without its value": (["estimate", "gpt2", "--set"], "--set", "--help"),
    "one argument too many": (["estimate", "gpt2", "t5-base"], "t5-base", "--help"),
    "unknown preset": (["estimate", "gtp2", *LENGTH], "'gtp2'", 'did you mean "gpt2"?'),
    "no length": (["estimate", "gpt2"], "sequence_length", "--sequence-length"),
    "fraction": (
        ["estimate", "gpt2", "--sequence-length", "1.5"],
        "--sequence-length: must be a whole number, not '1.5'",
        "8",
    ),
    "word": (
        ["estimate", "gpt2", *LENGTH, "--micro-batch-size", "many"],
        "--micro-batch-size: must be a whole number",
        "8",
    ),
    "empty": (
        ["estimate", "gpt2", *LENGTH, "--micro-batch-size", ""],
        "--micro-batch-size: must be a whole number",
        "8",
    ),
    "zero": (
        ["estimate", "gpt2", *LENGTH, "--micro-batch-size", "0"],
        "--micro-batch-size: must be at least 1, not 0",
        "8",
    ),
    "negative": (["estimate", "gpt2", "--sequence-length", "-5"], "--sequence-length: must be at least 1, not -5", "8"),
    "huge": (["estimate", "gpt2", *LENGTH, "--micro-batch-size", "9" * 30], "micro_batch_size", "larger than PyTorch"),
    "beyond Python": (
        ["estimate", "gpt2", *LENGTH, "--micro-batch-size", "9" * 5000],
        "--micro-batch-size",
        "5,000 digits",
    ),
    "other digits": (
        ["estimate", "gpt2", "--sequence-length", "\u0663"],
        "--sequence-length: must be a whole number",
        "8",
    ),
    "momentum": (
        ["estimate", "gpt2", *LENGTH, "--momentum", "much"],
        "--momentum: must be a number, not 'much'",
        "0.9",
    ),
    "nan": (["estimate", "gpt2", *LENGTH, "--optimizer", "sgd", "--momentum", "nan"], "momentum", "from 0"),
    "top": (["estimate", "gpt2", *LENGTH, "--top", "0"], "--top: must be at least 1", "--top 8"),
    "attention": (["estimate", "gpt2", "--sequence-length", "8", "--attention", "flsh"], "attention", '"flash"'),
    "device": (["estimate", "gpt2", *LENGTH, "--device", "h100"], "device: 'h100'", "h100-80gb"),
    "setting": (["estimate", "gpt2", *LENGTH, "--set", "hidden_size"], "hidden_size", "key=value"),
    "too long": (["estimate", "gpt2", "--sequence-length", "1025", "--attention", "naive"], "sequence_length", "1024"),
    "no such file": (["estimate", "missing.toml", *LENGTH], "missing.toml", "no such file"),
    "flash with dropout": (["estimate", "gpt2", "--sequence-length", "8"], "attention", "--attention naive"),
}


@pytest.mark.parametrize("name", BAD_COMMAND_LINES)
def test_bad_command_lines_are_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, wrong, right = BAD_COMMAND_LINES[name]
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert wrong in captured.err
    assert right in captured.err
    assert len(captured.err.splitlines()) <= 2
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_and_version_are_results(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert captured.err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--version"])
    assert capsys.readouterr().out == f"memplan {memplan.__version__}\n"


def test_nothing_asked_for_shows_the_help_and_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage: memplan" in capsys.readouterr().out


def break_presets(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(memplan.commands.presets, "command", broken)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigurationError("hidden_size: is odd", "use 64"), 2, "error: hidden_size: is odd\nhint: use 64\n"),
        (MissingDependencyError("verify needs torch"), 2, "error: verify needs torch\n"),
        (ZeroDivisionError("by zero"), 2, "error: memplan itself failed: ZeroDivisionError: by zero\nhint: --debug"),
        (RecursionError(), 2, "error: memplan itself failed: RecursionError\nhint: --debug"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_presets(monkeypatch, error)
    assert run(["presets"]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(text)
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("arguments", [["--debug", "presets"], ["presets", "--debug"]])
def test_debug_shows_the_traceback(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_presets(monkeypatch, ZeroDivisionError("by zero"))
    assert run(arguments) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_command_returns_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memplan.commands.presets, "command", lambda: 1)
    assert run(["presets"]) == 1


def test_a_reader_that_went_away_is_no_error() -> None:
    process: Any = subprocess.Popen(
        [sys.executable, "-m", "memplan", "presets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_the_process_ends_with_the_code() -> None:
    done = subprocess.run([sys.executable, "-m", "memplan", "estimate", "gtp2"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
