"""torch.autograd.Function: an operation whose forward and backward pass are written by hand
(torch/csrc/autograd/python_function.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor


class Context:
    """What forward and backward pass share: which inputs need a gradient, what is saved, and any attributes."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: Sequence[Tensor | None] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep these for the backward pass."""
        self.saved_tensors = tensors


class Function:
    """Sub-classes have `forward` and `backward`."""

    @staticmethod
    def forward(context: Any, *inputs: Any) -> Tensor:
        """The result, made without a graph."""
        raise NotImplementedError

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Gradients:
        """A gradient for each input."""
        raise NotImplementedError

    @classmethod
    def apply(cls, *inputs: Any) -> Tensor:
        """The result of `forward`, whose gradients `backward` makes. The first input is a tensor."""
        tensors = [each if isinstance(each, Tensor) else None for each in inputs]
        node = make_node(f"{cls.__name__}Backward", cls._run_backward, *tensors)
        trace = inputs[0].trace
        context = Context(tuple(each is not None and each.requires_grad for each in tensors))
        before, trace.grad_enabled = trace.grad_enabled, False
        output = cls.forward(context, *inputs)
        trace.grad_enabled = before
        saved = context.saved_tensors
        context.saved_tensors = ()  # the node holds them
        if node is not None:
            node.context = (context, [None if each is None else index for index, each in enumerate(saved)])
            for each in saved:
                if each is not None:
                    node.save(each)
        return attach(output, node)

    @classmethod
    def _run_backward(cls, node: Node, gradient: Tensor, saved: Saved) -> Gradients:
        tensors = iter(saved)
        context, places = node.context
        context.save_for_backward(*(None if place is None else next(tensors) for place in places))
        gradients = cls.backward(context, gradient)
        context.saved_tensors = ()
        return gradients
