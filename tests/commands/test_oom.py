"""`memplan oom`: its reports, its JSON, what it refuses, and how it ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from tests.conftest import Golden, Keeps
from tests.oom.failed import Failed, short
from tests.oom.real import FOLDER, REAL

GPT2 = ["--model", "gpt2", "--micro-batch-size", "24", "--sequence-length", "1024", "--set", "num_layers=2"]
TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 88, in <module>
    loss.backward()
  File "/env/torch/_tensor.py", line 626, in backward
    torch.autograd.backward(
"""

Show = Callable[..., str]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """What the command prints, which ends well."""

    def printed(*arguments: str) -> str:
        assert run(["oom", *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return printed


@pytest.fixture(scope="module")
def failed() -> Failed:
    """24 sequences in two layers of GPT-2, on an A100 that two others have filled half."""
    found = short("a100-40gb", 0.85, micro_batch_size=24, sequence_length=1024)
    rest = found.context - 500 * 2**20
    return found._replace(context=500 * 2**20, others=(2**32, rest - 2**32))


@pytest.fixture
def log(failed: Failed, tmp_path: Path) -> str:
    path = tmp_path / "train.log"
    path.write_text(f"step 1 loss 10.9\n{TRACEBACK}{failed.message()}\n", encoding="utf-8")
    return str(path)


def narrow(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    assert text.isascii()


@pytest.mark.parametrize("name", REAL)
def test_every_real_message_is_explained_in_80_columns(name: str, show: Show) -> None:
    text = show(str(FOLDER / f"{name}.txt"))
    narrow(text)
    for value in REAL[name].fields.values():
        if isinstance(value, str) and value[0].isdigit():
            assert value in text


@pytest.mark.parametrize("name", REAL)
def test_the_json_of_every_real_message_keeps_to_its_schema(name: str, show: Show, keeps_to_schema: Keeps) -> None:
    document = json.loads(show(str(FOLDER / f"{name}.txt"), "--json"))
    keeps_to_schema("oom", document)
    assert document["found"] is None


@pytest.mark.parametrize(
    "name", ["capacity_three_processes", "pools_engine", "mps_gib", "cublas", "cpu_windows", "ranks"]
)
def test_a_message_alone(name: str, show: Show, golden: Golden) -> None:
    golden(f"oom_message_{name}.txt", show(str(FOLDER / f"{name}.txt")))


def test_the_tensor_what_was_alive_and_what_would_fit(show: Show, log: str, golden: Golden) -> None:
    text = show(log, *GPT2)
    narrow(text)
    golden("oom_found_80.txt", text)


def test_a_run_that_cannot_have_asked_for_it(show: Show, log: str, golden: Golden) -> None:
    text = show(log, *GPT2[:2], "--micro-batch-size", "12", *GPT2[4:])
    narrow(text)
    golden("oom_no_such_size_80.txt", text)


def test_a_run_whose_moment_is_another(show: Show, log: str, golden: Golden) -> None:
    text = show(log, *GPT2, "--attention", "naive", "--top", "1")
    narrow(text)
    golden("oom_other_moment_80.txt", text)


def test_several_that_fit(show: Show, tmp_path: Path, golden: Golden) -> None:
    path = tmp_path / "short.log"
    path.write_text(
        "CUDA out of memory. Tried to allocate 3.07 GiB (GPU 0; 23.61 GiB total capacity\n", encoding="utf-8"
    )
    text = show(str(path), *GPT2[:2], "--micro-batch-size", "16", *GPT2[4:], "--top", "2")
    narrow(text)
    golden("oom_several_80.txt", text)


def test_json_of_a_found_tensor(show: Show, log: str, golden: Golden, keeps_to_schema: Keeps) -> None:
    text = show(log, *GPT2, "--json", "--top", "2")
    document = json.loads(text)
    keeps_to_schema("oom", document)
    found = document["found"]
    assert (found["verdict"], found["exact"]) == ("one", True)
    first = found["candidates"][0]
    assert (first["tensor"]["size_bytes"], first["phase"], first["step"]) == (24 * 1024 * 50257 * 4, "backward", 2)
    assert sum(found["alive"]["components"].values()) == found["alive"]["allocated_bytes"]
    assert text == show(log, *GPT2, "--json", "--top", "2")
    golden("oom_found.json", text)


@pytest.mark.parametrize(
    "options",
    [
        [*GPT2[:2], "--micro-batch-size", "12", *GPT2[4:]],
        [*GPT2, "--attention", "naive"],
        [*GPT2, "--device", "a100-40gb", "--torch", "2.6", "--allocator-settings", "max_split_size_mb:256"],
        [
            "--model",
            "gpt2",
            "--set",
            "num_layers=2",
            "--mode",
            "generate",
            "--prompt-length",
            "512",
            "--new-tokens",
            "4",
        ],
    ],
)
def test_json_of_other_ends_keeps_to_the_schema(
    options: list[str], show: Show, log: str, keeps_to_schema: Keeps
) -> None:
    keeps_to_schema("oom", json.loads(show(log, *options, "--json")))


def test_models_of_the_library_and_of_toml_files(show: Show, log: str, tmp_path: Path) -> None:
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 64, "n_head": 2,
        "vocab_size": 50257, "n_positions": 1024,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    library = [str(tmp_path / "config.json"), "--micro-batch-size", "24", "--sequence-length", "1024"]
    text = show(log, "--model", *library, "--attention", "eager")
    assert "gpt2: micro-batch 24 x 1,024 tokens" in text and "[24,576, 50,257] fp32" in text
    file = tmp_path / "job.toml"
    file.write_text(
        'device = "a100-40gb"\n[model]\npreset = "gpt2"\nnum_layers = 2\n[run]\n'
        "micro_batch_size = 24\nsequence_length = 1024\n",
        encoding="utf-8",
    )
    text = show(log, "--model", str(file))
    assert "found: " in text and "--device names another" not in text


def test_standard_input(monkeypatch: pytest.MonkeyPatch, show: Show, failed: Failed) -> None:
    class Piped(io.TextIOWrapper):
        def isatty(self) -> bool:
            return False

    def pipe() -> None:
        monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(failed.message("old").encode())))

    pipe()
    first = show("-", *GPT2)
    pipe()
    assert show(*GPT2) == first
    assert "found: " in first


def test_several_processes_of_one_log(show: Show, failed: Failed, tmp_path: Path) -> None:
    path = tmp_path / "ranks.log"
    lines = [f"[rank{rank}]: {failed.message()}\n" for rank in (2, 0, 2)]
    path.write_text("".join(lines), encoding="utf-8")
    text = show(str(path))
    assert "line 1, the first of 2 messages of rank 2, 1 with the same words" in text
    assert "also:     rank 0: CUDA out of memory on GPU 0" in text


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["oom", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["missing.log"], "'missing.log' cannot be read: No such file"),
        (["."], "'.' cannot be read: Is a directory"),
        (["LOG", "--sequence-length", "64"], "--sequence-length says what ran, and nothing says of which model"),
        (["LOG", "--device", "t4"], "--device says what ran"),
        (["LOG", "--model", "gtp2"], "did you mean"),
        (["LOG", "--model", "gpt2"], "sequence_length: is missing"),
        (["LOG", *GPT2, "--device", "h1000"], "'h1000' is not known"),
        (["LOG", *GPT2, "--device", "cpu"], "the message is of a card, not of cpu"),
        (["LOG", *GPT2, "--torch", "two"], "two"),
        (["LOG", *GPT2, "--allocator-settings", "expandable:True"], "has no key"),
        (["LOG", "--top", "0"], "--top: must be at least 1"),
        ([str(FOLDER / "hip.txt"), *GPT2], "HIP, whose kernels memplan has no rules for"),
        ([str(FOLDER / "cublas.txt"), *GPT2], "does not say how much the card has"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], wrong: str, log: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert wrong in refused(capsys, *(log if each == "LOG" else each for each in arguments))


@pytest.mark.parametrize("content", [b"", b"\0\1\2" * 9999, b"epoch 1\n" * 99, bytes(range(256)) * 64])
def test_no_message_is_exit_code_2(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    error = refused(capsys, str(path), *GPT2)
    assert "no message of running out of memory" in error or "the input is empty" in error
    assert "hint: " in error


def test_it_starts_without_torch_and_numpy(log: str) -> None:
    script = (
        "import sys\nfrom memplan.cli import run\ncode = run(sys.argv[1:])\n"
        "print(code, sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, "oom", log], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 []\n")


def test_help_names_the_run_and_the_model(show: Show) -> None:
    text: Any = show("--help")
    for option in ("--model", "--sequence-length", "--allocator-settings", "[FILE]", "--json"):
        assert option in text
