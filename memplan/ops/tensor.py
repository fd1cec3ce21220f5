"""Tensors without data. A storage is born with an allocation and dies when the last tensor on it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from memplan.ops import layout
from memplan.ops.layout import Shape, Strides
from memplan.units import ITEM_BYTES

if TYPE_CHECKING:
    from memplan.ledger import Allocation
    from memplan.ops.autograd import AccumulateGrad, Node
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

    def alias(self) -> Number:
        """Saved, it still counts as a number where types are promoted."""
        return Number(self.storage, self.shape, self.dtype, self.strides)


class Parameter(Tensor):
    """A leaf that is trained, unless it is frozen (`requires_grad` is False). `grad` is None until the backward pass
    reaches it; one that no forward pass reads (`unused`) never gets one, so optimizers pass it over.

    `fixed` is its dtype where it does not go by the model's. `stands_for` is how many weights it holds, where that is
    not its number of elements."""

    __slots__ = ("fixed", "grad", "hook", "name", "repeat", "stands_for", "unused")

    def __init__(self, storage: Storage, shape: Shape, dtype: str) -> None:
        super().__init__(storage, shape, dtype)
        self.requires_grad = True
        self.grad: Tensor | None = None
        self.hook: Callable[[Parameter], None] | None = None  # called when its gradient is there
        self.name = ""
        self.repeat: Repeat | None = None
        self.unused = False
        self.fixed: str | None = None
        self.stands_for: int | None = None


class Leaf(Parameter):
    """A tensor that a forward pass makes and that asks for a gradient (`requires_grad = True`). The graph alone keeps
    the node that collects it (torch/csrc/autograd/variable.cpp, grad_accumulator)."""

    __slots__ = ("accumulator",)

    def __init__(self, storage: Storage, shape: Shape, dtype: str) -> None:
        super().__init__(storage, shape, dtype)
        self.accumulator: Callable[[], AccumulateGrad | None] = _none


def _none() -> None:
    return None


def requiring_grad(tensor: Tensor) -> Tensor:
    """tensor.requires_grad_(True): a leaf, where no graph has made it."""
    if tensor.requires_grad:
        return tensor
    leaf = Leaf(tensor.storage, tensor.shape, tensor.dtype)
    leaf.strides, leaf.base = tensor.strides, tensor.base
    return leaf


def empty(trace: Trace, shape: Shape, dtype: str, operation: str, strides: Strides | None = None) -> Tensor:
    """A fresh tensor; `operation` is the PyTorch operation that allocates it."""
    return Tensor(Storage(trace, trace.allocate(shape, dtype, operation)), shape, dtype, strides)


def row_major_copy(source: Tensor, operation: str = "aten::clone") -> Tensor:
    """A fresh row-major tensor filled from `source`. On the CPU a large transposed matrix goes by way of a block of
    60 x 60 elements, 120 x 120 single bytes (aten/src/ATen/native/Copy.cpp, copy_transpose_valid)."""
    copy = empty(source.trace, source.shape, source.dtype, operation)
    if len(source.shape) == 2 and source.strides == (1, source.shape[0]) and not source.trace.backend.cuda:
        side = _BYTES_BLOCK if ITEM_BYTES[source.dtype] == 1 else _BLOCK
        if source.shape[0] * source.shape[1] >= _BLOCK * _BLOCK:
            empty(source.trace, (side, side), source.dtype, "aten::copy_")
    return copy


_BLOCK = 60
_BYTES_BLOCK = 120


def result_layout(shape: Shape, operands: Sequence[Tensor]) -> Strides | None:
    """Strides of a fresh elementwise result."""
    for operand in operands:
        if operand.strides is not None:
            return layout.elementwise_strides(shape, tuple([(each.shape, each.full_strides()) for each in operands]))
    return None
