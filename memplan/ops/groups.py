"""What a router needs that chooses experts by group: the values at some places, and a mask of the groups."""

from __future__ import annotations

from memplan.ops.autograd import attach, make_node
from memplan.ops.elementwise import pointwise, to
from memplan.ops.routing import selection_backward
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import expand, reshape, unsqueeze


def gather(x: Tensor, places: Tensor) -> Tensor:
    """The elements of x at `places` along the last dimension (aten/src/ATen/native/TensorAdvancedIndexing.cpp). Half
    precision goes through a buffer of fp32 (cpu/ScatterGatherKernel.cpp, create_acc_buffer). Saves the places and,
    for its shape, x (tools/autograd/derivatives.yaml); the gradient is a zero tensor that is added to."""
    node = make_node("GatherBackward0", selection_backward, x)
    if node is not None:
        node.context = x.shape
        node.save(places)
        node.save(x)
    output = empty(x.trace, places.shape, x.dtype, "aten::gather")
    if x.dtype != "fp32":
        empty(x.trace, places.shape, "fp32", "aten::to")
    return attach(output, node)


def without(mask: Tensor) -> Tensor:
    """~mask.bool()."""
    return pointwise("aten::bitwise_not", (to(mask, "bool"),))


def members(mask: Tensor, members_of_each: int) -> Tensor:
    """[rows, groups] -> [rows, groups * members_of_each]: each group's element for all of its members."""
    rows, groups = mask.shape
    spread = expand(unsqueeze(mask, -1), (rows, groups, members_of_each))
    return reshape(spread, (rows, product((groups, members_of_each))))
