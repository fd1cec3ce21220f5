"""How many bytes `pickle` needs for what torch.save gives it (Modules/_pickle.c, protocol 2, and `_save` of
torch/serialization.py), without writing them and without torch.

The rules are those of CPython's C pickler: every container, text and global is remembered with a PUT, and what comes
again as the same object is a GET; dictionaries and lists are written in batches of 1,000. A tensor is a call of
torch._utils._rebuild_tensor_v2 (torch/_tensor.py), its storage a persistent id.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from memplan.checkpoint.saved import SavedTensor, StateDict

BATCH = 1000
"""Items between two SETITEMS or APPENDS."""

STORAGES = {
    "fp32": "FloatStorage", "fp64": "DoubleStorage", "fp16": "HalfStorage", "bf16": "BFloat16Storage",
    "int8": "CharStorage", "int16": "ShortStorage", "int32": "IntStorage", "int64": "LongStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip


class PickleSize:
    """The length of one pickle. `storages` holds the bytes of each storage it refers to, in the order of their keys."""

    def __init__(self) -> None:
        self.size = len(b"\x80\x02")  # PROTO 2
        self.storages: list[int] = []
        self._remembered: dict[object, int] = {}  # by identity, globals by name
        self._count = 0
        self._keys: dict[int, str] = {}  # of storages
        self._kept: list[object] = []  # so that no identity comes twice

    @classmethod
    def of(cls, saved: object) -> PickleSize:
        """The pickle of one object."""
        pickle = cls()
        pickle.save(saved)
        pickle.size += len(b".")  # STOP
        return pickle

    def save(self, value: Any) -> None:
        """One object and all that is in it. Raises TypeError for a type that no checkpoint has."""
        kind = type(value)
        if kind is SavedTensor:
            self._tensor(value)
        elif kind is str:
            self._text(value)
        elif kind is int:
            self.size += _integer(value)
        elif value is None or kind is bool:
            self.size += 1
        elif kind is float:
            self.size += 9  # BINFLOAT
        elif not self._recall(id(value)):
            self._container(value)

    def _container(self, value: Any) -> None:
        self._kept.append(value)
        if isinstance(value, dict):
            self.size += 1  # EMPTY_DICT
            self._put(id(value))
            self._items_of_dict(value)
        elif isinstance(value, list):
            self.size += 1  # EMPTY_LIST
            self._put(id(value))
            self._items_of_list(value)
        elif isinstance(value, tuple):
            self._tuple(value)
        elif isinstance(value, StateDict):
            self._state_dict(value)
        else:
            raise TypeError(f"no checkpoint has a {type(value).__name__}")

    def _put(self, key: object) -> None:
        """BINPUT, or LONG_BINPUT from the 257th on."""
        self.size += 2 if self._count < 256 else 5
        self._remembered[key] = self._count
        self._count += 1

    def _put_new(self) -> None:
        """The PUT of something that does not come again."""
        self.size += 2 if self._count < 256 else 5
        self._count += 1

    def _recall(self, key: object) -> bool:
        """BINGET or LONG_BINGET of what has been remembered."""
        index = self._remembered.get(key)
        if index is None:
            return False
        self.size += 2 if index < 256 else 5
        return True

    def _text(self, text: str) -> None:
        if not self._recall(id(text)):
            self._kept.append(text)
            self.size += 5 + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))
            self._put(id(text))

    def _global(self, module: str, name: str) -> None:
        if not self._recall((module, name)):
            self.size += 1 + len(module) + 1 + len(name) + 1
            self._put((module, name))

    def _tuple(self, value: tuple[Any, ...]) -> None:
        if not value:
            self.size += 1  # EMPTY_TUPLE, which is not remembered
            return
        for item in value:
            self.save(item)
        self.size += 1 if len(value) <= 3 else 2  # TUPLE1 to TUPLE3; MARK and TUPLE
        self._put(id(value))

    def _items_of_dict(self, items: dict[Any, Any]) -> None:
        for key, value in items.items():
            self.save(key)
            self.save(value)
        if len(items) == 1:
            self.size += 1  # SETITEM
        elif items:
            self.size += 2 * (len(items) // BATCH + 1)  # MARK and SETITEMS; after a full batch another, even if empty

    def _items_of_list(self, items: list[Any]) -> None:
        for item in items:
            self.save(item)
        if len(items) == 1:
            self.size += 1  # APPEND
        else:
            self.size += 2 * -(-len(items) // BATCH)  # MARK and APPENDS

    def _items_of_ordered_dict(self, items: Iterable[tuple[Any, Any]], count: int) -> None:
        """They come from an iterator, so the pickler sees that a batch has one item only when it has it."""
        for key, value in items:
            self.save(key)
            self.save(value)
        batches, rest = divmod(count, BATCH)
        self.size += 2 * batches + (0 if not rest else 1 if rest == 1 else 2)

    def _ordered_dict(self, key: object) -> None:
        """An OrderedDict before its items: a call of the class without arguments."""
        self._global("collections", "OrderedDict")
        self.size += 2  # EMPTY_TUPLE, REDUCE
        self._put(key)

    def _state_dict(self, value: StateDict) -> None:
        self._ordered_dict(id(value))
        self._items_of_ordered_dict(value.items.items(), len(value.items))
        self.size += 1  # EMPTY_DICT, of attributes
        self._put_new()
        self._text("_metadata")
        self._ordered_dict(id(value.metadata))
        self._kept.append(value.metadata)
        self._items_of_ordered_dict(value.metadata.items(), len(value.metadata))
        self.size += 2  # SETITEM, BUILD

    def _tensor(self, tensor: SavedTensor) -> None:
        """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward hooks)."""
        self._global("torch._utils", "_rebuild_tensor_v2")
        self._storage(tensor)
        self.size += 1 + 2  # MARK; offset 0
        self._sizes(tensor.shape)
        self._sizes(_strides(tensor.shape))
        self.size += 1  # NEWFALSE: what is saved is detached
        self._global("collections", "OrderedDict")
        self.size += 2  # EMPTY_TUPLE, REDUCE
        self._put_new()
        self.size += 1  # TUPLE
        self._put_new()
        self.size += 1  # REDUCE
        self._put_new()

    def _storage(self, tensor: SavedTensor) -> None:
        """("storage", type, key, location, elements)."""
        key = self._keys.get(id(tensor.storage))
        if key is None:
            key = self._keys[id(tensor.storage)] = str(len(self._keys))
            self._kept.append(tensor.storage)
            self.storages.append(tensor.nbytes)
        self._text("storage")
        self._global("torch", STORAGES[tensor.dtype])
        self._text(key)
        self._text("cpu")
        self.size += 2 + _integer(tensor.numel)  # MARK, TUPLE
        self._put_new()
        self.size += 1  # BINPERSID

    def _sizes(self, sizes: tuple[int, ...]) -> None:
        """A tuple that is made for this tensor alone."""
        if not sizes:
            self.size += 1
            return
        self.size += sum(map(_integer, sizes)) + (1 if len(sizes) <= 3 else 2)
        self._put_new()


def _integer(value: int) -> int:
    """BININT1, BININT2, BININT or LONG1."""
    if 0 <= value < 1 << 8:
        return 2
    if 0 <= value < 1 << 16:
        return 3
    if -(1 << 31) <= value < 1 << 31:
        return 5
    # In two's complement, with its sign: -128 needs one byte less than 128.
    length = ((value if value >= 0 else ~value).bit_length() >> 3) + 1
    return (2 if length < 256 else 5) + length


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a contiguous tensor, in elements: a dimension of 0 counts as 1."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
