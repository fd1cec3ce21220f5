"""Modules that are none of memplan's own, traced and run for real: every birth of the step is the same."""

from __future__ import annotations

import pytest

from memplan.config.run import Optimizer, OptimizerImplementation, Precision, TrainingRun
from memplan.measure.tracing.subject import find_factory

from .compare import real_births, traced_births

MODULES = (
    "vit", "encoder", "seq2seq", "masked_encoder", "mamba", "mixer", "convnext", "convnet", "gpt", "checkpointed",
    "lstm", "llama",
)  # fmt: skip


def check(name: str, run: TrainingRun, threads: int = 2) -> None:
    if name == "llama":
        pytest.importorskip("transformers")
    factory = find_factory(f"tests.tracing.modules:{name}")
    traced, real = traced_births(factory, run, threads), real_births(factory, run, threads)
    assert [birth[:2] for birth in traced] == [birth[:2] for birth in real]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
@pytest.mark.parametrize("name", MODULES)
def test_a_module(name: str, precision: Precision) -> None:
    check(name, TrainingRun(precision=precision))


@pytest.mark.parametrize("implementation", ["for-loop", "foreach", "fused"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_an_optimizer(optimizer: Optimizer, implementation: OptimizerImplementation) -> None:
    momentum = 0.9 if optimizer == "sgd" else 0.0
    check("mixer", TrainingRun(optimizer=optimizer, optimizer_implementation=implementation, momentum=momentum))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads(threads: int) -> None:
    check("vit", TrainingRun(precision="bf16-mixed"), threads)
