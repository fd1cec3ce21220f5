"""A tensor cut along one dimension (aten/src/ATen/native/TensorShape.cpp, split, split_with_sizes, chunk)."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.size import Size, spell
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import view_of


def split(tensor: Tensor, axis: int, lengths: Sequence[int]) -> list[Tensor]:
    """Views of one node, of these lengths. The gradients are concatenated, zeros where there is none
    (torch/csrc/autograd/FunctionsManual.cpp, split_with_sizes_backward)."""
    axis %= len(tensor.shape)
    node = make_node("SplitBackward0", _split_backward, tensor)
    if node is not None:
        node.context = (tensor.shape, axis, lengths)
        node.outputs = len(lengths)
    strides = tensor.full_strides()
    before, after = tensor.shape[:axis], tensor.shape[axis + 1 :]
    return [
        attach(view_of(tensor, (*before, length, *after), strides), node, index) for index, length in enumerate(lengths)
    ]


def _split_backward(node: Node, incoming: Tensor | Sequence[Tensor | None], saved: Saved) -> Gradients:
    shape, axis, lengths = node.context
    gradients = [incoming] if isinstance(incoming, Tensor) else incoming
    given = next(gradient for gradient in gradients if gradient is not None)
    zeros = [
        empty(given.trace, (*shape[:axis], length, *shape[axis + 1 :]), given.dtype, "aten::zeros")
        for gradient, length in zip(gradients, lengths, strict=True)
        if gradient is None
    ]
    joined = empty(given.trace, shape, given.dtype, "aten::cat")
    del zeros
    return (joined,)


def chunk(tensor: Tensor, chunks: int) -> list[Tensor]:
    """Equal parts along the first dimension, of which the last one may be smaller; fewer where there are not so many
    rows."""
    rows = tensor.shape[0]
    length = -(-rows // chunks)
    name = spell(length) if length == rows else f"({spell(rows)} / {chunks} chunks)"
    whole = Size(length, name)
    lengths = [whole] * (rows // length)
    if rows % length:
        lengths.append(Size(rows % length, f"(last of {chunks} chunks of {spell(rows)})"))
    return split(tensor, 0, lengths)
