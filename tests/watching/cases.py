"""Small runs to be watched: memplan's reference transformer and models of transformers, trained on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.config.devices import load_device  # noqa: E402
from memplan.config.load import load_preset  # noqa: E402
from memplan.config.model import Transformer  # noqa: E402
from memplan.config.run import TrainingRun  # noqa: E402
from memplan.config.setups import weight_dtype  # noqa: E402
from memplan.config.validate import validate_run  # noqa: E402
from memplan.measure.run import make_batch  # noqa: E402
from memplan.reference.model import Transformer as Module  # noqa: E402
from memplan.reference.training import WEIGHTS, make_optimizer, make_scaler, training_step  # noqa: E402

VOCABULARY, ROWS, LENGTH = 500, 4, 16


def here() -> Any:
    """The CPU with the threads that PyTorch uses."""
    return load_device(f"cpu:{torch.get_num_threads()}")


MODEL: Transformer = load_preset(
    "gpt2",
    {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": VOCABULARY,
        "max_positions": 64,
        "attention_dropout": 0.0,
        "name": "small",
    },
)


def run_of(**changes: Any) -> TrainingRun:
    """A run of MODEL."""
    return validate_run(MODEL, replace(TrainingRun(micro_batch_size=2, sequence_length=LENGTH), **changes), here())


class ReferenceLoop:
    """The loop that estimates are made for."""

    def __init__(self, run: TrainingRun) -> None:
        torch.manual_seed(0)
        self.run = run
        self.module = Module(MODEL, run.attention, run.recompute).to(WEIGHTS[weight_dtype(run)])
        self.optimizer = make_optimizer(self.module, run)
        self.scaler = make_scaler(run, "cpu")
        self.batch = make_batch(MODEL, run)

    def step(self, mark: Callable[[str], None] = lambda name: None) -> None:
        """One step; `mark` is told where the phases begin."""
        training_step(self.module, self.optimizer, self.batch, self.run, mark, self.scaler)


def library_model(kind: str = "llama", **settings: Any) -> Any:
    """A model of transformers with random weights."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    sizes: dict[str, dict[str, Any]] = {
        "llama": {**shared, "num_key_value_heads": 1},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "attn_pdrop": 0.0},
        "bert": {**shared, "attention_probs_dropout_prob": 0.0},
        "t5": {"d_model": 32, "d_kv": 16, "num_layers": 2, "num_heads": 2, "d_ff": 64, "pad_token_id": 0},
    }
    if kind == "t5":
        settings = {"decoder_start_token_id": 0, **settings}
    heads = {
        "llama": "LlamaForCausalLM",
        "gpt2": "GPT2LMHeadModel",
        "bert": "BertForMaskedLM",
        "t5": "T5ForConditionalGeneration",
    }
    attention = settings.pop("attention", "eager" if kind == "t5" else "sdpa")
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCABULARY, **{**sizes[kind], **settings})
    config.use_cache = False
    return getattr(transformers, heads[kind])._from_config(config, attn_implementation=attention).train()


def example(target_length: int = LENGTH) -> dict[str, Any]:
    """One sequence."""
    return {
        "input_ids": torch.randint(0, VOCABULARY, (LENGTH,)),
        "labels": torch.randint(0, VOCABULARY, (target_length,)),
    }


def batch(rows: int = ROWS) -> dict[str, Any]:
    """One micro-batch of sequences."""
    return {name: torch.randint(0, VOCABULARY, (rows, LENGTH)) for name in ("input_ids", "labels")}


def off(watch: Any) -> dict[str, int]:
    """What differs between the recorded step and the plan, in bytes: nothing, where all is as planned."""
    assert watch.recorded is not None
    assert watch.plan is not None
    residuals = watch._kept.residuals
    assert {f"{phase}: {moment}" for phase in TrainingRun.phases for moment in ("peak", "end")} <= set(residuals)
    return {name: residual.difference for name, residual in residuals.items() if residual.difference}
