"""The library's activation functions (transformers/activations.py). Those made of several operations keep what each
of them saves."""

from __future__ import annotations

from collections.abc import Callable

from memplan.ops.activation import gelu, relu, sigmoid, silu, tanh
from memplan.ops.elementwise import add, mul, power
from memplan.ops.tensor import Tensor


def gelu_new(x: Tensor) -> Tensor:
    """NewGELUActivation: seven operations where PyTorch has one."""
    return mul(
        mul(x, 0.5),
        add(tanh(mul(add(x, mul(power(x, 3.0), 0.044715)), 0.7978845608)), 1.0),
    )


def gelu_fast(x: Tensor) -> Tensor:
    """FastGELUActivation."""
    return mul(
        mul(x, 0.5),
        add(tanh(mul(mul(x, 0.7978845608), add(mul(mul(x, 0.044715), x), 1.0))), 1.0),
    )


def quick_gelu(x: Tensor) -> Tensor:
    """QuickGELUActivation."""
    return mul(x, sigmoid(mul(x, 1.702)))


ACT2FN: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}
"""By the library's names."""
