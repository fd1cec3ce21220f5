"""torch.nn.functional.conv2d where patches do not overlap (aten/src/ATen/native/Convolution.cpp), on the CPU.

With oneDNN switched off patches are written out as columns and multiplied (native/ConvolutionMM2d.cpp). Large batches
in fp32 go to NNPACK, whose memory is not PyTorch's (native/NNPACK.cpp); their gradient is that of the dilated
convolution, one image at a time (native/NaiveDilatedConvolution.cpp).
"""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops import layout
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.linear import cached_cast
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import contiguous

_NNPACK_BATCH, _NNPACK_KERNEL = 16, 17


def conv2d(pixels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """pixels [batch, channels, height, width] with weight [out, channels, kernel, kernel], moved by its own size ->
    [batch, out, rows, columns]. Saves both; pixels are not trained."""
    trace = pixels.trace
    if trace.backend.cuda:
        raise NotModelledError("convolutions on CUDA are not modelled")
    dtype = trace.autocast_dtype
    if dtype is not None:
        bias, weight = cached_cast(bias, dtype), cached_cast(weight, dtype)
        pixels = to(pixels, dtype)
    node = make_node("ConvolutionBackward0", _conv2d_backward, pixels, weight, bias)
    if node is not None:
        node.save(pixels)
        node.save(weight)
    kernel = weight.shape[2]
    shape = (pixels.shape[0], weight.shape[0], pixels.shape[2] // kernel, pixels.shape[3] // kernel)
    columns = None if _goes_to_nnpack(pixels, weight) else _columns(pixels, weight, shape)
    output = empty(trace, shape, pixels.dtype, "aten::convolution")
    del columns
    return attach(output, node)


def _goes_to_nnpack(pixels: Tensor, weight: Tensor) -> bool:
    """ConvParams::use_nnpack."""
    return pixels.dtype == "fp32" and pixels.shape[0] >= _NNPACK_BATCH and weight.shape[2] < _NNPACK_KERNEL


def _columns(pixels: Tensor, weight: Tensor, output: layout.Shape) -> Tensor | None:
    """Every patch in a column; patches of one pixel are read as they lie."""
    _, channels, height, width = weight.shape
    if height == width == 1:
        return None
    shape = (output[0], channels * height * width, output[2] * output[3])
    return empty(pixels.trace, shape, pixels.dtype, "columns of a convolution")


def _conv2d_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """Gradients of bias and weight, in this order."""
    pixels, weight = saved
    if _goes_to_nnpack(pixels, weight):
        return _one_by_one(node, gradient, weight)
    trace = gradient.trace
    to_bias = _bias_gradient(gradient) if node.wants(2) else None
    to_weight: Tensor | None = None
    if node.wants(1):
        to_weight = empty(trace, weight.shape, gradient.dtype, "aten::convolution_backward")
        ordered = contiguous(gradient)
        _columns(pixels, weight, gradient.shape)
        del ordered
    return (None, to_weight, to_bias)


def _bias_gradient(gradient: Tensor) -> Tensor:
    trace, outputs = gradient.trace, gradient.shape[1]
    to_bias = empty(trace, (outputs,), gradient.dtype, "aten::sum")
    if (
        gradient.dtype != "fp32"
        and layout.reduced_runs(gradient.shape, gradient.full_strides(), (1, outputs, 1, 1)) > 1
    ):
        wide = empty(trace, (outputs,), "fp32", "aten::to")  # should_use_acc_buffer in ReduceOps.cpp
        empty(trace, gradient.shape, "fp32", "aten::to")
        del wide
    return to_bias


def _one_by_one(node: Node, gradient: Tensor, weight: Tensor) -> Gradients:
    """slow_conv_dilated_all_cpu_template: columns of one image; its share of the bias's gradient is summed apart."""
    trace, outputs, operation = gradient.trace, gradient.shape[1], "aten::convolution_backward"
    ordered = contiguous(gradient)
    to_weight = empty(trace, weight.shape, gradient.dtype, operation) if node.wants(1) else None
    to_bias = empty(trace, (outputs,), gradient.dtype, operation) if node.wants(2) else None
    columns: Tensor | None = None
    if to_weight is not None:
        pixels_of_patch = weight.shape[1] * weight.shape[2] * weight.shape[3]
        columns = empty(trace, (pixels_of_patch, gradient.shape[2], gradient.shape[3]), gradient.dtype, operation)
    if to_bias is not None:
        for _ in range(gradient.shape[0]):
            empty(trace, (outputs,), gradient.dtype, "aten::sum")
    del columns, ordered
    return (None, to_weight, to_bias)
