"""Normalisation (aten/src/ATen/native/layer_norm.cpp)."""

from __future__ import annotations

import torch
from torch._prims_common import suggest_memory_format

from memplan.measure.tracing.call import HALF, Call, Script


def layer_norm(call: Call) -> Script:
    """The input is read in order, and copied where it does not lie so."""
    script = call.script()
    script.contiguous(call.tensor("input"))
    _means(call, script)
    return script


def group_norm(call: Call) -> Script:
    """Means and deviations as those of layer_norm. Since 2.14 the kernel itself lays its input out in order. Images in
    rows (channels last) take a scale and a shift for each channel of each image (cpu/group_norm_kernel.cpp)."""
    source, script = call.tensor("input"), call.script()
    _means(call, script)
    script.outputs(0, 1, 2)
    form = suggest_memory_format(source)
    if not source.is_contiguous(memory_format=form):
        script.take(tuple(source.shape), source.dtype, "aten::clone")
    if form != torch.contiguous_format:
        script.take((call["N"], 2 * call["C"]), torch.float32 if source.dtype in HALF else source.dtype)
    return script


def group_norm_backward(call: Call) -> Script:
    """Two sums for each channel of each image (cpu/group_norm_kernel.cpp). Since 2.14 the kernel itself lays gradient
    and input out in order; before, those are operations of their own (tools/autograd/derivatives.yaml)."""
    source, script = call.tensor("input"), call.script()
    form = suggest_memory_format(source)
    for tensor in (call.tensor("grad_out"), source):
        if not tensor.is_contiguous(memory_format=form):
            script.take(tuple(tensor.shape), tensor.dtype, "aten::clone")
    script.outputs(0, 1, 2)
    for _ in range(2):
        script.take((call["N"], call["C"]), torch.float32 if source.dtype in HALF else source.dtype)
    return script


def layer_norm_backward(call: Call) -> Script:
    """The weight's and bias's gradients are summed in a row per thread (cpu/layer_norm_kernel.cpp)."""
    source = call.tensor("input")
    script = call.script()
    script.contiguous(source)
    script.outputs(0, 1, 2)
    script.contiguous(call.tensor("grad_out"))
    if call.outputs[1] is not None or call.outputs[2] is not None:
        width = 1
        for length in call["normalized_shape"]:
            width *= length
        script.take((2, call.threads, width), source.dtype)
    return script


def batch_norm(call: Call) -> Script | None:
    """In training: sums and sums of squares, then a scale and a shift for each channel (native/Normalization.cpp)."""
    source, script = call.tensor("input"), call.script()
    if not call["training"] or not source.is_contiguous():
        return None
    channels = (source.shape[1],)
    narrow = _means(call, script)
    script.outputs(0, 1, 2)
    script.free(script.take(channels, narrow), script.take(channels, narrow))
    for _ in range(2):
        script.take(channels, torch.float32)
    return script


def batch_norm_backward(call: Call) -> Script | None:
    """In training: another gradient of the input, or sums for each channel where the gradient does not lie in order."""
    source, script = call.tensor("input"), call.script()
    if not call["train"] or not source.is_contiguous():
        return None
    script.outputs(0, 1, 2)
    ordered = call.tensor("grad_out").is_contiguous()
    if source.dtype in HALF and not ordered:
        return None
    if ordered:
        script.take(tuple(source.shape), source.dtype)
    else:
        script.take((source.shape[1],), torch.float32)
    return script


def _means(call: Call, script: Script) -> torch.dtype:
    """Outputs 1 and 2, means and deviations, in the dtype of the weight, else of the input (param_scalar_type)."""
    weight = call["weight"]
    wide: torch.dtype = call.tensor("input").dtype if weight is None else weight.dtype
    for number in (1, 2):
        rows = call.outputs[number]
        assert rows is not None
        script.sizes[number] = rows.numel() * wide.itemsize
    return wide


RULES = {
    "aten::native_batch_norm": batch_norm,
    "aten::native_batch_norm_backward": batch_norm_backward,
    "aten::native_group_norm": group_norm,
    "aten::native_group_norm_backward": group_norm_backward,
    "aten::native_layer_norm": layer_norm,
    "aten::native_layer_norm_backward": layer_norm_backward,
}
