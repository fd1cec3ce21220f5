"""Training steps replayed through the caching allocator, from a fresh process to the steady state: reserved bytes, and
allocated ones as the allocator counts them.

The real loop is `for _ in range(steps): training_step(...)`, its result dropped at once (memplan/reference/training.py,
memplan/measure/run.py). So the first step finds parameters and inputs alone, and makes optimizer states and library
workspaces where it needs them first; each later one frees the gradients of the step before in its first phase,
`zero_grad`, and finds in the cache what that step has freed. Gradients are freed in the order of their parameters,
which decides between free blocks of one size in PyTorch 2.12.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from memplan.accounting import Accounts, PhaseReplay
from memplan.allocator import CachingAllocator, OutOfMemory, Settings
from memplan.expansion import Expansion, expand
from memplan.ledger import INITIAL, Allocation, Ledger

if TYPE_CHECKING:
    from typing import Protocol

    class Allocator(Protocol):
        """What a replay needs of an allocator."""

        reserved: int
        peak_allocated: int
        peak_reserved: int

        def allocate(self, size: int) -> Any:
            """A block, whose `size` counts as allocated. Raises OutOfMemory."""

        def free(self, block: Any) -> None:
            """Give a block back."""

        def reset_peaks(self) -> None:
            """The peaks start again at the present values."""


MOST_STEPS = 8


class Shortage:
    """Where the memory ran out: `requested` bytes for `allocation`, of layer `layer`, in step number `step`."""

    __slots__ = ("allocation", "layer", "phase", "requested", "step")

    def __init__(self, phase: str, step: int, allocation: Allocation, layer: int | None) -> None:
        self.phase = phase
        self.step = step
        self.requested = allocation.size
        self.allocation = allocation
        self.layer = layer

    @property
    def module(self) -> str:
        """The module that asked: "decoder.layers.17.attention"."""
        return module_of(self.allocation, self.layer)


class Replay:
    """What came of it. `phases` are those of the last step; where the memory ran out, the last one ends there."""

    __slots__ = ("out_of_memory", "peak_allocated", "peak_reserved", "phases", "reserved_by_step", "steady", "steps")

    def __init__(self) -> None:
        self.phases: dict[str, PhaseReplay] = {}
        self.steps = 0
        self.steady = False
        """Whether the last step reserved nothing new and had the allocated peaks of the step before in every phase, or
        left everything as it found it."""
        self.reserved_by_step: list[int] = []
        """The highest reserved bytes so far, step by step."""
        self.peak_allocated = 0
        self.peak_reserved = 0
        """Both over all steps."""
        self.out_of_memory: Shortage | None = None


def module_of(allocation: Allocation, layer: int | None) -> str:
    """The module path of one copy of an allocation. What is repeated may be several layers, of which `*+1` is the
    second."""
    before, star, after = allocation.module.partition("*")
    if layer is None or not star:
        return allocation.module
    if after.startswith("+"):
        offset, dot, after = after[1:].partition(".")
        return f"{before}{layer + int(offset)}{dot}{after}"
    return f"{before}{layer}{after}"


def replay(
    ledger: Ledger, settings: Settings | None = None, capacity: int | None = None, steps: int | None = None
) -> Replay:
    """Replay a step's ledger until it is steady, MOST_STEPS times at most; or exactly `steps` times.

    `capacity` is what the driver can give, in bytes; to run out of it is a result and no error. Raises NotModelledError
    for a ledger that cannot be spelled out.
    """
    allocator = CachingAllocator(settings, capacity)
    return drive(expand(ledger), allocator, steps, allocator.state)


def drive(
    expansion: Expansion,
    allocator: Allocator,
    steps: int | None = None,
    state: Callable[[], Hashable] | None = None,
) -> Replay:
    """The same for a fresh allocator of one's own. `state` is what its answers depend on beside the blocks in use: a
    step that would begin as the one before it did is not run, for it would be the same again."""
    run = _Run(expansion, allocator)
    if run.begin():
        before: Hashable = None
        while run.result.steps < (MOST_STEPS if steps is None else steps):
            if not run.step() or (steps is None and run.result.steady):
                break
            now = None if state is None else run.left_behind(state())
            if now is not None and now == before:
                run.repeat(steps)
                break
            before = now
        run.account()
    return run.result


class _Run:
    """A replay in progress, and what the accounts of its last step need."""

    def __init__(self, expansion: Expansion, allocator: Allocator) -> None:
        self.result = Replay()
        self.later = expansion
        self.now = expansion.first_step()  # the present step
        self.allocator = allocator
        self.found: list[tuple[Allocation, int]] = []  # what it found and will leave, with the sizes of the blocks
        self.left: list[tuple[Allocation, int]] = []  # the gradients of the step before
        self.blocks: list[Any] = []  # by ordinal
        self.sizes: list[int] = []
        self.marks: list[tuple[int, int, int]] = []  # of each phase: peak allocated, peak and last reserved

    def begin(self) -> bool:
        """Give birth to parameters and inputs. False where the memory runs out."""
        result, allocator, initial = self.result, self.allocator, self.now.initial
        try:
            for allocation in initial:
                self.found.append((allocation, allocator.allocate(allocation.size).size))
        except OutOfMemory:
            result.out_of_memory = Shortage(INITIAL, 1, initial[len(self.found)], None)
        result.peak_allocated, result.peak_reserved = allocator.peak_allocated, allocator.peak_reserved
        return result.out_of_memory is None

    def step(self) -> bool:
        """Run one step. False where the memory runs out."""
        result, allocator = self.result, self.allocator
        result.steps += 1
        gradients: list[Any] = []
        if result.steps > 1:
            before, blocks, sizes = self.now, self.blocks, self.sizes
            self.found += [(before.births[ordinal], sizes[ordinal]) for ordinal in before.made]
            self.left = [(before.births[ordinal], sizes[ordinal]) for ordinal in before.carried]
            gradients = [blocks[ordinal] for ordinal in before.carried]
            self.now = self.later
        now = self.now
        blocks, sizes = self.blocks, self.sizes = [], []
        marks_before, self.marks = self.marks, []
        reserved_before = result.peak_reserved
        for name, start, stop in _phases(now):
            allocator.reset_peaks()
            for block in gradients:
                allocator.free(block)
            gradients = []
            try:
                _run(now.events[start:stop], blocks, sizes, allocator.allocate, allocator.free)
            except OutOfMemory:
                refused = len(blocks)
                result.out_of_memory = Shortage(name, result.steps, now.births[refused], now.layer(refused))
            self.marks.append((allocator.peak_allocated, allocator.peak_reserved, allocator.reserved))
            result.peak_allocated = max(result.peak_allocated, allocator.peak_allocated)
            result.peak_reserved = max(result.peak_reserved, allocator.peak_reserved)
            if result.out_of_memory is not None:
                break
        result.reserved_by_step.append(result.peak_reserved)
        if result.out_of_memory is not None:
            return False
        peaks, peaks_before = [mark[0] for mark in self.marks], [mark[0] for mark in marks_before]
        result.steady = result.steps > 1 and result.peak_reserved == reserved_before and peaks == peaks_before
        for ordinal in now.dropped:
            allocator.free(blocks[ordinal])
        return True

    def left_behind(self, state: Hashable) -> Hashable:
        """What the next step depends on; None where `state` is. Of the blocks in use only gradients can lie elsewhere
        from step to step: all others are there for good."""
        blocks = self.blocks
        gradients = tuple([(blocks[ordinal].address, blocks[ordinal].size) for ordinal in self.now.carried])
        return None if state is None else (state, gradients)

    def repeat(self, steps: int | None) -> None:
        """The next step, and all that follow up to `steps`, would be the last one again."""
        result = self.result
        result.steady = True
        if steps is not None:
            result.reserved_by_step += [result.peak_reserved] * (steps - result.steps)
            result.steps = steps

    def account(self) -> None:
        """Fill in the phases of the last step."""
        accounts, phases, left = Accounts(self.now, self.sizes), self.result.phases, self.left
        accounts.book([*self.found, *left], 1)
        # Where the memory ran out fewer phases have a mark.
        for (name, start, stop), (_, peak_reserved, reserved) in zip(_phases(self.now), self.marks, strict=False):
            phase = phases.setdefault(name, PhaseReplay(name))
            accounts.pass_phase(phase, start, stop, left)
            phase.peak_reserved = max(phase.peak_reserved, peak_reserved)
            phase.end_reserved = reserved
            left = []


def _phases(step: Expansion) -> list[tuple[str, int, int]]:
    """Every phase with its first event and the one after its last."""
    starts = [start for _, start in step.phases] + [len(step.events)]
    return [(name, start, starts[place + 1]) for place, (name, start) in enumerate(step.phases)]


def _run(
    events: Sequence[int],
    blocks: list[Any],
    sizes: list[int],
    allocate: Callable[[int], Any],
    free: Callable[[Any], None],
) -> None:
    """The hot loop. A block's size is noted at once: freed, it merges with others."""
    keep, note = blocks.append, sizes.append
    for event in events:
        if event < 0:
            block = allocate(-event)
            keep(block)
            note(block.size)
        else:
            free(blocks[event])
