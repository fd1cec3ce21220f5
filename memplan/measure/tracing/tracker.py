"""A dispatch mode that sees every ATen operation of a step and writes down what is born and what dies.

A birth is a storage among an operation's outputs that was not there before; it dies when PyTorch drops the storage
(as torch/distributed/_tools/mem_tracker.py sees it). What kernels take inside comes from the rules.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode

from memplan.errors import NotModelledError
from memplan.ledger import Allocation
from memplan.measure.tracing import values
from memplan.measure.tracing.call import DTYPE_NAMES, Call, Kept, Temporary
from memplan.measure.tracing.fakes import corrected
from memplan.measure.tracing.places import Places
from memplan.measure.tracing.rules import script_of
from memplan.measure.tracing.sharing import Sharing

STEP_COUNT = 2.0
"""What an optimizer reads from a counter: it is only used in arithmetic."""

_IGNORED = ("prim", "profiler")  # questions to a tensor and regions of the profiler: no operations
_ASKS = ("aten::_local_scalar_dense", "aten::item", "aten::equal", "aten::is_nonzero")


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Events in order: (allocation, birth). `phase` is set by the step that is traced.

    `unknown` holds the operations that no rule knows; with `outputs_only` they count with their outputs, and without
    it they do as well, but the caller refuses the run.
    """

    def __init__(self, threads: int, places: Places, sharing: Sharing) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.threads = threads
        self.places = places
        self.sharing = sharing
        self.phase = ""
        self.events: list[tuple[Allocation, bool]] = []
        self.unknown: dict[str, str] = {}  # operation -> the module that called it first
        self.holders: dict[Allocation, int] = {}  # storages per allocation
        self._storages: dict[int, tuple[weakref.ref[Any], Allocation]] = {}
        self._number: tuple[Allocation, weakref.ref[torch.Tensor]] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name: str = func._schema.name
        if name.partition("::")[0] in _IGNORED:
            return func(*args, **kwargs)
        self.settle_number()
        if name in _ASKS:
            if self.phase == "optimizer_step":
                return STEP_COUNT
            known = values.answer(func, args, kwargs)
            if known is not None:
                return known
        self.places.note()
        shared = self.sharing.reuse(func, args)
        try:
            outputs = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise NotModelledError(
                f"{name} in {self._where()} depends on the data, and a traced run has none",
                "write it without asking for a tensor's values (no .item(), nonzero or masked selection)",
            ) from error
        outputs = corrected(name, args, outputs)
        if self.phase != "optimizer_step":
            values.follow(func, args, kwargs, outputs)
        self._record(Call(func, args, kwargs, outputs, self.threads, self.sharing.in_cpp_backward()), shared)
        return outputs

    def allocation_of(self, tensor: torch.Tensor) -> Allocation | None:
        """The allocation that a tensor lies in; None for one that was made elsewhere."""
        found = self._storages.get(tensor.untyped_storage()._cdata)
        return None if found is None else found[1]

    def adopt(self, tensors: Iterable[torch.Tensor], operation: str) -> None:
        """Take note of tensors that may have been made by `operation`, where the dispatcher does not look."""
        for tensor in tensors:
            self._see(tensor, operation)

    def settle_number(self) -> None:
        """Tie the number that the last operation keeps to the storage in which the graph holds it."""
        if self._number is None:
            return
        (allocation, output), self._number = self._number, None
        tensor = output()
        node = None if tensor is None else tensor.grad_fn
        saved = getattr(node, "_saved_other", None)
        if isinstance(saved, torch.Tensor):
            self._hold(saved.untyped_storage(), allocation)
        else:
            self._die(allocation)
        del tensor, node, saved

    def _record(self, call: Call, shared: torch.Tensor | None) -> None:
        script = script_of(call)
        if script is None:
            self.unknown.setdefault(_full_name(call), self._module())
            script = call.script()
        taken: dict[Temporary, Allocation] = {}
        pending = list(range(len(call.outputs)))
        kept: Allocation | None = None
        for step in script.steps:
            if isinstance(step, int):
                pending.remove(step)
                self._see(call.outputs[step], call.name, shared, script.sizes.get(step))
            elif isinstance(step, Kept):
                kept = self._born(step.temporary)
            elif step in taken:
                self._die(taken.pop(step))
            else:
                taken[step] = self._born(step)
        for number in pending:
            self._see(call.outputs[number], call.name, shared, script.sizes.get(number))
        for allocation in taken.values():
            self._die(allocation)
        if kept is not None:
            self._number = (kept, weakref.ref(call.output))

    def _see(
        self, tensor: torch.Tensor | None, operation: str, reused: torch.Tensor | None = None, size: int | None = None
    ) -> None:
        """Take note of an output: a birth where its storage is new, or one more holder of memory it takes over."""
        if tensor is None:
            return
        if tensor.layout is not torch.strided:
            raise NotModelledError(f"{operation} in {self._where()} makes a tensor that is not strided")
        storage = tensor.untyped_storage()
        if storage._cdata in self._storages or storage.nbytes() == 0:
            return
        allocation = None if reused is None else self.allocation_of(reused)
        if allocation is None:
            if tensor.dtype not in DTYPE_NAMES:
                raise NotModelledError(f"{operation} in {self._where()} makes a tensor of {tensor.dtype}")
            shape = tuple(tensor.shape)
            allocation = self._allocation(size or storage.nbytes(), shape, tensor.dtype, operation)
            self.events.append((allocation, True))
        self._hold(storage, allocation)

    def _hold(self, storage: torch.UntypedStorage, allocation: Allocation) -> None:
        key = storage._cdata
        if key in self._storages:
            self._release(allocation)
            return
        self.holders[allocation] = self.holders.get(allocation, 0) + 1

        def dead(_: Any) -> None:
            del self._storages[key]
            self._release(allocation)

        self._storages[key] = (weakref.ref(storage, dead), allocation)

    def _release(self, allocation: Allocation) -> None:
        self.holders[allocation] = self.holders.get(allocation, 1) - 1
        if not self.holders[allocation]:
            del self.holders[allocation]
            self._die(allocation)

    def _born(self, temporary: Temporary) -> Allocation:
        allocation = self._allocation(temporary.size, temporary.shape, temporary.dtype, temporary.operation)
        self.events.append((allocation, True))
        return allocation

    def _die(self, allocation: Allocation) -> None:
        allocation.died = self.phase
        self.events.append((allocation, False))

    def _allocation(self, size: int, shape: tuple[int, ...], dtype: torch.dtype, operation: str) -> Allocation:
        return Allocation(size, operation, shape, DTYPE_NAMES[dtype], self._module(), self.phase, 1, 0)

    def _where(self) -> str:
        """The module in a message."""
        return self._module() or "the model itself"

    def _module(self) -> str:
        return self.places.module()


def _full_name(call: Call) -> str:
    return f"{call.name}.{call.overload}" if call.overload else call.name
