"""The distances between tokens that DeBERTa looks up (models/deberta_v2/modeling_deberta_v2.py)."""

from __future__ import annotations

from memplan.ops.elementwise import add, arange, div, function, mul, number, pointwise, subtract, to
from memplan.ops.tensor import Storage, Tensor, empty
from memplan.ops.views import unsqueeze, view_of
from memplan.ops.where import choose


def host_scalar(like: Tensor, dtype: str) -> Tensor:
    """torch.tensor(number), which lies in host memory, also where `like` is on a GPU."""
    trace = like.trace
    return Tensor(Storage(trace, None if trace.backend.cuda else trace.allocate((), dtype, "aten::empty")), (), dtype)


def host_function(operation: str, *operands: Tensor) -> Tensor:
    """A pointwise operation on such numbers."""
    first = operands[0]
    if first.trace.backend.cuda:
        return Tensor(Storage(first.trace, None), (), first.dtype)
    return pointwise(operation, operands)


def build_relative_position(layer: Tensor, buckets: bool) -> Tensor:
    """build_relative_position: [1, S, S] of 64-bit integers, the queries and the keys being those of one `layer`."""
    length = layer.shape[-2]
    q_ids = arange(layer, length)
    k_ids = arange(layer, length)
    rel_pos_ids = subtract(unsqueeze(q_ids, 1), unsqueeze(k_ids, 0))
    if buckets:
        rel_pos_ids = make_log_bucket_position(rel_pos_ids)
    rel_pos_ids = to(rel_pos_ids, "int64")
    rel_pos_ids = view_of(rel_pos_ids, rel_pos_ids.shape, None)
    return unsqueeze(rel_pos_ids, 0)


def make_log_bucket_position(relative_pos: Tensor) -> Tensor:
    """make_log_bucket_position: fp32 numbers of [S, S]."""
    sign = function("aten::sign", relative_pos)
    near = pointwise("aten::bitwise_and", (_compared("aten::lt", relative_pos), _compared("aten::gt", relative_pos)))
    within = empty(relative_pos.trace, (), "int64", "aten::empty")
    abs_pos = choose(near, relative_pos, function("aten::abs", relative_pos))
    del near, within
    log_pos = function("aten::log", _divided(abs_pos))
    log_pos = div(log_pos, _logarithm(log_pos))
    log_pos = mul(log_pos, 1)
    log_pos = function("aten::ceil", log_pos)
    log_pos = add(log_pos, 1)
    return choose(_compared("aten::le", abs_pos), to(relative_pos, "fp32"), mul(log_pos, sign))


def _compared(operation: str, tensor: Tensor) -> Tensor:
    return pointwise(operation, (tensor, number(tensor, 0)), "bool")


def _divided(whole: Tensor) -> Tensor:
    """Whole numbers divided by one: the CPU casts both to fp32 first."""
    trace = whole.trace
    divisor = number(whole, 1)
    casts = []
    if not trace.backend.cuda:
        casts = [empty(trace, each.shape, "fp32", "aten::to") for each in (whole, divisor)]
    quotient = empty(trace, whole.shape, "fp32", "aten::div")
    del casts
    return quotient


def _logarithm(like: Tensor) -> Tensor:
    return host_function("aten::log", host_scalar(like, "fp32"))
