"""Convolutions with oneDNN switched off: columns are written out and multiplied, group after group, and the groups are
put together at the end (aten/src/ATen/native/ConvolutionMM2d.cpp, Convolution.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import HALF, Call, Script, Temporary
from memplan.ops.layout import reduced_runs

Shape = tuple[int, ...]


def convolution(call: Call) -> Script | None:
    """Columns of the input, [batch, channels * kernel, pixels], beside the output."""
    if not _is_plain(call):
        return None
    source, weight, script = call.tensor("input"), call.tensor("weight"), call.script()
    groups: int = call["groups"]
    layout = _layout(source, weight)
    _ordered(script, source, layout)
    if groups == 1:
        _ordered(script, weight, layout)
        columns = _columns(script, call, tuple(call.output.shape))
        script.outputs(0)
        script.free(columns)
        return script
    parts = []
    part_shape = _part(call.output, groups)
    for _ in range(groups):
        mine = _slice(script, source, groups)
        columns = _columns(script, call, part_shape)
        parts.append(script.take(part_shape, source.dtype))
        script.free(columns, mine)
    script.outputs(0)
    script.free(*parts)
    return script


def convolution_backward(call: Call) -> Script | None:
    """Gradients of input, bias and weight, in this order; columns again for the weight's."""
    if not _is_plain(call):
        return None
    source, weight, gradient = call.tensor("input"), call.tensor("weight"), call.tensor("grad_output")
    script, groups = call.script(), call["groups"]
    layout = _layout(source, weight)
    _ordered(script, source, layout)
    if groups == 1:
        _ordered(script, weight, layout)
        if call.outputs[0] is not None:
            copied = _ordered(script, gradient, layout)
            script.outputs(0)
            script.free(copied)
        if call.outputs[2] is not None:
            script.outputs(2)
            _sum(script, tuple(gradient.shape), gradient.stride(), gradient.dtype)
        if call.outputs[1] is not None:
            script.outputs(1)
            _ordered(script, gradient, layout)
            _columns(script, call, tuple(gradient.shape))
        return script
    parts: list[list[Temporary]] = [[], [], []]
    shape = _part(gradient, groups)
    for _ in range(groups):
        mine = _slice(script, gradient, groups), _slice(script, source, groups)
        if call.outputs[0] is not None:
            parts[0].append(script.take(_part(source, groups), source.dtype))
        if call.outputs[2] is not None:
            parts[2].append(script.take((shape[1],), gradient.dtype))
            _sum(script, shape, torch.empty(shape, device="meta").stride(), gradient.dtype)
        if call.outputs[1] is not None:
            parts[1].append(script.take((shape[1], *weight.shape[1:]), weight.dtype))
            script.free(_columns(script, call, shape))
        script.free(*mine)
    script.outputs(*(number for number in range(3) if call.outputs[number] is not None))
    for each in (parts[2], parts[1], parts[0]):
        script.free(*each)
    return script


def _is_plain(call: Call) -> bool:
    """Neither transposed, dilated, nor over three dimensions: those have kernels of their own."""
    return (
        not call["transposed"]
        and call.tensor("input").dim() in (3, 4)
        and all(each == 1 for each in call["dilation"])
        and call.tensor("input").dtype in (torch.float32, torch.float64, *HALF)
    )


def _layout(source: torch.Tensor, weight: torch.Tensor) -> torch.memory_format:
    """Channels last where input or weight is (thnn_conv_use_channels_last)."""
    for each in (source, weight):
        if each.dim() == 4 and each.is_contiguous(memory_format=torch.channels_last) and not each.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format


def _ordered(script: Script, tensor: torch.Tensor, layout: torch.memory_format) -> Temporary | None:
    """A copy of what does not lie in the order `layout`."""
    if tensor.is_contiguous(memory_format=layout):
        return None
    return script.take(tuple(tensor.shape), tensor.dtype, "aten::clone")


def _slice(script: Script, tensor: torch.Tensor, groups: int) -> Temporary | None:
    """The channels of one group, copied where they do not lie together."""
    shape = _part(tensor, groups)
    together = tensor.is_contiguous() and shape[0] == 1
    return None if together else script.take(shape, tensor.dtype, "aten::clone")


def _part(tensor: torch.Tensor, groups: int) -> Shape:
    """The shape of one group's channels."""
    return (tensor.shape[0], tensor.shape[1] // groups, *tensor.shape[2:])


def _columns(script: Script, call: Call, output: Shape) -> Temporary | None:
    """Every pixel's inputs in a column; a kernel of one pixel reads the input itself."""
    source, weight = call.tensor("input"), call.tensor("weight")
    kernel, pixels = 1, 1
    for length in weight.shape[2:]:
        kernel *= length
    for length in output[2:]:
        pixels *= length
    if kernel == 1 and all(each == 1 for each in call["stride"]) and not any(call["padding"]):
        return None
    return script.take((source.shape[0], weight.shape[1] * kernel, pixels), source.dtype, "columns of a convolution")


def _sum(script: Script, shape: Shape, strides: Shape, dtype: torch.dtype) -> None:
    """The bias's gradient in half precision is summed in fp32 (should_use_acc_buffer in ReduceOps.cpp)."""
    target = (1, shape[1], *(1 for _ in shape[2:]))
    if dtype in HALF and reduced_runs(shape, tuple(strides), target) > 1:
        wide = script.take((shape[1],), torch.float32, "aten::to")
        script.free(script.take(shape, torch.float32, "aten::to"), wide)


RULES = {"aten::convolution": convolution, "aten::convolution_backward": convolution_backward}
