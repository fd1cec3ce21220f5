"""One matrix product for each group of rows (torch.nn.functional.grouped_mm; aten/src/ATen/native/GroupedMMUtils.h).

Rows are sorted by group; offsets say where each group ends. The output has a row for each row of the input, whichever
group it is in, so no size depends on data. On the CPU each group's product is written straight into its place.
"""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import view_of
from memplan.units import ITEM_BYTES

OLDEST = (2, 9)
"""The first release with this product on the CPU; the library has its own loop for older ones."""

ROW_BYTES = 16
"""The strides of both operands are multiples of it (check_valid_strides_and_return_transposed)."""


def grouped_linear(x: Tensor, weight: Tensor, offsets: Tensor, is_transposed: bool = False) -> Tensor:
    """x [rows, in] with weight [groups, out, in], or [groups, in, out] where it is transposed already -> [rows, out].

    Saves x, the weight and the offsets. Not touched by autocast. The weight's gradient comes in the layout that the
    weight is stored in (torch/csrc/autograd/FunctionsManual.cpp, _grouped_mm_mat2_backward).
    """
    _check(x, weight)
    outputs = weight.shape[2] if is_transposed else weight.shape[1]
    if not is_transposed:
        weight = view_of(weight, weight.shape, None, make_node("TransposeBackward0", _transposed_backward, weight))
    node = make_node("GroupedMmBackward0", _grouped_backward, x, weight)
    if node is not None:
        node.context = (x.shape, weight.shape)
        node.save(offsets)
        if node.wants(1):
            node.save(x)
        if node.wants(0):
            node.save(weight)
    return attach(empty(x.trace, (x.shape[0], outputs), x.dtype, "aten::_grouped_mm"), node)


def _transposed_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (view_of(gradient, gradient.shape, None),)


def _grouped_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The weight's gradient comes first (`mat2` before `self`)."""
    input_shape, weight_shape = node.context
    to_weight: Tensor | None = None
    to_input: Tensor | None = None
    if node.wants(1):
        to_weight = empty(gradient.trace, weight_shape, gradient.dtype, "aten::_grouped_mm")
    if node.wants(0):
        to_input = empty(gradient.trace, input_shape, gradient.dtype, "aten::_grouped_mm")
    return (to_input, to_weight)


def _check(x: Tensor, weight: Tensor) -> None:
    backend = x.trace.backend
    if backend.cuda:
        raise NotModelledError("a mixture of experts on CUDA is not modelled")
    if backend.torch < OLDEST:
        raise NotModelledError("a mixture of experts is modelled for PyTorch 2.9 and newer")
    if any(width * ITEM_BYTES[x.dtype] % ROW_BYTES for width in weight.shape[1:]):
        raise NotModelledError(
            f"PyTorch's grouped product takes rows of a multiple of {ROW_BYTES} bytes: "
            f"{weight.shape[1]} and {weight.shape[2]} elements of {x.dtype} are not"
        )
