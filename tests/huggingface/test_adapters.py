"""Adapters on models of the library, and their twins: every birth of a training step, to the byte."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from memplan.config.adapters import LIBRARY_DEFAULTS
from memplan.config.library.model import validate_library_model
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run

from .small import SMALL
from .strategies import CPU

pytest.importorskip("transformers")
constants = pytest.importorskip("peft.utils.constants")
from .compare import runs, same, show  # noqa: E402

TARGETS: dict[str, tuple[str, ...]] = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "llama, dropout": (),
    "mistral": ("down_proj",),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "t5": ("q", "v"),
    "bert": ("query", "value", "decoder"),
    "olmo2": ("lm_head",),
    "opt-behind": ("fc2", "project_in"),
    "pegasus": ("v_proj", "fc1"),
    "deepseek_v3": ("q_a_proj", "kv_b_proj", "o_proj"),
    "modernbert": ("Wqkv",),
    "vit": ("q_proj", "v_proj"),
}
"""Of some small models; `()`: those that peft takes by itself."""


def adapted(run: TrainingRun, number: int, targets: tuple[str, ...]) -> TrainingRun:
    bf16 = run.precision == "bf16" and number % 2
    dropout = 0.1 if number % 3 == 0 else 0.0
    return replace(run, lora_rank=3, lora_targets=targets, lora_dropout=dropout, lora_dtype="bf16" if bf16 else "fp32")


@pytest.mark.parametrize("name", TARGETS)
def test_every_birth_of_a_step(name: str) -> None:
    """One of seven of the runs that there are (MEMPLAN_THOROUGH=1 takes all)."""
    config = validate_library_model(SMALL[name])
    every = [adapted(run, number, TARGETS[name]) for number, run in enumerate(runs(config))]
    for run in every if "MEMPLAN_THOROUGH" in os.environ else every[::7]:
        checked = validate_run(config, run, CPU)
        assert same(config, checked) or show(config, checked), checked


QUANTISED = ("llama", "gpt2", "mistral", "t5", "bert")
FORMATS = (("nf4", True), ("nf4", False), ("int8", True))


@pytest.mark.parametrize("name", QUANTISED)
def test_every_birth_of_a_step_on_quantised_weights(name: str) -> None:
    """In bitsandbytes' formats: a third of one of five of the runs that there are (MEMPLAN_THOROUGH=1 takes all)."""
    pytest.importorskip("bitsandbytes")
    config = validate_library_model(SMALL[name])
    for number, run in enumerate(runs(config)):
        for kind, double in FORMATS:
            thorough = "MEMPLAN_THOROUGH" in os.environ
            if kind == "int8" and run.precision == "bf16-mixed":
                continue
            if thorough or (number % 5 == 0 and FORMATS[number % 3][0] == kind):
                targets = TARGETS[name] if number % 2 else ()
                changed = replace(adapted(run, 0, targets), weight_quantization=kind, double_quantization=double)  # type: ignore[arg-type]
                checked = validate_run(config, changed, CPU)
                assert same(config, checked) or show(config, checked), checked


def test_targets_are_those_of_peft() -> None:
    theirs = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    known = {model.model_type for model in SMALL.values()}
    assert {name: tuple(theirs[name]) for name in known & theirs.keys()} == LIBRARY_DEFAULTS
