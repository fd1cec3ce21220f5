"""Layers in fp16 keep their output within what fp16 can hold; in every other dtype they do nothing here."""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import function, number, pointwise
from memplan.ops.limits import clamp
from memplan.ops.tensor import Tensor, empty, result_layout

MOST = 65504.0 - 1000


def clamped(hidden_states: Tensor) -> Tensor:
    """MBartEncoderLayer and PegasusEncoderLayer: always within the limits."""
    return clamp(hidden_states, -MOST, MOST) if hidden_states.dtype == "fp16" else hidden_states


def looked_through(hidden_states: Tensor) -> Tensor:
    """BartEncoderLayer: looks whether everything is finite, and clamps only where it is not. Here it is."""
    if hidden_states.dtype == "fp16":
        _refuse_a_card(hidden_states)
        finite = _is_finite(hidden_states)
        empty(finite.trace, (), "bool", "aten::all")
    return hidden_states


def _refuse_a_card(x: Tensor) -> None:
    """Looking through a tensor takes buffers on a card that have no rule here."""
    if x.trace.backend.cuda:
        raise NotModelledError(
            "precision: fp16 layers of this type of model look for infinities, which is not modelled on a card",
            "use --precision bf16 or fp16-mixed",
        )


def _is_finite(x: Tensor) -> Tensor:
    """aten/src/ATen/native/TensorCompare.cpp: (x == x) * (|x| != infinity)."""
    size = pointwise("aten::abs", (x,))
    bounded = pointwise("aten::ne", (size, number(size, 1.0)), "bool")
    itself = pointwise("aten::eq", (x, x), "bool")
    finite = pointwise("aten::mul", (itself, bounded))
    del size
    return finite


def limit(x: Tensor) -> Tensor:
    """T5Block's limit, a tensor: torch.where(torch.isinf(x).any(), number, number)"""
    _refuse_a_card(x)
    size = pointwise("aten::abs", (x,))
    infinite = pointwise("aten::eq", (size, number(size, 1.0)), "bool")
    del size
    any_infinite = empty(x.trace, (), "bool", "aten::any")
    del infinite
    numbers = [empty(x.trace, (), "fp32", "aten::scalar_tensor") for _ in range(2)]
    chosen = empty(x.trace, (), "fp32", "aten::where")
    del numbers, any_infinite
    return chosen


def within(x: Tensor, most: Tensor) -> Tensor:
    """torch.clamp(x, -most, most). Saves all three."""
    least = function("aten::neg", most)
    node = make_node("ClampBackward0", _clamp_backward, x)
    if node is not None:
        for tensor in (x, least, most):
            node.save(tensor)
    return attach(pointwise("aten::clamp", (x, least, most)), node)


def _clamp_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """torch/csrc/autograd/FunctionsManual.cpp, clamp_backward: a mask for each limit, joined in place."""
    zero = empty(gradient.trace, (), gradient.dtype, "aten::scalar_tensor")
    above = pointwise("aten::ge", (saved[0], saved[1]), "bool")
    below = pointwise("aten::le", (saved[0], saved[2]), "bool")
    chosen = empty(
        gradient.trace, gradient.shape, gradient.dtype, "aten::where", result_layout(gradient.shape, (above, gradient))
    )
    del zero, above, below
    return (chosen,)
