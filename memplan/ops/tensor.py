"""Tensors without data. A storage is born with an allocation and dies when the last tensor on it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memplan.ops import layout
from memplan.ops.layout import Shape, Strides

if TYPE_CHECKING:
    from memplan.ledger import Allocation
    from memplan.ops.autograd import Node
    from memplan.ops.trace import Repeat, Trace


class Storage:
    """The memory behind one or more tensors. Its death is recorded when Python drops it."""

    __slots__ = ("allocation", "trace")

    def __init__(self, trace: Trace, allocation: Allocation | None) -> None:
        self.trace = trace
        self.allocation = allocation

    def __del__(self) -> None:
        self.trace.free(self.allocation)


class Tensor:
    """A view of a storage. `strides` is None where the tensor is contiguous (the common case)."""

    __slots__ = ("base", "dtype", "node", "output_index", "requires_grad", "shape", "storage", "strides", "trace")

    def __init__(self, storage: Storage, shape: Shape, dtype: str, strides: Strides | None = None) -> None:
        self.storage = storage
        self.trace = storage.trace
        self.shape = shape
        self.dtype = dtype
        self.strides = strides
        self.requires_grad = False
        self.node: Node | None = None
        self.output_index = 0
        self.base: Tensor | None = None  # what this is a view of; PyTorch keeps it alive, which shows in use counts

    def full_strides(self) -> Strides:
        """Strides in elements, spelled out."""
        return layout.contiguous_strides(self.shape) if self.strides is None else self.strides

    def alias(self) -> Tensor:
        """The same memory and shape, outside the autograd graph (`detach`)."""
        return Tensor(self.storage, self.shape, self.dtype, self.strides)

    def __repr__(self) -> str:
        return f"Tensor({list(self.shape)}, {self.dtype})"


class Number(Tensor):
    """The 8-byte tensor a Python number is wrapped in. Hooks on saved tensors leave it alone
    (torch/csrc/autograd/saved_variable.cpp)."""

    __slots__ = ()


class Parameter(Tensor):
    """A leaf that is trained. `grad` is None until the backward pass reaches it."""

    __slots__ = ("grad", "name", "repeat")

    def __init__(self, storage: Storage, shape: Shape, dtype: str) -> None:
        super().__init__(storage, shape, dtype)
        self.requires_grad = True
        self.grad: Tensor | None = None
        self.name = ""
        self.repeat: Repeat | None = None


def empty(trace: Trace, shape: Shape, dtype: str, operation: str, strides: Strides | None = None) -> Tensor:
    """A fresh tensor; `operation` is the PyTorch operation that allocates it."""
    return Tensor(Storage(trace, trace.allocate(shape, dtype, operation)), shape, dtype, strides)


def result_layout(shape: Shape, operands: Sequence[Tensor]) -> Strides | None:
    """Strides of a fresh elementwise result."""
    for operand in operands:
        if operand.strides is not None:
            return layout.elementwise_strides(shape, tuple([(each.shape, each.full_strides()) for each in operands]))
    return None
