"""Table look-up (aten/src/ATen/native/Embedding.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.embedding_cuda import table_gradient
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import contiguous, reshape


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """weight [rows, hidden] at indices [...] -> [..., hidden]. Saves the indices; the gradient is a whole table.

    Indices are flattened for the look-up, which copies those that are shown expanded; a single one that is shown many
    times is copied inside (aten/src/ATen/native/TensorAdvancedIndexing.cpp, index_select_out_cpu_).
    """
    node = make_node("EmbeddingBackward0", _embedding_backward, weight)
    if node is not None:
        node.context = (weight.shape, product(indices.shape))
        node.save(indices)
    flat = reshape(indices, (product(indices.shape),))
    output = empty(weight.trace, (*indices.shape, weight.shape[1]), weight.dtype, "aten::embedding")
    contiguous(flat)
    del flat
    return attach(output, node)


def _embedding_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    shape, indices = node.context
    if gradient.trace.backend.cuda:
        flat = contiguous(saved[0])
        table = table_gradient(contiguous(gradient), shape, indices)
        del flat
        return (table,)
    table = empty(gradient.trace, shape, gradient.dtype, "aten::embedding_dense_backward")
    flat = contiguous(saved[0])
    contiguous(gradient)  # the kernel reads rows as they lie, and copies them where they do not lie in rows
    del flat
    return (table,)
