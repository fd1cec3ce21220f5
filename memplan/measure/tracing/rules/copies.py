"""Copies (aten/src/ATen/native/Copy.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script
from memplan.ops.backend import release


def copy_(call: Call) -> Script:
    """Into memory that is there."""
    return _copied(call, call.tensor("src"), call.tensor("self"))


def clone(call: Call) -> Script:
    """Into fresh memory."""
    return _copied(call, call.tensor("self"), call.output)


def _copied(call: Call, source: torch.Tensor, target: torch.Tensor) -> Script:
    """A transposed matrix goes by way of a block of 60 x 60 (copy_transpose_valid), 120 x 120 of single bytes."""
    script = call.script()
    script.outputs(0)
    if (
        target.is_contiguous()
        and source.dim() == 2
        and source.numel() >= 60 * 60
        and source.stride(0) == 1
        and source.stride(1) == source.shape[0]
        and source.dtype == target.dtype
        and source.shape == target.shape
    ):
        side = 120 if source.element_size() == 1 else 60
        script.take((side, side), source.dtype, "aten::copy_")
    return script


def repeat(call: Call) -> Script:
    """The order of dimensions that a view of the output is put in, as tensors of numbers (TensorShape.cpp, repeat);
    since 2.10."""
    script = call.script()
    script.outputs(0)
    if release(torch.__version__) < (2, 10):
        return script
    rank = len(call["repeats"])
    script.take((rank,), torch.int64, "aten::arange")
    numbers = script.number(torch.int64, torch.int64)
    script.take((rank,), torch.int64, "aten::add")
    script.free(*numbers)
    script.take((2 * rank,), torch.int64, "aten::cat")
    return script


RULES = {"aten::repeat": repeat, "aten::copy_": copy_, "aten::clone": clone}
