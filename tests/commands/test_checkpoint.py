"""`memplan checkpoint`: texts and JSON, refusals, exit codes, and the files written for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.measure import disk
from memplan.measure.suites.library import small_models

from ..huggingface.test_fuzz import config_of

SMALL = ["--set", "num_layers=2", "--set", "hidden_size=48", "--set", "vocab_size=99", "--set", "intermediate_size=64"]
MASTERS = ["--precision", "bf16", "--master-weights", "megatron"]


def config_json(folder: Path, key: str) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(config_of(small_models()[key])), encoding="utf-8")
    return str(path)


def test_text(capsys: pytest.CaptureFixture[str], golden: Any) -> None:
    assert run(["checkpoint", "llama-3-70b", *MASTERS]) == 0
    golden("checkpoint_80.txt", capsys.readouterr().out)


def test_text_of_a_sharded_model(capsys: pytest.CaptureFixture[str], golden: Any, tmp_path: Path) -> None:
    options = ["--precision", "fp16-mixed", "--max-shard-size", "100KB", "--step", "1"]
    assert run(["checkpoint", config_json(tmp_path, "bart"), *options]) == 0
    golden("checkpoint_shards_80.txt", capsys.readouterr().out)


def test_json(capsys: pytest.CaptureFixture[str], golden: Any) -> None:
    assert run(["checkpoint", "gpt2", "--optimizer", "sgd", "--momentum", "0.9", "--json"]) == 0
    text = capsys.readouterr().out
    golden("checkpoint.json", text)
    document = json.loads(text)
    for kind in ("weights", "training_state"):
        for form in ("torch_save", "safetensors"):
            saving = document[kind][form]
            assert saving["total_bytes"] == sum(file["size_bytes"] for file in saving["files"])
            assert saving["total_bytes"] == sum(saving["tensors"].values()) + saving["overhead_bytes"]
            for file in saving["files"]:
                assert file["size_bytes"] == sum((*file["tensors"].values(), *file["overhead"].values()))
    assert sum(document["parts"].values()) == document["weights"]["torch_save"]["weights_bytes"]


def test_a_toml_file_brings_its_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "request.toml"
    path.write_text(
        '[model]\npreset = "gpt2"\n[run]\nsequence_length = 512\nattention = "flash"\nprecision = "bf16"\n',
        encoding="utf-8",
    )
    assert run(["checkpoint", str(path), "--json"]) == 0
    from_file = json.loads(capsys.readouterr().out)
    assert run(["checkpoint", "gpt2", "--precision", "bf16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == from_file


@pytest.mark.parametrize("key", ["gpt2", "t5", "vit", "bloom"])
def test_both_implementations(key: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = config_json(tmp_path, key)
    assert run(["checkpoint", path, "--json"]) == 0
    library = json.loads(capsys.readouterr().out)
    if key == "gpt2":
        assert run(["checkpoint", path, "--implementation", "reference", "--json"]) == 0
        reference = json.loads(capsys.readouterr().out)
        assert reference["parameter_count"] == library["parameter_count"]
        assert reference["weights"] != library["weights"]


REFUSED = {
    "generation": (["gpt2", "--mode", "generate"], "No such option: --mode", "--help"),
    "a batch": (["gpt2", "--micro-batch-size", "2"], "No such option: --micro-batch-size", "--help"),
    "another optimizer": (["gpt2", "--optimizer", "lion"], "lion", "--optimizer adamw"),
    "adapters": (["gpt2", "--lora-rank", "8"], "lora_rank: what is saved with 8 is not modelled yet", ""),
    "frozen": (["gpt2", "--frozen", "*embedding*"], "frozen: what is saved with *embedding*", ""),
    "momentum of adamw": (["gpt2", "--momentum", "0.9"], "momentum: must be 0", ""),
    "masters of fp32": (["gpt2", "--master-weights", "megatron"], "master_weights", "bf16"),
    "a step of 0": (["gpt2", "--step", "0"], "--step: must be at least 1, not 0", "8"),
    "no number of steps": (["gpt2", "--step", "many"], "--step: must be a whole number", "8"),
    "too many steps": (["gpt2", "--step", "9" * 30], "step: must be at least 1 and below 2**63", ""),
    "no size": (["gpt2", "--max-shard-size", "large"], "--max-shard-size: must be a size", "50GB"),
    "an endless size": (["gpt2", "--max-shard-size", "infGB"], "--max-shard-size: must be a size", "50GB"),
    "not a number": (["gpt2", "--max-shard-size", "nan"], "--max-shard-size: must be a size", "50GB"),
    "a size of 0": (["gpt2", "--max-shard-size", "0"], "--max-shard-size: must be a size", "50GB"),
    "an unknown model": (["gtp2"], "'gtp2'", 'did you mean "gpt2"?'),
    "too large to write": (["llama-2-7b", "--verify"], "larger than the 8.00 GiB", "--set num_layers=2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message, hint = REFUSED[case]
    assert run(["checkpoint", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert hint in output.err
    assert len(output.err.splitlines()) <= 2


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(disk, "SPARE", 2**70)
    assert run(["checkpoint", "gpt2", *SMALL, "--set", "num_attention_heads=4", "--verify"]) == 2
    assert "are free where temporary files go" in capsys.readouterr().err


def test_verify(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    arguments = ["checkpoint", "gpt2", *SMALL, "--set", "num_attention_heads=4", "--verify"]
    assert run(arguments) == 0
    assert "exact: 0 bytes of difference in every file" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    verification = json.loads(capsys.readouterr().out)["verification"]
    assert verification["verdict"] == "exact"
    assert len(verification["files"]) == 5


def test_verify_says_what_differs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("memplan.measure.checkpoint.write_checkpoint", lambda *_: {("weights", "other", "a.pt"): 3})
    arguments = ["checkpoint", "gpt2", *SMALL, "--set", "num_attention_heads=4", "--verify"]
    assert run(arguments) == 1
    assert "differs: by up to" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verification"]["verdict"] == "differs"


def test_verify_of_a_model_of_the_library(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    arguments = ["checkpoint", config_json(tmp_path, "mixtral"), "--verify", "--json", "--max-shard-size", "60KB"]
    assert run(arguments) == 0
    document = json.loads(capsys.readouterr().out)  # nothing of the library's own is among it
    assert document["verification"]["verdict"] == "exact"


def test_verify_without_torch() -> None:
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "from memplan.cli import run\n"
        "sys.exit(run(['checkpoint', 'gpt2', '--verify']))\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert child.returncode == 2
    assert "torch is not installed" in child.stderr
