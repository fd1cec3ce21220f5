"""`memplan estimate`: what reaches the engine, and what comes out. The engine is a recorder here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import memplan.estimate
from memplan.cli import run
from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.estimate import COMPONENTS, Estimate, Interval, LedgerLine, PhaseEstimate, Tiers, Totals

LINE = LedgerLine(
    size=4,
    copies=2,
    component="parameters",
    born="initial",
    died="",
    module="head",
    operation="aten::empty",
    formula="4 B",
    reason="a parameter",
)


class Engine:
    """Stands for the engine: remembers the last request, and answers with a small estimate of it."""

    request: tuple[Transformer, TrainingRun, Device]
    torch: tuple[int, int]
    allocator_settings: str

    def estimate(
        self,
        model: Transformer,
        run: TrainingRun,
        device: Device,
        torch: tuple[int, int],
        allocator_settings: str,
    ) -> Estimate:
        self.request = (model, run, device)
        self.torch = torch
        self.allocator_settings = allocator_settings
        components = dict.fromkeys(COMPONENTS, 0) | {"parameters": 8}
        names = ("forward", "loss", "backward", "optimizer_step")
        return Estimate(
            model=model,
            run=run,
            device=device,
            phases=tuple(PhaseEstimate(name, 8, 8, components, components, "head", "aten::mm") for name in names),
            tiers=Tiers(8),
            totals=Totals(2, 8, 8, 16, 0),
            largest=(LINE,),
            interval=Interval((8, 8), None, None, "made by hand"),
            fit=None,
            assumptions=("made by hand",),
        )

    def ledger_lines(self, *request: object) -> list[LedgerLine]:
        return [LINE]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    recorder = Engine()
    monkeypatch.setattr(memplan.estimate, "estimate", recorder.estimate)
    monkeypatch.setattr(memplan.estimate, "ledger_lines", recorder.ledger_lines)
    return recorder


def test_defaults(engine: Engine) -> None:
    assert run(["estimate", "llama-3-8b", "--sequence-length", "8192"]) == 0
    model, training, device = engine.request
    assert model.name == "llama-3-8b"
    assert training == TrainingRun(sequence_length=8192, attention="flash")
    assert device.name == "cpu"


def test_every_option_reaches_the_run(engine: Engine) -> None:
    command = (
        "estimate gpt2 --micro-batch-size 3 --sequence-length 64 --gradient-accumulation-steps 2 --attention naive "
        "--precision bf16-mixed --optimizer sgd --optimizer-implementation foreach --momentum 0.9 --recompute full "
        "--padding --device cpu:8 --set num_layers=4 --set attention_dropout=0 "
        "--allocator-settings expandable_segments:True"
    )
    assert run(command.split()) == 0
    assert engine.allocator_settings == "expandable_segments:True"
    model, training, device = engine.request
    assert (model.num_layers, model.attention_dropout) == (4, 0)
    assert training == TrainingRun(
        micro_batch_size=3,
        sequence_length=64,
        gradient_accumulation_steps=2,
        attention="naive",
        precision="bf16-mixed",
        optimizer="sgd",
        optimizer_implementation="foreach",
        momentum=0.9,
        recompute="full",
        padding=True,
    )
    assert (device.name, device.threads) == ("cpu:8", 8)


def test_an_encoder_decoder_has_two_lengths(engine: Engine) -> None:
    command = "estimate t5-base --source-length 64 --target-length 32 --attention naive --no-padding"
    assert run(command.split()) == 0
    training = engine.request[1]
    assert (training.source_length, training.target_length, training.padding) == (64, 32, False)


def test_options_win_over_a_file(engine: Engine, tmp_path: Path) -> None:
    request = tmp_path / "request.toml"
    request.write_text(
        """
        device = "h100-80gb"
        [model]
        preset = "gpt2"
        num_layers = 2
        [run]
        sequence_length = 32
        micro_batch_size = 7
        """
    )
    assert run(["estimate", str(request)]) == 0
    model, training, device = engine.request
    assert (model.num_layers, training.sequence_length, training.micro_batch_size) == (2, 32, 7)
    assert device.name == "h100-80gb"
    assert run(["estimate", str(request), "--micro-batch-size", "8", "--device", "cpu", "--set", "num_layers=3",
                "--attention", "naive"]) == 0  # fmt: skip
    model, training, device = engine.request
    assert (model.num_layers, training.sequence_length, training.micro_batch_size) == (3, 32, 8)
    assert device.name == "cpu"


def test_text(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "llama-3-8b", "--sequence-length", "16"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("llama-3-8b: decoder, 32 layers, ")
    assert "Every line of the ledger" not in captured.out
    assert captured.err == ""


def test_explain(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "llama-3-8b", "--sequence-length", "16", "--explain"]) == 0
    assert "Every line of the ledger" in capsys.readouterr().out


@pytest.mark.parametrize("explain", [False, True])
def test_json(engine: Engine, capsys: pytest.CaptureFixture[str], explain: bool) -> None:
    command = ["estimate", "llama-3-8b", "--sequence-length", "16", "--json"]
    assert run([*command, "--explain"] if explain else command) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["peak"]["allocated_bytes"] == 8
    assert document["request"]["run"]["sequence_length"] == 16
    assert ("ledger" in document) is explain


def test_a_name_the_terminal_cannot_spell(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(["estimate", "llama-3-8b", "--sequence-length", "16", "--set", 'name="modèle"']) == 0
    stream.flush()
    assert b"mod\\xe8le" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_the_rules_of_a_release(engine: Engine) -> None:
    assert run(["estimate", "gpt2", "--sequence-length", "8", "--attention", "naive"]) == 0
    assert engine.torch == (2, 13)
    assert run(["estimate", "gpt2", "--sequence-length", "8", "--attention", "naive", "--torch", "2.6.0+cu124"]) == 0
    assert engine.torch == (2, 6)


@pytest.mark.parametrize(
    ("text", "says"), [("2.5", "only for 2.6 and newer"), ("new", "is not a release"), ("2", "is not")]
)
def test_a_release_without_rules_is_refused(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "gpt2", "--sequence-length", "8", "--attention", "naive", "--torch", text]) == 2
    assert says in capsys.readouterr().err
