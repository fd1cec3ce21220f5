"""torch.gather along the last dimension (aten/src/ATen/native/TensorAdvancedIndexing.cpp).

The CPU moves single elements of half precision by way of an fp32 copy of what it writes to
(native/cpu/ScatterGatherKernel.cpp, create_acc_buffer).
"""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty


def gather(tensor: Tensor, index: Tensor) -> Tensor:
    """The elements of each row of `tensor` that `index` names. Saves both (tools/autograd/derivatives.yaml)."""
    node = make_node("GatherBackward0", _gather_backward, tensor)
    if node is not None:
        node.save(index)
        node.save(tensor)
    output = empty(tensor.trace, index.shape, tensor.dtype, "aten::gather")
    _take_buffer(output)
    return attach(output, node)


def _gather_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """gather_backward (torch/csrc/autograd/FunctionsManual.cpp): a zero tensor that the elements are added to."""
    output = empty(gradient.trace, saved[1].shape, gradient.dtype, "aten::new_zeros")
    _take_buffer(output)
    return (output,)


def _take_buffer(output: Tensor) -> None:
    if output.dtype in ("bf16", "fp16") and not output.trace.backend.cuda:
        empty(output.trace, output.shape, "fp32", "aten::empty")
