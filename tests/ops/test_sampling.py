"""Choosing tokens: the same bytes as PyTorch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from memplan.ops.activation import softmax  # noqa: E402
from memplan.ops.sampling import argmax, multinomial  # noqa: E402
from memplan.ops.views import select  # noqa: E402

from .harness import Input, assert_same_curve, real_curve, sizes_only_curve  # noqa: E402


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 311), (2, 5)])
def test_argmax(dtype: str, shape: tuple[int, int]) -> None:
    inputs = [Input(shape, dtype, trained=False)]
    assert sizes_only_curve(argmax, inputs, 2) == real_curve(lambda x: x.argmax(dim=-1, keepdim=True), inputs, 2)


@pytest.mark.parametrize("shape", [(1, 7), (3, 311)])
def test_multinomial(shape: tuple[int, int]) -> None:
    """Of probabilities in fp32, as the softmax over logits gives them."""
    inputs = [Input(shape, "fp32", trained=False)]
    expected = real_curve(lambda x: torch.multinomial(torch.softmax(x, -1), num_samples=1), inputs, 2)
    assert sizes_only_curve(lambda x: multinomial(softmax(x)), inputs, 2) == expected


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("trained", [False, True])
def test_softmax_of_a_view(dtype: str, trained: bool) -> None:
    """What does not lie row by row is copied."""
    inputs = [Input((2, 5, 311), dtype, trained=trained)]
    assert_same_curve(
        lambda x: torch.softmax(x[:, -1], -1, dtype=torch.float32), lambda x: softmax(select(x, 1), "fp32"), inputs
    )
