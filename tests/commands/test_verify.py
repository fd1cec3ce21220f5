"""`memplan verify`: side by side, exit codes, records, and what happens when a run cannot be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.measure.child import Child

SMALL = [
    "gpt2",
    "--sequence-length",
    "8",
    "--set",
    "num_layers=2",
    "--set",
    "hidden_size=12",
    "--set",
    "intermediate_size=24",
    "--set",
    "vocab_size=50",
    "--set",
    "attention_dropout=0",
]


def test_both_attentions_agree_and_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", *SMALL, "--attention", "naive", "--attention", "flash"]) == 0
    text = capsys.readouterr().out
    assert text.count("exact: 0 bytes of difference") == 2
    assert "attention kernel: flash" in text
    assert "peak of the step" in text


def test_json_holds_both_sides(capsys: pytest.CaptureFixture[str], keeps_to_schema: Any) -> None:
    assert run(["verify", *SMALL, "--attention", "naive", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    keeps_to_schema("verify", document)
    assert document["verdict"] == "exact"
    (result,) = document["results"]
    assert [phase["name"] for phase in result["phases"]] == ["forward", "loss", "backward", "optimizer_step"]
    for phase in result["phases"]:
        assert phase["peak"]["residual_bytes"] == 0
        assert sum(part["measured_bytes"] for part in phase["at_peak"].values()) == phase["peak"]["measured_bytes"] > 0
        assert sum(part["estimated_bytes"] for part in phase["at_end"].values()) == phase["end"]["estimated_bytes"]


def test_a_difference_exits_1_and_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measure = Child.measure

    def one_byte_more(self: Child, *request: Any) -> dict[str, Any]:
        record = measure(self, *request)
        record["phases"][2]["peak_allocated_bytes"] += 1
        return record

    monkeypatch.setattr(Child, "measure", one_byte_more)
    assert run(["verify", *SMALL, "--attention", "naive"]) == 1
    text = capsys.readouterr().out
    assert "-1" in text
    assert "differs: the worst residual of a phase or component is 1 byte" in text


def test_the_wrong_kernel_is_a_difference(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measure = Child.measure

    def math_kernel(self: Child, *request: Any) -> dict[str, Any]:
        return {**measure(self, *request), "sdpa_kernels": ["math"]}

    monkeypatch.setattr(Child, "measure", math_kernel)
    assert run(["verify", *SMALL, "--attention", "flash"]) == 1
    assert "PyTorch ran the attention kernel math, not flash" in capsys.readouterr().out


def test_records_are_kept_on_request(tmp_path: Path) -> None:
    assert run(["verify", *SMALL, "--attention", "naive", "--save", str(tmp_path)]) == 0
    (file,) = (tmp_path / "cpu").iterdir()
    record = json.loads(file.read_text())
    assert record["kind"] == "training_step"
    assert record["request"]["run"]["sequence_length"] == 8
    assert record["environment"]["onednn"] is False


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert run(["verify", *SMALL, "--attention", "naive", "--save", str(blocker)]) == 2
    assert "cannot write the record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to verify"),
        (["--suite", "quik"], "did you mean quick?"),
        (["gpt2", "--suite", "quick"], "--suite brings its own models and runs"),
        (["gtp2", "--sequence-length", "8"], "gpt2"),
        (["gpt2", "--sequence-length", "8", "--attention", "naive", "--device", "h100-80gb"], "real runs on h100-80gb"),
        (["gpt2", "--sequence-length", "8", "--attention", "flash"], "attention_dropout=0"),
        (["t5-base", "--source-length", "8", "--target-length", "8", "--attention", "flash"], "math kernel"),
        (["gpt2", "--sequence-length", "2048", "--attention", "naive"], "1024"),
    ],
)
def test_bad_input_exits_2(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", *arguments]) == 2
    output = capsys.readouterr()
    assert says in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_torch_missing_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["verify", *SMALL, "--attention", "naive"]) == 2
    error = capsys.readouterr().err
    assert "torch is not installed" in error
    assert 'pip install "memplan[torch]"' in error


def test_after_a_child_has_died_the_next_run_gets_a_new_one() -> None:
    from memplan.config.devices import load_device
    from memplan.measure.suite import suite

    device = load_device("cpu")
    case = suite("quick", device)[1]
    with Child() as child:
        assert child.measure(*case, device)["phases"]
        assert child._process is not None
        child._process.kill()
        child._process.wait()
        assert child.measure(*case, device)["phases"]  # a new process


def test_a_run_that_fails_names_the_reason() -> None:
    from dataclasses import replace

    from memplan.config.devices import load_device
    from memplan.errors import MeasurementError
    from memplan.measure.suite import suite

    device = load_device("cpu")
    model, run_ = suite("quick", device)[0]
    with Child() as child, pytest.raises(MeasurementError, match="gpt-like failed"):
        child.measure(replace(model, max_positions=2), run_, device)


def test_the_quick_suite_covers_at_least_40_configurations_with_both_attentions() -> None:
    from memplan.config.devices import load_device
    from memplan.measure.suite import suite

    cases = suite("quick", load_device("cpu"))
    assert len(cases) >= 40
    assert sum(case.run.attention == "flash" for case in cases) >= 30
    assert {case.model.architecture for case in cases} == {"encoder", "decoder", "encoder-decoder"}
    assert {case.run.precision for case in cases} == {"fp32", "bf16", "bf16-mixed"}
    assert {case.model.positions for case in cases} == {"learned", "sinusoidal", "rotary", "relative", "alibi"}
    assert {case.run.optimizer_implementation for case in cases} == {"for-loop", "foreach", "fused"}


def test_a_child_that_is_killed_during_a_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    from memplan.config.devices import load_device
    from memplan.errors import MeasurementError
    from memplan.measure.suite import suite

    popen = subprocess.Popen

    def dying(command: list[str], **options: Any) -> Any:
        killed = (
            "import os, sys; sys.stdin.readline(); "
            "print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
        )
        return popen([sys.executable, "-c", killed], **options)

    monkeypatch.setattr(subprocess, "Popen", dying)
    device = load_device("cpu")
    with Child() as child, pytest.raises(MeasurementError, match=r"killed by signal 9 \(out of memory.*last words"):
        child.measure(*suite("quick", device)[0], device)


def test_pooling_the_last_token_of_padded_sequences_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL, "--set", "head=classification", "--set", "pooling=last", "--attention", "naive", "--padding"]
    assert run(["estimate", *arguments]) == 2
    assert "the last position of a padded sequence is padding" in capsys.readouterr().err
