"""Scripts that complete words in a shell; bash runs its own here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from memplan.cli import run
from memplan.commands import COMMANDS
from memplan.commands.completing import SHELLS, completed, script
from memplan.config import devices, presets


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "memplan.bash"
    path.write_text(script("bash"), encoding="utf-8")
    return path


def offered(bash: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    asked = 'source "$1"; shift; COMP_WORDS=(memplan "$@"); COMP_CWORD=$#; _memplan; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", asked, "bash", str(bash), *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("es",), ["estimate"]),
        (("",), [*COMMANDS, "--help", "--version"]),
        (("--debug", "pl"), ["plan"]),
        (("estimate", "gpt2-"), ["gpt2-large", "gpt2-medium", "gpt2-xl"]),
        (("estimate", "gpt2", "--device", "h100"), ["h100-80gb", "h100-pcie-80gb", "h100-nvl-94gb"]),
        (("estimate", "gpt2", "--attention", ""), ["sdpa", "naive", "flash", "efficient"]),
        (("estimate", "gpt2", "--precision", "bf16"), ["bf16", "bf16-mixed"]),
        (("estimate", "gpt2", "--sequence-l"), ["--sequence-length"]),
        (("estimate", "gpt2", "--sequence-length", ""), []),
        (("plan", "gpt2", "--objective", "m"), ["micro-batch"]),
        (("check", "--format", "j"), ["json", "junit"]),
        (("check", "--output", ""), []),
        (("diff", "t5-b"), ["t5-base"]),
        (("diff", "a", "t5-b"), ["t5-base"]),
        (("diff", "--format", "j"), ["json"]),
        (("baseline", ""), ["write"]),
        (("schema", "che"), ["check"]),
        (("completion", "z"), ["zsh"]),
        (("presets", "--j"), ["--json"]),
    ],
)
def test_what_bash_offers(bash: Path, words: tuple[str, ...], expected: list[str]) -> None:
    assert offered(bash, *words) == expected


def test_every_preset_and_device_is_offered(bash: Path) -> None:
    assert offered(bash, "estimate", "") == list(presets.names())
    assert offered(bash, "estimate", "gpt2", "--device", "") == [*devices.names(), "local"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_offered(bash: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").replace("/", " ").split()
    told = {word for word in words if word.startswith("--") and word.strip("-")}
    assert {option for option in completed(name).options if option.startswith("--")} <= told
    assert offered(bash, name, "-") == list(completed(name).options)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_sound(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert text == script(shell)
    path = tmp_path / "script"
    path.write_text(text, encoding="utf-8")
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n", str(path)], check=True)
    assert all(name in text for name in (*COMMANDS, *presets.names(), *devices.names()))


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bsh"]) == 2
    assert "must be one of bash, zsh, fish, not 'bsh'; did you mean bash?" in capsys.readouterr().err
