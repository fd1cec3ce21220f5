"""Sums, means and their like (aten/src/ATen/native/ReduceOps.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import HALF, Call, Script, Temporary
from memplan.measure.tracing.rules.plain import outputs_alone
from memplan.ops.layout import reduced_runs


def total(call: Call) -> Script:
    """A sum. An input of another dtype than the output's is cast whole (make_reduction_from_out_ty); half precision
    over dimensions that do not lie together is summed in fp32 (should_use_acc_buffer)."""
    source = call.tensor("self")
    script = call.script()
    script.outputs(0)
    if source.dtype != call.output.dtype:
        script.cast(source, call.output.dtype)
    elif source.dtype in HALF and _runs(call) > 1:
        script.cast(call.output, torch.float32)
        script.cast(source, torch.float32)
    return script


def mean(call: Call) -> Script:
    """A sum that is divided in place."""
    script = call.script()
    script.outputs(0)
    averaged(script, call.tensor("self"), call.output)
    return script


def averaged(script: Script, source: torch.Tensor | Temporary, output: torch.Tensor) -> None:
    """What a mean takes beside its output: half precision is summed in fp32 (mean_kernel's sum_out)."""
    summed = output.dtype
    if source.dtype in HALF:
        summed = torch.float32
        script.take(tuple(output.shape), summed, "aten::to")
        script.free(script.take(tuple(source.shape), summed, "aten::to"))
    script.number(torch.int64, summed)


def cumulative(call: Call) -> Script:
    """Running sums and products; an input of another dtype is cast whole."""
    script = call.script()
    script.outputs(0)
    if call.tensor("self").dtype != call.output.dtype:
        script.cast(call.tensor("self"), call.output.dtype)
    return script


def _runs(call: Call) -> int:
    """How many separate runs of dimensions are summed."""
    source = call.tensor("self")
    axes = call.arguments.get("dim")
    if not axes and axes != 0:
        axes = range(source.dim())
    axes = [axes] if isinstance(axes, int) else axes
    summed = {axis % max(source.dim(), 1) for axis in axes}
    target = tuple(1 if axis in summed else length for axis, length in enumerate(source.shape))
    return reduced_runs(tuple(source.shape), tuple(source.stride()), target)


def extremum(call: Call) -> Script | None:
    """The largest or smallest along a dimension. Of all elements only without a gradient: its backward pass takes
    another way for fake tensors (evenly_distribute_backward in FunctionsManual.cpp)."""
    whole = call.overload == "" and torch.is_grad_enabled() and call.tensor("self").requires_grad
    return None if whole else call.script()


def sort(call: Call) -> Script | None:
    """Along the last dimension, with the numbers of its elements (aten/src/ATen/native/Sorting.cpp)."""
    source, dim = call.tensor("self"), call["dim"]
    if dim % max(source.dim(), 1) != source.dim() - 1:
        return None
    script = call.script()
    script.outputs(0, 1)
    script.take((source.shape[-1],), torch.int64, "aten::arange")
    return script


RULES = {
    "aten::max": extremum,
    "aten::min": extremum,
    "aten::sort": sort,
    "aten::sum": total,
    "aten::mean": mean,
    "aten::cumsum": cumulative,
    **{f"aten::{name}": outputs_alone for name in ("amax", "amin", "argmax", "argmin", "any", "all")},
}
