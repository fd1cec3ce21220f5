"""`memplan trace`: its report, its JSON, what it refuses, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from memplan.cli import run
from memplan.commands import tracing
from memplan.estimate import COMPONENTS, PHASES
from memplan.measure.tracing import program

VIT = "tests.tracing.modules:vit"
BROKEN = "tests.tracing.broken:"

REFUSED = {
    "no colon": ("models", "is not module:factory", "(module, inputs, loss)"),
    "no such module": ("missing_models:tiny", "'missing_models' cannot be imported", "No module named"),
    "no such factory": (f"{BROKEN}missing", "has no 'missing'", "for example"),
    "not callable": (f"{BROKEN}not_callable", "is not callable: it is a int", "for example"),
    "failing": (f"{BROKEN}failing", "failing failed: ZeroDivisionError: by zero", ""),
    "returns nothing": (f"{BROKEN}returns_nothing", "must return (module, inputs)", "not None"),
    "returns a model": (f"{BROKEN}returns_a_model", "must return (module, inputs)", "not a Linear"),
    "no module": (f"{BROKEN}no_module", "must be a torch.nn.Module", "not a Tensor"),
    "bad inputs": (f"{BROKEN}bad_inputs", "the inputs must be a tensor, a tuple or a dictionary", "not a int"),
    "bad loss": (f"{BROKEN}bad_loss", "the loss must be a function", "not a int"),
    "wide loss": (f"{BROKEN}wide_loss", "the loss must be a tensor of one number", "F.mse_loss"),
    "untrained": (f"{BROKEN}untrained", "no parameters to train", ""),
    "detached": (f"{BROKEN}detached", "does not depend on any parameter", ""),
    "wrong shape": (f"{BROKEN}wrong_shape", "wrong_shape failed", "[2, 5] X [4, 4]"),
    "asking": (f"{BROKEN}asking", "aten::_local_scalar_dense in the model itself depends on the data", ".item()"),
    "selecting": (f"{BROKEN}selecting", "depends on the data", "masked selection"),
    "resizing": (f"{BROKEN}resizing", "aten::upsample_bilinear2d", "--assume-outputs-only"),
    "recurrent": (f"{BROKEN}recurrent", "aten::gru", "LSTM"),
    "sparse": (f"{BROKEN}sparse", "not strided", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    factory, wrong, right = REFUSED[name]
    assert run(["trace", factory]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert wrong in captured.err
    assert right in captured.err
    assert "Traceback" not in captured.err
    assert len([line for line in captured.err.splitlines() if line.startswith(("error: ", "hint: "))]) <= 2


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--precision", "fp16-mixed"], "--precision: 'fp16-mixed' is none of fp32, bf16, bf16-mixed"),
        (["--optimizer", "lion"], "--optimizer: 'lion' is none of adamw, adam, sgd"),
        (["--optimizer-implementation", "fast"], "--optimizer-implementation"),
        (["--momentum", "0.9"], "--momentum goes with --optimizer sgd"),
        (["--device", "h100-80gb"], "only for the device cpu"),
        (["--input", "batch_size"], "must be key=value"),
        (["--input", "depth=3"], "unexpected keyword argument 'depth'"),
        (["--top", "0"], "--top: must be at least 1"),
    ],
)
def test_bad_options_are_explained(arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", f"{BROKEN}fine", *arguments]) == 2
    assert wrong in capsys.readouterr().err


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", f"{BROKEN}fine", "--input", "batch_size=3", "--input", "wide=true"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "made\n"  # the user's code keeps out of the result
    assert captured.out.startswith("tests.tracing.broken:fine: Linear, 72 parameters\nbatch_size=3, wide=True, fp32, ")
    for part in ("* peak", "saved activations", "The biggest tensors alive at the peak", "Assumptions", "exact;"):
        assert part in captured.out


def test_the_json_has_the_keys_of_an_estimate(capsys: pytest.CaptureFixture[str], keeps_to_schema: Any) -> None:
    assert run(["trace", VIT, "--json", "--explain", "--verify", "--precision", "bf16-mixed"]) == 0
    document = json.loads(capsys.readouterr().out)
    keeps_to_schema("trace", document)
    assert document["request"]["module"]["name"] == VIT
    assert document["request"]["run"]["precision"] == "bf16-mixed"
    assert [phase["name"] for phase in document["phases"]] == list(PHASES)
    assert list(document["at_peak"]) == list(COMPONENTS)
    assert sum(document["at_peak"].values()) == document["peak"]["allocated_bytes"]
    assert document["interval"]["allocated_bytes"] == [document["peak"]["allocated_bytes"]] * 2
    assert document["totals"]["parameters_bytes"] == 4 * document["request"]["module"]["parameter_count"]
    assert {line["module"] for line in document["ledger"]} > {"patches", "blocks.*.qkv", "norm"}
    assert document["verification"]["verdict"] == "exact"
    assert document["fit"] is None


def test_the_same_request_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for _ in range(2):
        assert run(["trace", VIT, "--json"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["encoder", "mamba", "mixer", "convnext", "gpt"])
def test_a_real_run_agrees_in_every_phase_and_component(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", f"tests.tracing.modules:{name}", "--verify"]) == 0
    text = capsys.readouterr().out
    assert "exact: 0 bytes of difference in every phase and component" in text
    assert "oneDNN off" in text


def test_a_difference_of_more_than_a_hundredth_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = program.measure_step

    def larger(*request: Any) -> dict[str, Any]:
        measured = measure(*request)
        for phase in measured["phases"]:
            phase["peak_allocated_bytes"] = phase["peak_allocated_bytes"] * 102 // 100
        return measured

    monkeypatch.setattr(program, "measure_step", larger)
    assert run(["trace", f"{BROKEN}fine", "--verify"]) == 1
    assert "differs: the peak by" in capsys.readouterr().out


def test_operations_counted_by_their_outputs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", f"{BROKEN}resizing", "--assume-outputs-only"]) == 0
    text = capsys.readouterr().out
    assert "interval: not known; some operations are counted by their outputs alone" in text
    assert "aten::upsample_bilinear2d has no rule" in " ".join(text.split())


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tracing.importlib.util, "find_spec", lambda name: None)
    assert run(["trace", VIT]) == 2
    assert 'pip install "memplan[torch]"' in capsys.readouterr().err


def test_the_command_itself_imports_no_torch() -> None:
    modules = "memplan.commands.trace, memplan.commands.tracing, memplan.report.tracing"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_weights_are_told_from_frozen_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", VIT, "--explain", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["ledger"]
    reasons = {line["reason"] for line in lines if line["component"] == "parameters"}
    assert reasons == {"trained weights"}
