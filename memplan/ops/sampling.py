"""The next token by its logits: torch.argmax and torch.multinomial, outside the graph."""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops.elementwise import function, number, pointwise
from memplan.ops.reduction import take_buffers
from memplan.ops.tensor import Tensor, empty

_PAIR = 16
"""Bytes of a value and its place, which CUDA's kernel adds up (aten/src/ATen/native/cuda/ReduceArgMaxKernel.cu)."""


def argmax(x: Tensor) -> Tensor:
    """x.argmax(-1, keepdim=True) (aten/src/ATen/native/ReduceOps.cpp)."""
    output = empty(x.trace, (*x.shape[:-1], 1), "int64", "aten::argmax")
    if x.trace.backend.cuda:
        axis = len(x.shape) - 1
        take_buffers(x.trace, x.shape, x.full_strides(), (axis,), x.dtype, x.dtype, accumulator=_PAIR)
    return output


def multinomial(shares: Tensor) -> Tensor:
    """torch.multinomial(shares [B, n], 1): [B, 1]. What is drawn is the largest of the shares over exponential noise
    (aten/src/ATen/native/Distributions.cpp); before that the shares are checked."""
    trace = shares.trace
    if trace.backend.cuda:
        raise NotModelledError("sampling: sampled is not modelled on a card", "use --sampling greedy")
    output = empty(trace, (shares.shape[0], 1), "int64", "aten::multinomial")
    together = trace.backend.torch >= (2, 12)  # both are found before either is looked at
    least = empty(trace, (), shares.dtype, "aten::aminmax" if together else "aten::min")
    largest = empty(trace, (), shares.dtype, "aten::aminmax") if together else None
    above = pointwise("aten::ge", (least, number(least, 0.0)), "bool")
    if largest is None:
        largest = empty(trace, (), shares.dtype, "aten::max")
    below = pointwise("aten::lt", (largest, number(largest, 0.0)), "bool")
    valid = pointwise("aten::bitwise_and", (above, below))
    held = (least, largest) if together else None
    del below, largest, above, least
    sums = empty(trace, (shares.shape[0],), shares.dtype, "aten::sum")
    zeros = pointwise("aten::eq", (sums, number(sums, 0)), "bool")
    some = empty(trace, (), "bool", "aten::any")
    del zeros, sums
    sound = function("aten::bitwise_not", some)
    del some
    noise = empty(trace, shares.shape, shares.dtype, "aten::exponential_")
    del noise, sound, valid, held
    return output
