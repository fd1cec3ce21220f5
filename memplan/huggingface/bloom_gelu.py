"""BLOOM's own GELU (models/bloom/modeling_bloom.py, GeLUFunction): a function of autograd written in Python, that keeps
its input alone and computes its gradient in many operations."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import number, pointwise
from memplan.ops.tensor import Tensor


def bloom_gelu(x: Tensor) -> Tensor:
    """GeLUFunction.apply. The input is saved when the forward pass is through."""
    node = make_node("GeLUFunctionBackward", _backward, x)
    output = _times(_times(x, 0.5), _plus(_inner_tanh(x), 1.0))
    if node is not None:
        node.save(x)
    return attach(output, node)


def _backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    x = saved[0]
    tanh_out = _inner_tanh(x)
    ff = _plus(
        _times(
            _times(x, 0.5),
            _times(_one_minus(_times(tanh_out, tanh_out)), _plus(_times(_times(x, 0.1), x), 0.79788456)),
        ),
        _times(_plus(tanh_out, 1), 0.5),
    )
    return (_times(ff, gradient),)


def _inner_tanh(x: Tensor) -> Tensor:
    return pointwise("aten::tanh", (_times(_times(x, 0.79788456), _plus(_times(_times(x, 0.044715), x), 1)),))


def _times(left: Tensor, right: Tensor | float) -> Tensor:
    return pointwise("aten::mul", (left, right if isinstance(right, Tensor) else number(left, right)))


def _plus(left: Tensor, right: Tensor | float) -> Tensor:
    return pointwise("aten::add", (left, right if isinstance(right, Tensor) else number(left, right)))


def _one_minus(x: Tensor) -> Tensor:
    return pointwise("aten::rsub", (x, number(x, 1)))
