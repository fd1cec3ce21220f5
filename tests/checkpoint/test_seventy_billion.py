"""A 70B 16-bit model needs about 1.5 TB to store a checkpoint, it is said: which parts add up to what.

Nothing that PyTorch saves by itself comes to that. It takes gradients, or another copy of the weights, beside the fp32
weights and moments: 20 to 22 bytes a parameter.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from memplan.checkpoint.sizes import Checkpoint, checkpoint
from memplan.config.load import load_model
from memplan.units import GB, TB, TIB

from .lengths import any_length

NAMES = ("llama-2-70b", "llama-3-70b")


@cache
def of(name: str, **options: Any) -> Checkpoint:
    model = load_model(name)
    return checkpoint(model, any_length(model, **options))


def parts(name: str) -> dict[str, int]:
    """Bytes of each thing that could be stored."""
    mixed = of(name, precision="bf16", master_weights="megatron").training_state["torch_save"].tensors
    single = of(name, precision="fp32").weights["torch_save"].tensors
    return {
        "weights, bf16": mixed["parameters"],
        "weights, fp32": mixed["master_weights"],
        "moments, fp32": mixed["optimizer_state"],
        "gradients, bf16": mixed["parameters"],
        "gradients, fp32": single["parameters"],
        "average of the weights, fp32": single["parameters"],
    }


@pytest.mark.parametrize("name", NAMES)
def test_weights_alone(name: str) -> None:
    """138 or 141 GB in 16 bits, twice that in 32."""
    count = of(name).parameter_count
    assert of(name, precision="bf16").weights["torch_save"].size == pytest.approx(2 * count, rel=1e-5)
    assert of(name).weights["torch_save"].size == pytest.approx(4 * count, rel=1e-5)


def test_what_pytorch_stores() -> None:
    """bf16 weights with bf16 moments 6 bytes a parameter, fp32 with fp32 moments 12, and 14 with fp32 copies of bf16
    weights."""
    sizes = {
        "bf16": of("llama-3-70b", precision="bf16"),
        "fp32": of("llama-3-70b"),
        "masters": of("llama-3-70b", precision="bf16", master_weights="deepspeed"),
    }
    in_gb = {name: round(each.training_state["torch_save"].size / GB) for name, each in sizes.items()}
    assert in_gb == {"bf16": 423, "fp32": 847, "masters": 988}
    assert round(sizes["bf16"].weights["torch_save"].size / GB) == 141


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_near_to_a_terabyte_and_a_half(name: str) -> None:
    sizes = parts(name)
    count = of(name).parameter_count
    saved = sizes["weights, bf16"] + sizes["weights, fp32"] + sizes["moments, fp32"]
    sums = {
        14: saved,
        16: saved + sizes["gradients, bf16"],
        18: saved + sizes["gradients, fp32"],
        20: saved + sizes["gradients, fp32"] + sizes["gradients, bf16"],
        22: saved + sizes["gradients, fp32"] + sizes["average of the weights, fp32"],
    }
    for each, total in sums.items():
        assert total / count == pytest.approx(each, rel=1e-6)
    if name == "llama-3-70b":
        in_tb = {each: round(total / TB, 2) for each, total in sums.items()}
        assert in_tb == {14: 0.99, 16: 1.13, 18: 1.27, 20: 1.41, 22: 1.55}
        assert round(sums[22] / TIB, 2) == 1.41
        assert round(1.5 * TB / count, 1) == 21.3
        assert round(1.5 * TIB / count, 1) == 23.4
