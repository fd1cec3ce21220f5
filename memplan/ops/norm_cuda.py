"""LayerNorm and RMSNorm on CUDA (aten/src/ATen/native/cuda/layer_norm_kernel.cu).

The weight's gradient is a sum over rows. From PyTorch 2.8 on (LaunchGammaBetaBackwardCUDAKernel) many short rows are
summed in blocks first, which takes buffers; older kernels take none.
"""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.reduction import take_buffers
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import contiguous

_MANY_ROWS = 64 * 1024
_MOST_BLOCKS = 32 * 1024


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., hidden]. Saves x, weight, bias, and mean and reciprocal deviation per row, always in fp32."""
    node = make_node("NativeLayerNormBackward0", _layer_norm_backward, x, weight, bias)
    if node is not None:
        node.save(bias)
        node.save(x)
        node.save(weight)
    rows = contiguous(x.alias())
    output = empty(x.trace, x.shape, x.dtype, "aten::native_layer_norm")
    average = empty(x.trace, (*x.shape[:-1], 1), "fp32", "aten::native_layer_norm")
    deviation = empty(x.trace, (*x.shape[:-1], 1), "fp32", "aten::native_layer_norm")
    del rows
    if node is not None:
        node.save(average)
        node.save(deviation)
    return attach(output, node)


def _layer_norm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    bias, x, weight = saved[0], saved[1], saved[2]
    trace, operation = x.trace, "aten::native_layer_norm_backward"
    to_input = empty(trace, x.shape, x.dtype, operation) if node.wants(0) else None
    to_weight = empty(trace, weight.shape, weight.dtype, operation) if node.wants(1) else None
    to_bias = empty(trace, bias.shape, bias.dtype, operation) if node.wants(2) else None
    gradient = contiguous(gradient)
    blocks = _blocks(trace, x)
    if blocks:
        shape = (blocks, weight.shape[0])
        for_weight = None if to_weight is None else empty(trace, shape, weight.dtype, operation)
        for_bias = None if to_bias is None else empty(trace, shape, weight.dtype, operation)
        to_weight = None if for_weight is None else _summed(for_weight)
        to_bias = None if for_bias is None else _summed(for_bias)
        del for_weight, for_bias
    return (to_input, to_weight, to_bias)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., hidden], in one kernel (PyTorch 2.9 and newer, where x and weight share a dtype). Saves x, weight and the
    reciprocal root mean square of each row in fp32."""
    node = make_node("FusedRmsNormBackward0", _rms_norm_backward, x, weight)
    if node is not None:
        node.save(x)
        node.save(weight)
    rows = contiguous(x.alias())
    output = empty(x.trace, x.shape, x.dtype, "aten::_fused_rms_norm")
    deviation = empty(x.trace, (*x.shape[:-1], 1), "fp32", "aten::_fused_rms_norm")
    del rows
    if node is not None:
        node.save(deviation)
    return attach(output, node)


def _rms_norm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    x, weight = saved[0], saved[1]
    operation = "aten::_fused_rms_norm_backward"
    to_input = empty(x.trace, x.shape, x.dtype, operation) if node.wants(0) else None
    to_weight = empty(x.trace, weight.shape, weight.dtype, operation) if node.wants(1) else None
    gradient = contiguous(gradient)
    blocks = _blocks(x.trace, x)
    if blocks and to_weight is not None:
        for_weight = empty(x.trace, (blocks, weight.shape[0]), weight.dtype, operation)
        to_weight = _summed(for_weight)
        del for_weight
    return (to_input, to_weight)


def _blocks(trace: Trace, x: Tensor) -> int:
    """Rows of the block sums' buffer, 0 where the kernel needs none."""
    rows, columns = product(x.shape[:-1]), x.shape[-1]
    many = rows > _MANY_ROWS and columns // 32 < trace.backend.multiprocessors // 2
    if not many or trace.backend.torch < (2, 8):
        return 0
    return min(_MOST_BLOCKS // -(-columns // 32), -(-rows // 32))


def _summed(blocks: Tensor) -> Tensor:
    """blocks [n, columns] -> [columns]."""
    trace = blocks.trace
    total = empty(trace, (blocks.shape[1],), blocks.dtype, "aten::sum")
    take_buffers(trace, blocks.shape, blocks.full_strides(), (0,), blocks.dtype, blocks.dtype)
    return total
