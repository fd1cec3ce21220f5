"""What is saved: tensors without data, and the objects round them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from memplan.units import ITEM_BYTES

Kind = Literal["parameter", "buffer"]


class SavedTensor:
    """A contiguous tensor that fills its storage. Tensors of one `storage` (any object, compared by identity) share it,
    as tied weights do."""

    __slots__ = ("dtype", "shape", "storage")

    def __init__(self, shape: tuple[int, ...], dtype: str, storage: object = None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.storage = self if storage is None else storage

    @property
    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its storage."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a model's state dict. A parameter that no step reaches (`reached`) has no gradient, so optimizers
    keep nothing of it; one that is fixed does not ask for any (`requires_grad`)."""

    name: str
    tensor: SavedTensor
    kind: Kind
    reached: bool = True
    requires_grad: bool = True


@dataclass(frozen=True, slots=True)
class ModelState:
    """`model.state_dict()`: its entries in order, tied ones under each of their names, and every module by its path
    with the version that its part of the format has."""

    entries: tuple[Entry, ...]
    modules: tuple[tuple[str, object], ...]

    @property
    def distinct(self) -> list[Entry]:
        """Every storage once, under its first name."""
        seen: dict[int, Entry] = {}
        for entry in self.entries:
            seen.setdefault(id(entry.tensor.storage), entry)
        return list(seen.values())

    @property
    def parameters(self) -> list[Entry]:
        """What `model.parameters()` gives, in its order."""
        return [entry for entry in self.distinct if entry.kind == "parameter"]


class StateDict:
    """The OrderedDict that `Module.state_dict` returns, with the attribute `_metadata`."""

    __slots__ = ("items", "metadata")

    def __init__(self, items: dict[str, SavedTensor], metadata: dict[str, Any]) -> None:
        self.items = items
        self.metadata = metadata


def state_dict(state: ModelState) -> StateDict:
    """The object that is saved for a model (torch/nn/modules/module.py, `Module.state_dict`)."""
    return StateDict(
        {entry.name: entry.tensor for entry in state.entries},
        {path: {"version": version} for path, version in state.modules},
    )
