"""One ATen operation as the rules see it, and what a rule says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

DTYPE_NAMES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "int16", torch.int8: "int8", torch.uint8: "uint8",
    torch.bool: "bool", torch.complex64: "complex64", torch.complex128: "complex128",
}  # fmt: skip
"""The dtypes that can be traced, by memplan's names for them."""

HALF = (torch.bfloat16, torch.float16)


@dataclass(slots=True, eq=False)
class Temporary:
    """Memory that a kernel takes for itself: elements of `shape` in `dtype`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    operation: str

    @property
    def size(self) -> int:
        """Bytes."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


class Kept(NamedTuple):
    """A number's tensor that the backward pass will want: it dies with the node that holds it."""

    temporary: Temporary


class Script:
    """What an operation does to memory, in order: a Temporary is taken or (a second time) given back, a number of an
    output is born, a Kept number is taken. Outputs that are not mentioned are born at the end, before all temporaries
    that are left are given back."""

    __slots__ = ("operation", "sizes", "steps")

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.steps: list[Temporary | Kept | int] = []
        self.sizes: dict[int, int] = {}
        """Bytes of outputs that lie in more memory than they fill."""

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, operation: str = "") -> Temporary:
        """Memory for this operation, or for `operation` inside it."""
        temporary = Temporary(tuple(shape), dtype, operation or self.operation)
        self.steps.append(temporary)
        return temporary

    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> Temporary:
        """The tensor in another dtype."""
        return self.take(tuple(tensor.shape), dtype, "aten::to")

    def contiguous(self, tensor: torch.Tensor) -> Temporary | None:
        """A copy of a tensor that does not lie in order; None for one that does."""
        return None if tensor.is_contiguous() else self.take(tuple(tensor.shape), tensor.dtype, "aten::clone")

    def number(self, dtype: torch.dtype, wanted: torch.dtype, kept: bool = False) -> list[Temporary]:
        """A Python number as a tensor, and its cast where another dtype is wanted. What may be given back."""
        if kept:
            self.steps.append(Kept(Temporary((), dtype, "aten::scalar_tensor")))
            taken = []
        else:
            taken = [self.take((), dtype, "aten::scalar_tensor")]
        if dtype != wanted:
            taken.append(self.take((), wanted, "aten::to"))
        return taken

    def free(self, *temporaries: Temporary | None) -> None:
        """Give back; None is nothing."""
        self.steps += [each for each in temporaries if each is not None]

    def outputs(self, *numbers: int) -> None:
        """The outputs of these numbers are born, in that order."""
        self.steps += numbers


class Call:
    """An operation with its arguments by name of the schema, and its outputs."""

    __slots__ = ("arguments", "in_backward", "is_view", "name", "outputs", "overload", "schema", "threads")

    def __init__(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any, threads: int, in_backward: bool
    ) -> None:
        self.schema = func._schema
        self.is_view: bool = func.is_view
        self.name: str = self.schema.name  # such as aten::mul
        self.overload: str = self.schema.overload_name
        self.outputs: list[torch.Tensor | None]
        self.arguments: dict[str, Any] = {}
        for index, argument in enumerate(self.schema.arguments):
            if index < len(args):
                self.arguments[argument.name] = args[index]
            elif argument.name in kwargs:
                self.arguments[argument.name] = kwargs[argument.name]
            else:
                self.arguments[argument.name] = argument.default_value
        self.outputs = list(optional_tensors(outputs))
        self.threads = threads
        self.in_backward = in_backward  # called by a C++ node of the backward pass, not by Python

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str) -> torch.Tensor:
        """The argument of that name, which is a tensor."""
        value = self.arguments[name]
        assert isinstance(value, torch.Tensor)
        return value

    @property
    def output(self) -> torch.Tensor:
        """The first output."""
        first = self.outputs[0]
        assert first is not None
        return first

    def script(self) -> Script:
        """An empty script of this operation."""
        return Script(self.name)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)


def optional_tensors(value: Any) -> Iterator[torch.Tensor | None]:
    """The outputs of an operation by number; None for one that was not asked for."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from optional_tensors(each)
    elif value is None or isinstance(value, torch.Tensor):
        yield value
