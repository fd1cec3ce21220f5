"""Views, and the copies PyTorch makes where a view is not possible (aten/src/ATen/native/TensorShape.cpp)."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops import layout
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node, sum_to
from memplan.ops.elementwise import common_dtype, to
from memplan.ops.layout import Shape, Strides
from memplan.ops.tensor import Tensor, empty, row_major_copy


def view_of(tensor: Tensor, shape: Shape, strides: Strides | None, node: Node | None = None) -> Tensor:
    """Another shape on the same memory."""
    if strides is not None and layout.is_contiguous(shape, strides):
        strides = None
    view = Tensor(tensor.storage, shape, tensor.dtype, strides)
    view.base = tensor.base or tensor
    return attach(view, node)


def contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself, or a row-major copy of it."""
    return tensor if tensor.strides is None else copied(tensor)


def copied(tensor: Tensor) -> Tensor:
    """A row-major copy (clone)."""
    node = make_node("CloneBackward0", _same_backward, tensor)
    return attach(row_major_copy(tensor), node)


def _same_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (gradient,)


def reshape(tensor: Tensor, shape: Shape) -> Tensor:
    """A view where the strides allow it, else a copy."""
    strides = None if tensor.strides is None else layout.view_strides(tensor.shape, tensor.strides, shape)
    if strides is None and tensor.strides is not None:
        copy = contiguous(tensor)
        node = make_node("UnsafeViewBackward0", _reshape_backward, copy)
        if node is not None:
            node.context = copy.shape
        return view_of(copy, shape, None, node)
    node = make_node("ViewBackward0", _reshape_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    return view_of(tensor, shape, strides, node)


def _reshape_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (reshape(gradient, node.context),)


def transpose(tensor: Tensor, first: int, second: int) -> Tensor:
    """Two dimensions exchanged; always a view."""
    order = list(range(len(tensor.shape)))
    order[first], order[second] = order[second], order[first]
    return permute(tensor, order)


def permute(tensor: Tensor, order: Sequence[int]) -> Tensor:
    """Dimensions in another order; always a view."""
    node = make_node("PermuteBackward0", _permute_backward, tensor)
    if node is not None:
        node.context = order
    strides = tensor.full_strides()
    return view_of(tensor, tuple(tensor.shape[axis] for axis in order), tuple(strides[axis] for axis in order), node)


def _permute_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    order = node.context
    inverse = [0] * len(order)
    for position, axis in enumerate(order):
        inverse[axis] = position
    return (permute(gradient, inverse),)


def unsqueeze(tensor: Tensor, axis: int) -> Tensor:
    """A dimension of size 1 put in."""
    axis %= len(tensor.shape) + 1
    node = make_node("UnsqueezeBackward0", _unsqueeze_backward, tensor)
    if node is not None:
        node.context = axis
    strides = tensor.full_strides()
    step = strides[axis] * tensor.shape[axis] if axis < len(strides) else 1
    return view_of(
        tensor, (*tensor.shape[:axis], 1, *tensor.shape[axis:]), (*strides[:axis], step, *strides[axis:]), node
    )


def _unsqueeze_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (squeeze(gradient, node.context),)


def squeeze(tensor: Tensor, axis: int) -> Tensor:
    """A dimension of size 1 taken out."""
    axis %= len(tensor.shape)
    node = make_node("SqueezeBackward1", _squeeze_backward, tensor)
    if node is not None:
        node.context = axis
    strides = tensor.full_strides()
    return view_of(tensor, tensor.shape[:axis] + tensor.shape[axis + 1 :], strides[:axis] + strides[axis + 1 :], node)


def _squeeze_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (unsqueeze(gradient, node.context),)


def expand(tensor: Tensor, shape: Shape) -> Tensor:
    """Dimensions of size 1 shown larger, without a copy."""
    node = make_node("ExpandBackward0", _expand_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    offset = len(shape) - len(tensor.shape)
    strides = [0] * offset
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.full_strides(), strict=True)):
        strides.append(stride if size == shape[offset + axis] else 0)
    return view_of(tensor, shape, tuple(strides), node)


def _expand_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (gradient if gradient.shape == node.context else sum_to(gradient, node.context),)


def narrow(tensor: Tensor, axis: int, length: int) -> Tensor:
    """`length` elements along one dimension, as a view outside the graph."""
    axis %= len(tensor.shape)
    shape = (*tensor.shape[:axis], length, *tensor.shape[axis + 1 :])
    return view_of(tensor, shape, tensor.full_strides())


def slice_(tensor: Tensor, axis: int, length: int) -> Tensor:
    """`length` elements along one dimension, as a view; the tensor itself where that is all of it. The gradient is a
    zero tensor of the input's size with that part filled (slice_backward)."""
    axis %= len(tensor.shape)
    if length == tensor.shape[axis]:
        return tensor
    node = make_node("SliceBackward0", _zeros_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    return attach(narrow(tensor, axis, length), node)


def slice_from(tensor: Tensor, axis: int, start: int) -> Tensor:
    """What lies from `start` on along one dimension, as a view with the same gradient."""
    return slice_(tensor, axis, tensor.shape[axis] - start)


def select(tensor: Tensor, axis: int) -> Tensor:
    """tensor[:, i] and its like. The gradient is a zero tensor of the input's size with one slice filled."""
    axis %= len(tensor.shape)
    node = make_node("SelectBackward0", _zeros_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    strides = tensor.full_strides()
    return view_of(tensor, tensor.shape[:axis] + tensor.shape[axis + 1 :], strides[:axis] + strides[axis + 1 :], node)


def _zeros_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, node.context, gradient.dtype, "aten::zeros"),)


def chunk(tensor: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Two halves along one dimension, as views of one node."""
    axis %= len(tensor.shape)
    node = make_node("SplitBackward0", _chunk_backward, tensor)
    if node is not None:
        node.context = tensor.shape
        node.outputs = 2
    half = (*tensor.shape[:axis], tensor.shape[axis] // 2, *tensor.shape[axis + 1 :])
    strides = tensor.full_strides()
    first = attach(view_of(tensor, half, strides), node, 0)
    return first, attach(view_of(tensor, half, strides), node, 1)


def _chunk_backward(node: Node, gradients: Sequence[Tensor], saved: Saved) -> Gradients:
    return (empty(gradients[0].trace, node.context, gradients[0].dtype, "aten::cat"),)


def split(tensor: Tensor, lengths: Sequence[int], axis: int) -> list[Tensor]:
    """Parts of these lengths along one dimension, as views of one node (split_with_sizes)."""
    axis %= len(tensor.shape)
    node = make_node("SplitWithSizesBackward0", _chunk_backward, tensor)
    if node is not None:
        node.context = tensor.shape
        node.outputs = len(lengths)
    strides = tensor.full_strides()
    parts = ((*tensor.shape[:axis], length, *tensor.shape[axis + 1 :]) for length in lengths)
    return [attach(view_of(tensor, part, strides), node, index) for index, part in enumerate(parts)]


def cat(tensors: Sequence[Tensor], axis: int, length: int | None = None) -> Tensor:
    """Tensors joined along one dimension. The gradients are slices of the incoming one. Autocast casts all to the
    widest dtype among them (aten/src/ATen/autocast_mode.h, AT_FORALL_PROMOTE). `length` is that of the result, under a
    name."""
    if tensors[0].trace.autocast_dtype is not None:
        widest = common_dtype(tensors)
        tensors = [to(tensor, widest) for tensor in tensors]
    first = tensors[0]
    axis %= len(first.shape)
    node = make_node("CatBackward0", _cat_backward, *tensors)
    lengths = [tensor.shape[axis] for tensor in tensors]
    if node is not None:
        node.context = (axis, lengths)
    shape = (*first.shape[:axis], sum(lengths) if length is None else length, *first.shape[axis + 1 :])
    return attach(empty(first.trace, shape, first.dtype, "aten::cat"), node)


def _cat_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    axis, lengths = node.context
    return [narrow(gradient, axis, length) if node.wants(index) else None for index, length in enumerate(lengths)]
