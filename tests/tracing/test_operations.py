"""Operations one by one: each has a rule that gives every birth of a real step, or is refused by name."""

from __future__ import annotations

import pytest
import torch

from memplan.config.run import Precision, TrainingRun
from memplan.measure.tracing.trace import trace_step
from memplan.ops.backend import release

from .compare import real_births, traced_births
from .operations import OPERATIONS

REFUSED = {
    "extrema": "aten::max",
    "running products": "aten::cumprod",
    "nearest upsampling": "aten::upsample_nearest2d",
    "bilinear upsampling": "aten::upsample_bilinear2d",
    "unfold": "aten::im2col",
    "binary cross-entropy": "aten::binary_cross_entropy",
    "fourier": "aten::_fft_r2c",
    "conv transpose": "aten::convolution",
    "dilated": "aten::convolution",
}
NOT_IN_BF16 = {"complex numbers", "fourier"}
FAILS_IN_BF16 = {"mse against fp32"} if release(torch.__version__) < (2, 12) else set()
"""What PyTorch itself refused to do in releases before 2.12."""
REFUSED_IN_BF16 = {"batch norm of images in rows": "aten::native_batch_norm_backward"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in REFUSED])
def test_an_operation(name: str, precision: Precision) -> None:
    if precision == "bf16" and name in NOT_IN_BF16 | FAILS_IN_BF16 | set(REFUSED_IN_BF16):
        pytest.skip("not in half precision")
    factory, run = OPERATIONS[name], TrainingRun(precision=precision, optimizer="sgd")
    assert not trace_step(name, factory, {}, run, 2).unknown
    traced, real = traced_births(factory, run), real_births(factory, run)
    assert [birth[:2] for birth in traced] == [birth[:2] for birth in real]


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_named(name: str) -> None:
    unknown = trace_step(name, OPERATIONS[name], {}, TrainingRun(), 2).unknown
    assert any(operation.split(".")[0] == REFUSED[name] for operation in unknown)


@pytest.mark.parametrize("name", REFUSED_IN_BF16)
def test_what_has_no_rule_in_half_precision_is_named(name: str) -> None:
    unknown = trace_step(name, OPERATIONS[name], {}, TrainingRun(precision="bf16"), 2).unknown
    assert REFUSED_IN_BF16[name] in unknown
