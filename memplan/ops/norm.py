"""LayerNorm and RMSNorm."""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops import norm_cuda
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import in_place, mean, mul, rsqrt, square, to
from memplan.ops.tensor import Tensor, empty


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., hidden] normalised over its last dimension. CUDA's autocast casts its arguments to fp32.

    Saves x, weight and bias, and mean and reciprocal deviation per row. On the CPU these two have the weight's dtype:
    the input's, or fp32 under an input of half precision (aten/src/ATen/native/layer_norm.cpp, layer_norm_cpu).
    """
    if x.trace.backend.cuda:
        if bias is None:
            raise NotModelledError("LayerNorm without a bias is not modelled on CUDA")
        if x.trace.autocast_dtype is not None:
            bias, weight, x = to(bias, "fp32"), to(weight, "fp32"), to(x, "fp32")
        return norm_cuda.layer_norm(x, weight, bias)
    node = make_node("NativeLayerNormBackward0", _layer_norm_backward, x, weight, bias)
    if node is not None:
        if bias is not None:
            node.save(bias)
        node.save(x)
        node.save(weight)
    output = empty(x.trace, x.shape, x.dtype, "aten::native_layer_norm")
    rows = (*x.shape[:-1], 1)
    average = empty(x.trace, rows, weight.dtype, "aten::native_layer_norm")
    deviation = empty(x.trace, rows, weight.dtype, "aten::native_layer_norm")
    if node is not None:
        node.save(average)
        node.save(deviation)
    return attach(output, node)


def _layer_norm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The CPU kernel sums the weight's and bias's gradients in one row per thread (cpu/layer_norm_kernel.cpp)."""
    x, weight = saved[-4], saved[-3]
    trace, operation = x.trace, "aten::native_layer_norm_backward"
    to_input = empty(trace, x.shape, x.dtype, operation) if node.wants(0) else None
    to_weight = empty(trace, weight.shape, weight.dtype, operation) if node.wants(1) else None
    to_bias = empty(trace, weight.shape, weight.dtype, operation) if node.wants(2) else None
    if to_weight is not None or to_bias is not None:
        empty(trace, (2, trace.backend.threads, x.shape[-1]), x.dtype, operation)
    return (to_input, to_weight, to_bias)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (aten/src/ATen/native/layer_norm.cpp, rms_norm): one kernel on CUDA since
    PyTorch 2.9 where x and weight share a dtype, which CUDA's autocast sees to since 2.12; else composed.

    Half-precision inputs are computed in fp32 and cast back at the end (before the weight in torch 2.6). Since PyTorch
    2.9 the reciprocal root mean square is there until then: it is returned as well (rms_norm_composite).
    """
    backend = x.trace.backend
    if backend.cuda:
        if x.trace.autocast_dtype is not None and backend.torch >= (2, 12):
            weight, x = to(weight, "fp32"), to(x, "fp32")
        if backend.torch >= (2, 9) and weight.dtype == x.dtype:
            return norm_cuda.rms_norm(x, weight)
    if backend.scales_after_cast:
        upcast = to(x, "fp32")
        normalized, deviation = _normalized(upcast)
        normalized = to(normalized, x.dtype)
        output = mul(normalized, weight)
        del deviation  # a local of PyTorch's function, like `upcast`: both live until it returns
        return output
    if backend.torch >= (2, 9):
        output, deviation = _composed(to(x, "fp32"), weight)
        output = to(output, x.dtype)
        del deviation
        return output
    if weight.dtype == x.dtype:  # a function of its own, whose locals are gone before the cast
        return to(_composed(to(x, "fp32"), weight)[0], x.dtype)
    upcast = to(x, "fp32")
    return to(_composed(upcast, weight)[0], x.dtype)


def _composed(upcast: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    normalized, deviation = _normalized(upcast)
    return mul(normalized, weight), deviation


def _normalized(upcast: Tensor) -> tuple[Tensor, Tensor]:
    """The input times its reciprocal root mean square, and the latter, [..., 1]."""
    squared = square(upcast)
    variance = mean(squared, -1, keepdim=True)
    in_place(variance, 1e-5)
    deviation = rsqrt(variance)
    del variance, squared
    return mul(upcast, deviation), deviation
