"""ALiBi: a bias of the scores that grows with the distance, at a slope of each head's own
(models/bloom/modeling_bloom.py, models/falcon/modeling_falcon.py)."""

from __future__ import annotations

from memplan.ops.elementwise import pointwise, subtract, to
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import reshape, unsqueeze


def alibi_slopes(trace: Trace, heads: int) -> Tensor:
    """_get_alibi_slopes: [heads] in fp32, in two parts where `heads` is no power of 2."""
    power_of_2 = 1 << (heads.bit_length() - 1)
    base = empty(trace, (), "fp32", "aten::full")
    powers = empty(trace, (power_of_2,), "int32", "aten::arange")
    slopes = _powers_of(base, powers)
    if power_of_2 != heads:
        extra_base = empty(trace, (), "fp32", "aten::full")
        extra_powers = empty(trace, (heads - power_of_2,), "int32", "aten::arange")
        slopes = _joined(heads, slopes, _powers_of(extra_base, extra_powers))
        del extra_base, extra_powers
    del base, powers
    return slopes


def _powers_of(base: Tensor, exponents: Tensor) -> Tensor:
    """torch.pow(base, exponents): the CPU casts the exponents first."""
    cast = None if base.trace.backend.cuda else empty(base.trace, exponents.shape, "fp32", "aten::to")
    result = empty(base.trace, exponents.shape, "fp32", "aten::pow")
    del cast
    return result


def _joined(heads: int, first: Tensor, second: Tensor) -> Tensor:
    return empty(first.trace, (heads,), "fp32", "aten::cat")


def build_alibi_tensor(attention_mask: Tensor, slopes: Tensor, dtype: str) -> Tensor:
    """[B * heads, 1, S], from the number of real tokens before each. `slopes` [heads]."""
    batch, length = attention_mask.shape
    heads = slopes.shape[0]
    counted = subtract(pointwise("aten::cumsum", (attention_mask,)), 1)
    arange_tensor = unsqueeze(pointwise("aten::mul", (counted, attention_mask)), 1)
    del counted
    alibi = pointwise("aten::mul", (unsqueeze(slopes, -1), arange_tensor))
    return to(reshape(alibi, (product((batch, heads)), 1, length)), dtype)
