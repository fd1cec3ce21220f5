"""The state of one sizes-only run: where we are in the step, and what PyTorch would have switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memplan.ledger import INITIAL, Allocation, Ledger
from memplan.ops.backend import Backend
from memplan.units import ITEM_BYTES

if TYPE_CHECKING:
    from memplan.ops.autograd import AccumulateGrad, SavedTensorHooks
    from memplan.ops.tensor import Parameter, Tensor


class Repeat:
    """One traced layer that stands for `copies` layers of its stack."""

    __slots__ = ("copies", "index")

    def __init__(self, index: int, copies: int) -> None:
        self.index = index
        self.copies = copies


class Trace:
    """Records births and deaths into a ledger, and carries what PyTorch keeps in thread-local state."""

    __slots__ = (
        "accumulators", "autocast_cache", "autocast_dtype", "backend", "forward_pass", "forward_passes", "grad_enabled",
        "hooks", "ledger", "module", "next_sequence", "phase", "recording", "repeat",
    )  # fmt: skip

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.ledger = Ledger()
        self.phase = INITIAL
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

    def enter_phase(self, phase: str) -> None:
        """A mark at a phase boundary."""
        if phase == "forward":
            self.begin_forward_pass()
        elif phase != "loss":
            self.forward_pass = 0
        self.phase = phase
        self.ledger.enter(phase, 1 if self.repeat is None else self.repeat.copies)

    def begin_forward_pass(self) -> None:
        """What is born from here on, and outlives the pass, is an activation."""
        self.forward_passes += 1
        self.forward_pass = self.forward_passes

    def enter_repeat(self, repeat: Repeat | None) -> None:
        """Events from here on belong to this layer (None: to no repeated layer)."""
        if repeat is not self.repeat:
            self.repeat = repeat
            self.ledger.enter(self.phase, 1 if repeat is None else repeat.copies)

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

    def close(self) -> Ledger:
        """Stop recording and hand the ledger over."""
        self.recording = False
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

    def _drop_casts(self) -> None:
        """Empty autocast's cache, each layer's weights in their own layer."""
        repeat = self.repeat
        while self.autocast_cache:
            parameter, cast = self.autocast_cache.popitem()
            self.enter_repeat(parameter.repeat)
            del cast
        self.enter_repeat(repeat)
