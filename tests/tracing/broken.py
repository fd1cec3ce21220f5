"""Factories that cannot be traced, each in a way of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

not_callable = 3


class Asking(nn.Module):
    """Looks at what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y * 2 if y.sum().item() > 0 else y


class Selecting(Asking):
    """Makes as many rows as its values say."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y[y > 0]


class Resizing(Asking):
    """Uses an operation that has no rule."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return F.interpolate(y[None, None], scale_factor=2, mode="bilinear")


def fine(batch_size: int = 2, wide: bool = False) -> Any:
    """Nothing wrong; prints, as user code does."""
    print("made")
    width = 8 if wide else 4
    return nn.Linear(width, width), torch.randn(batch_size, width)


def failing() -> Any:
    """Raises."""
    raise ZeroDivisionError("by zero")


def returns_nothing() -> Any:
    """Forgets its return."""


def returns_a_model() -> Any:
    """Only a model."""
    return nn.Linear(4, 4)


def no_module() -> Any:
    """Swapped."""
    return torch.randn(2, 4), nn.Linear(4, 4)


def bad_inputs() -> Any:
    """A number as inputs."""
    return nn.Linear(4, 4), 3


def bad_loss() -> Any:
    """A loss that is no function."""
    return nn.Linear(4, 4), torch.randn(2, 4), 3


def wide_loss() -> Any:
    """A loss of many numbers."""
    return nn.Linear(4, 4), torch.randn(2, 4), lambda output: output


def untrained() -> Any:
    """No parameters."""
    return nn.ReLU(), torch.randn(2, 4)


def detached() -> Any:
    """A loss without a graph."""
    return nn.Linear(4, 4), torch.randn(2, 4), lambda output: output.detach().sum()


def wrong_shape() -> Any:
    """The module does not take its inputs."""
    return nn.Linear(4, 4), torch.randn(2, 5)


def asking() -> Any:
    """.item() in the forward pass."""
    return Asking(), torch.randn(2, 4)


def selecting() -> Any:
    """A boolean index."""
    return Selecting(), torch.randn(2, 4)


def resizing() -> Any:
    """An operation without a rule."""
    return Resizing(), torch.randn(2, 4)


def recurrent() -> Any:
    """A layer without a rule."""
    return nn.GRU(4, 4), torch.randn(2, 3, 4)


def sparse() -> Any:
    """Sparse gradients."""
    return nn.Embedding(10, 4, sparse=True), torch.randint(0, 10, (3,))
