"""The ledger: every birth and death of one training step, in order, and what follows from it.

Repeated layers are traced a few times only (first, middle, last). A segment of events then stands for `copies` equal
passes, one after another, and the peaks of the whole stack follow by arithmetic: within a segment that changes the
bytes alive by `net`, pass number i sees the same events shifted by `i * net`, so its peak is highest in the first pass
(net <= 0) or in the last one (net > 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

INITIAL = "initial"
"""The pseudo-phase of what exists before the step begins: parameters, optimizer state, inputs."""


SKIPPED = "skipped"
"""The pseudo-phase of what is not traced on the way: of it the ledger holds what is left alone."""


class Allocation:
    """One allocation: its bytes, what made it, and why it stays. `copies` equal ones exist where layers repeat."""

    __slots__ = (
        "component", "copies", "died", "dtype", "forward_pass", "frozen", "kept", "module", "operation", "phase",
        "saved_by", "shape", "size", "weights",
    )  # fmt: skip

    def __init__(
        self,
        size: int,
        operation: str,
        shape: tuple[int, ...],
        dtype: str,
        module: str,
        phase: str,
        copies: int,
        forward_pass: int,
    ) -> None:
        self.size = size
        self.operation = operation
        self.shape = shape
        self.dtype = dtype
        self.module = module
        self.phase = phase  # in which it is born
        self.died = ""  # the phase in which it is freed; "" while it lives
        self.copies = copies
        self.component = ""  # set by whoever knows (parameters, ...), or by `classify`
        self.saved_by = ""  # the backward node that keeps it
        self.forward_pass = forward_pass  # the forward pass (or recomputed one) that made it, 0 for none
        self.kept = False  # died after that pass had ended
        self.weights: int | None = None  # of the model, that it holds; None: one in each element
        self.frozen = False  # and they are not trained


class Repeat:
    """One traced layer of a stack: its first (index 0), one that stands for `copies` layers in the middle (1), its
    last (2). `first` is the number of the layer, or of the first that it stands for.

    Where layers are not all alike, each run of equal ones counts as a stack; and what is repeated may be `period`
    layers that follow each other (`*+1` in a module path is the second of them).
    """

    __slots__ = ("copies", "first", "index", "period", "stack")

    def __init__(self, index: int, copies: int, stack: str = "", first: int | None = None, period: int = 1) -> None:
        self.index = index
        self.copies = copies
        self.stack = stack  # the dotted path of its stack, "decoder.layers"; two stacks never have the same
        self.first = index if first is None else first
        self.period = period


class Segment:
    """A run of events within one phase; it stands for `copies` equal passes, one per layer of `repeat`."""

    __slots__ = ("copies", "phase", "repeat", "start", "stop")

    def __init__(self, phase: str, copies: int, start: int, repeat: Repeat | None = None) -> None:
        self.phase = phase
        self.copies = copies
        self.start = start
        self.stop = start
        self.repeat = repeat


class Moment:
    """A point in the step: event `event` (included) of pass `index` of segment `segment`. `size` bytes are alive,
    `components` says whose they are."""

    __slots__ = ("components", "event", "index", "segment", "size")

    def __init__(self, size: int, segment: int, index: int, event: int) -> None:
        self.size = size
        self.segment = segment
        self.index = index
        self.event = event
        self.components: dict[str, int] = {}


class Ledger:
    """Births and deaths in order. An allocation's first event is its birth, its second one its death."""

    def __init__(self) -> None:
        self.events: list[tuple[Allocation, bool]] = []
        self.segments: list[Segment] = [Segment(INITIAL, 1, 0)]
        self.first_use: dict[Allocation, int] = {}
        """What exists before the step because the first step made it: index of the event before which it did."""
        self.first_phase: dict[Allocation, int] = {}
        """The phase in which it did, where that is known: how many had begun. One may be without events."""
        self.gradient_order: dict[Allocation, int] = {}
        """The place of each gradient's parameter among all: in that order the next step drops them."""
        self.found: set[Allocation] = set()
        """What the first step finds, though it is a state of the optimizer."""
        self.sdpa_kernels: set[str] = set()
        """The kernels of scaled_dot_product_attention that the step runs, where PyTorch chooses."""
        self.sampled = ""
        """What is left out of the events, in words."""
        self.micro_batches = 1
        """How many a step really has. Two are recorded at most: from the second one on they are all alike."""

    def enter(self, phase: str, copies: int, repeat: Repeat | None = None) -> None:
        """Close the current segment and open the next one."""
        last = self.segments[-1]
        last.stop = len(self.events)
        self.segments.append(Segment(phase, copies, last.stop, repeat))

    def precede(self, allocations: Iterable[Allocation], first_use: Mapping[Allocation, int]) -> None:
        """Put births in front of all events; `first_use` counts events as they were before."""
        births = [(allocation, True) for allocation in allocations]
        self.events[:0] = births
        for segment in self.segments:
            segment.start += len(births)
            segment.stop += len(births)
        self.segments[0].start = 0
        self.first_use = {allocation: index + len(births) for allocation, index in first_use.items()}

    def close(self) -> None:
        """End the last segment; nothing may be recorded afterwards."""
        self.segments[-1].stop = len(self.events)

    def classify(self) -> None:
        """Give every allocation without a component one, by its lifetime: `activations` were born in a forward pass
        (a recomputed one included) and outlived it for the backward pass; `temporaries` are everything else."""
        for allocation, birth in self.events:
            if birth and not allocation.component:
                kept = allocation.kept or (allocation.forward_pass and not allocation.died)
                allocation.component = "activations" if kept else "temporaries"

    def moments(self) -> dict[str, tuple[Moment, Moment]]:
        """For every phase, the moment of its peak (the first of equals) and its last moment.

        A phase that comes again (gradient accumulation) has the highest of its peaks and its last end.
        """
        result: dict[str, tuple[Moment, Moment]] = {}
        alive = 0
        components: dict[str, int] = {}
        events = self.events
        for number, segment in enumerate(self.segments):
            start, stop, copies = segment.start, segment.stop, segment.copies
            running = 0
            top, top_event = 0, start - 1
            net: dict[str, int] = {}
            for event in range(start, stop):
                allocation, birth = events[event]
                size, component = allocation.size, allocation.component
                if birth:
                    running += size
                    net[component] = net.get(component, 0) + size
                    if running > top:
                        top, top_event = running, event
                else:
                    running -= size
                    net[component] = net.get(component, 0) - size
            index = copies - 1 if running > 0 else 0
            before = result.get(segment.phase)
            height = alive + index * running + top
            if before is not None and before[0].size >= height:
                peak = before[0]
            else:
                peak = Moment(height, number, index, top_event)
                _advance(peak.components, components, 1)
                _advance(peak.components, net, index)
                owners = peak.components
                for allocation, birth in events[start : top_event + 1]:
                    component, size = allocation.component, allocation.size
                    owners[component] = owners.get(component, 0) + (size if birth else -size)
            alive += copies * running
            _advance(components, net, copies)
            end = Moment(alive, number, copies - 1, stop - 1)
            end.components = components
            result[segment.phase] = (peak, end)
            components = dict(components)
        return result

    def alive(self, moment: Moment) -> dict[Allocation, int]:
        """What is alive at a moment: allocation -> how many copies of it.

        A repeated layer frees what the layer before it made, so a traced layer's tensor may be freed more often than it
        is made, and its twin in the neighbouring layer less often: equal allocations are counted together.
        """
        counts: dict[tuple[object, ...], int] = {}
        latest: dict[tuple[object, ...], Allocation] = {}
        events = self.events
        for number in range(moment.segment + 1):
            segment = self.segments[number]
            if number < moment.segment:
                passes_to_event = passes_after = segment.copies
            else:
                passes_to_event, passes_after = moment.index + 1, moment.index
            for event in range(segment.start, segment.stop):
                passes = passes_to_event if event <= moment.event else passes_after
                if passes:
                    allocation, birth = events[event]
                    key = (allocation.module, allocation.operation, allocation.size, allocation.component)
                    counts[key] = counts.get(key, 0) + (passes if birth else -passes)
                    if birth:
                        latest[key] = allocation
        return {latest[key]: count for key, count in counts.items() if count}

    def births(self) -> Iterator[Allocation]:
        """Every allocation, in order of birth (one of each repeated layer)."""
        return (allocation for allocation, birth in self.events if birth)


def _advance(totals: dict[str, int], change: dict[str, int], times: int) -> None:
    for component, size in change.items():
        totals[component] = totals.get(component, 0) + times * size
