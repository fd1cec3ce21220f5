"""The state of one sizes-only run: where we are in the step, and what PyTorch would have switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memplan.ledger import INITIAL, Allocation, Ledger
from memplan.ledger import Repeat as Repeat
from memplan.ops.backend import Backend
from memplan.units import ITEM_BYTES

if TYPE_CHECKING:
    from memplan.ops.autograd import AccumulateGrad, SavedTensorHooks
    from memplan.ops.tensor import Parameter, Tensor


class Trace:
    """Records births and deaths into a ledger, and carries what PyTorch keeps in thread-local state."""

    __slots__ = (
        "accumulators", "autocast_cache", "autocast_dtype", "backend", "first_layer_apart", "first_uses",
        "forward_pass", "forward_passes", "grad_enabled", "hooks", "ledger", "module", "next_sequence", "phase",
        "phase_number", "recording", "repeat", "workspaces",
    )  # fmt: skip

    def __init__(self, backend: Backend, first_layer_apart: bool = False) -> None:
        """`first_layer_apart`: the first layer of a stack takes no part in the graph as the others do, so that it
        stands for none of them: what all share is freed in the second one."""
        self.backend = backend
        self.first_layer_apart = first_layer_apart
        self.ledger = Ledger()
        self.phase = INITIAL
        self.phase_number = 0  # how many have begun
        self.module = ""
        self.repeat: Repeat | None = None
        self.recording = True
        self.forward_pass = 0  # number of the forward (or recomputed) pass we are in, 0 outside
        self.forward_passes = 0
        self.next_sequence = 0
        self.grad_enabled = True
        self.hooks: SavedTensorHooks | None = None
        self.autocast_dtype: str | None = None
        self.autocast_cache: dict[Parameter, Tensor] = {}
        self.accumulators: dict[Parameter, AccumulateGrad] = {}
        self.first_uses: dict[Allocation, int] = {}
        self.workspaces: dict[str, Allocation] = {}

    def enter_phase(self, phase: str) -> None:
        """A mark at a phase boundary."""
        if phase == "forward":
            self.begin_forward_pass()
        elif phase != "loss":
            self.forward_pass = 0
        self.phase_number += phase != self.phase
        self.phase = phase
        self.ledger.enter(phase, 1 if self.repeat is None else self.repeat.copies, self.repeat)

    def begin_forward_pass(self) -> None:
        """What is born from here on, and outlives the pass, is an activation."""
        self.forward_passes += 1
        self.forward_pass = self.forward_passes

    def enter_repeat(self, repeat: Repeat | None) -> None:
        """Events from here on belong to this layer (None: to no repeated layer)."""
        if repeat is not self.repeat:
            self.repeat = repeat
            self.ledger.enter(self.phase, 1 if repeat is None else repeat.copies, repeat)

    def allocate(self, shape: tuple[int, ...], dtype: str, operation: str) -> Allocation | None:
        """Record a birth. An empty tensor allocates nothing."""
        size = ITEM_BYTES[dtype]
        for length in shape:
            size *= length
        if not size:
            return None
        repeat = self.repeat
        copies = 1 if repeat is None else repeat.copies
        allocation = Allocation(size, operation, shape, dtype, self.module, self.phase, copies, self.forward_pass)
        if self.recording:
            self.ledger.events.append((allocation, True))
        return allocation

    def free(self, allocation: Allocation | None) -> None:
        """Record a death; None is what an empty tensor got."""
        if allocation is not None and self.recording:
            allocation.died = self.phase
            if allocation.forward_pass and allocation.forward_pass != self.forward_pass:
                allocation.kept = True
            self.ledger.events.append((allocation, False))

    def first_use(self, tensor: Tensor) -> None:
        """`tensor` outlives the steps and is made here by the first one: a later step finds it."""
        allocation = tensor.storage.allocation
        if allocation is not None:
            self.first_uses.setdefault(allocation, len(self.ledger.events))
            self.ledger.first_phase.setdefault(allocation, self.phase_number)

    def found(self, tensor: Tensor) -> None:
        """`tensor` outlives the steps and is there before the first one."""
        if tensor.storage.allocation is not None:
            self.ledger.found.add(tensor.storage.allocation)

    def need_workspace(self, name: str, size: int) -> None:
        """A library's buffer of `size` bytes, taken at its first use and kept for good."""
        if size and name not in self.workspaces:
            allocation = Allocation(size, name, (size,), "uint8", "", INITIAL, 1, 0)
            allocation.component = "workspace"
            self.workspaces[name] = allocation
            self.first_uses[allocation] = len(self.ledger.events)

    def close(self) -> Ledger:
        """Stop recording and hand the ledger over."""
        self.recording = False
        self.ledger.precede(self.workspaces.values(), self.first_uses)
        self.ledger.close()
        self.ledger.classify()
        return self.ledger

    @contextmanager
    def autocast(self, dtype: str | None) -> Iterator[None]:
        """torch.autocast with its weight cache, which is dropped when the outermost region ends; None: a no-op."""
        if dtype is None:
            yield
            return
        before = self.autocast_dtype
        self.autocast_dtype = dtype
        try:
            yield
        finally:
            self.autocast_dtype = before
            if before is None:
                self._drop_casts()

    @contextmanager
    def without_autocast(self) -> Iterator[None]:
        """Within an operation that autocast has cast the arguments of: its parts are as they are."""
        before, self.autocast_dtype = self.autocast_dtype, None
        try:
            yield
        finally:
            self.autocast_dtype = before

    def _drop_casts(self) -> None:
        """Empty autocast's cache, each layer's weights in their own layer."""
        repeat = self.repeat
        while self.autocast_cache:
            parameter, cast = self.autocast_cache.popitem()
            self.enter_repeat(parameter.repeat)
            del cast
        self.enter_repeat(repeat)
