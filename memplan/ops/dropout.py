"""Dropout (aten/src/ATen/native/Dropout.cpp)."""

from __future__ import annotations

from memplan.ops.elementwise import in_place, mul
from memplan.ops.tensor import Tensor, empty


def dropout(x: Tensor, probability: float) -> Tensor:
    """Dropout in training, shaped as x; with probability 0 the input itself comes back.

    The CPU draws a noise tensor in the input's dtype and multiplies by it, so the noise is saved.
    """
    if probability == 0.0:
        return x
    noise = empty(x.trace, x.shape, x.dtype, "aten::dropout")
    if x.trace.backend.draws_integer_noise:
        empty(x.trace, x.shape, "int32", "aten::bernoulli_")
    in_place(noise, 1.0 - probability)
    return mul(x, noise)
