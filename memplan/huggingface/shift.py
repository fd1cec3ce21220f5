"""The decoder's input, made of the labels (T5PreTrainedModel._shift_right, shift_tokens_right of Bart and its like)."""

from __future__ import annotations

from memplan.ops.elementwise import number, pointwise, subtract
from memplan.ops.tensor import Tensor, empty


def shift_tokens_right(labels: Tensor) -> Tensor:
    """A copy of [B, T] that begins with a start token; labels that are ignored become padding."""
    trace, (batch, length) = labels.trace, labels.shape
    shifted = empty(trace, labels.shape, "int64", "aten::new_zeros")
    empty(trace, (batch, length - 1), "int64", "aten::clone")
    number(shifted, 0)  # the start token
    pointwise("aten::eq", (shifted, number(shifted, 0)), "bool")
    return shifted


def wrap_last_token(labels: Tensor) -> Tensor:
    """MBart's: a copy of [B, T] that begins with each row's last token, which names the language."""
    trace, (batch, length) = labels.trace, labels.shape
    tokens = empty(trace, labels.shape, "int64", "aten::clone")
    pointwise("aten::eq", (tokens, number(tokens, 0)), "bool")
    index = subtract(_count(pointwise("aten::ne", (tokens, number(tokens, 0)), "bool")), 1)
    first = empty(trace, (batch, 1), "int64", "aten::gather")
    empty(trace, (batch, length - 1), "int64", "aten::clone")
    del index, first
    return tokens


def _count(real: Tensor) -> Tensor:
    """real.sum(dim=1) of [B, T]: the CPU casts what it sums."""
    counted = empty(real.trace, real.shape[:1], "int64", "aten::sum")
    if not real.trace.backend.cuda:
        empty(real.trace, real.shape, "int64", "aten::to")
    return counted
