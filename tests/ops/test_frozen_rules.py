"""Rules whose inputs are not all trained: what needs no gradient is not saved, and has no gradient made."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from memplan.ops import elementwise  # noqa: E402
from memplan.ops.addmm import addmm  # noqa: E402
from memplan.ops.convolution import conv2d  # noqa: E402
from memplan.ops.linear import linear  # noqa: E402
from memplan.ops.matmul import matmul  # noqa: E402
from memplan.ops.norm import layer_norm, rms_norm  # noqa: E402
from memplan.ops.split import chunk  # noqa: E402
from memplan.ops.tensor import empty  # noqa: E402

from .harness import Input, assert_same_curve  # noqa: E402

PRECISIONS = (("fp32", "fp32", False), ("bf16", "bf16", False), ("fp32", "fp32", True), ("bf16", "fp32", True))
"""Of the input and of the weights, and whether autocast is on."""


def some_trained(number: int) -> list[tuple[bool, ...]]:
    return list(product((True, False), repeat=number))


@pytest.mark.parametrize(("dtype", "weights", "autocast"), PRECISIONS)
@pytest.mark.parametrize("trained", some_trained(3))
@pytest.mark.parametrize("shape", [(2, 7, 24), (9, 24), (1, 24)])
def test_linear(shape: tuple[int, ...], trained: tuple[bool, ...], dtype: str, weights: str, autocast: bool) -> None:
    inputs = [Input(shape, dtype, trained[0]), Input((12, 24), weights, trained[1]), Input((12,), weights, trained[2])]
    assert_same_curve(F.linear, linear, inputs, autocast=autocast)
    assert_same_curve(F.linear, linear, inputs[:2], autocast=autocast)


@pytest.mark.parametrize(("dtype", "weights", "autocast"), PRECISIONS)
@pytest.mark.parametrize("trained", some_trained(3))
def test_addmm(trained: tuple[bool, ...], dtype: str, weights: str, autocast: bool) -> None:
    inputs = [
        Input((12,), weights, trained[0]),
        Input((9, 24), dtype, trained[1]),
        Input((24, 12), weights, trained[2]),
    ]
    assert_same_curve(torch.addmm, addmm, inputs, autocast=autocast)


@pytest.mark.parametrize(("dtype", "weights", "autocast"), PRECISIONS)
@pytest.mark.parametrize("trained", some_trained(3))
def test_layer_norm(trained: tuple[bool, ...], dtype: str, weights: str, autocast: bool) -> None:
    inputs = [Input((2, 7, 24), dtype, trained[0]), *(Input((24,), weights, each) for each in trained[1:])]
    assert_same_curve(lambda x, w, b: torch.layer_norm(x, (24,), w, b), layer_norm, inputs, autocast=autocast)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize(("dtype", "weights", "autocast"), PRECISIONS)
@pytest.mark.parametrize("trained", some_trained(2))
@pytest.mark.parametrize("size", [1, 24])
def test_rms_norm(size: int, trained: tuple[bool, ...], dtype: str, weights: str, autocast: bool) -> None:
    inputs = [Input((2, 7, size), dtype, trained[0]), Input((size,), weights, trained[1])]
    assert_same_curve(lambda x, w: torch.rms_norm(x, (size,), w, 1e-5), rms_norm, inputs, autocast=autocast)


@pytest.mark.parametrize("images", [3, 16])  # of 16 on NNPACK takes them
@pytest.mark.parametrize("trained", some_trained(2))
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_convolution(dtype: str, trained: tuple[bool, ...], images: int) -> None:
    inputs = [Input((images, 3, 8, 8), dtype, False), Input((5, 3, 4, 4), dtype, trained[0])]
    inputs.append(Input((5,), dtype, trained[1]))
    assert_same_curve(lambda x, w, b: F.conv2d(x, w, b, stride=4), conv2d, inputs)


@pytest.mark.parametrize("trained", some_trained(2))
@pytest.mark.parametrize(("real", "ours"), [(torch.mul, elementwise.mul), (torch.matmul, matmul)])
def test_two_operands(real: Callable[..., Any], ours: Callable[..., Any], trained: tuple[bool, ...]) -> None:
    assert_same_curve(real, ours, [Input((3, 5, 5), trained=each) for each in trained])


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(("rows", "chunks"), [(4, 4), (3, 5), (1, 1)])
def test_chunks(rows: int, chunks: int, trained: bool) -> None:
    """The parts as they come, each used once."""

    def real(x: Any) -> Any:
        total = torch.zeros(4)
        for part in x.chunk(chunks):
            total = total + part
        return total

    def ours(x: Any) -> Any:
        total = empty(x.trace, (4,), "fp32", "aten::zeros")
        for part in chunk(x, chunks):
            total = elementwise.add(total, part)
        return total

    assert_same_curve(real, ours, [Input((rows, 4), trained=trained)])
