"""One training step with every layer spelled out: what a caching allocator has to see.

A composed ledger holds the first, one middle and the last layer of a stack. Here the middle segments are repeated, and
every death names the very allocation that dies by its ordinal, the how-manieth birth of the step it was. Layers run
upwards (forward, optimizer step) or downwards (backward, with its recomputation), as the traced ones did. In the pass
of middle layer l

- an allocation of the middle layer is that of layer l;
- one of the first (last) layer stands for the neighbour's, that of layer l - 1 (l + 1): the twin of the tensor that the
  last (first) layer frees for the middle one. Only at the edge is it the first (last) layer's own.

In the pass of the last (first) layer an allocation of the middle one is that of the layer next to it; outside of the
stack it is the one made last. Everything else is refused.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

from memplan.errors import NotModelledError
from memplan.ledger import INITIAL, Allocation, Ledger, Repeat, Segment

FIRST, MIDDLE, LAST = 0, 1, 2

Key = tuple[object, ...]


class Expansion:
    """A step as numbers: `events` holds -size for a birth and, for a death, the ordinal of what dies."""

    __slots__ = (
        "births", "carried", "created", "dropped", "events", "initial", "initial_visits", "made", "phases", "sources",
        "starts", "visits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.initial: list[Allocation] = []
        """What exists before the step, in order of birth, one entry for every copy."""
        self.initial_visits: list[Visit] = []
        self.events: list[int] = []
        self.births: list[Allocation] = []
        """By ordinal; the copies of a repeated layer share theirs."""
        self.starts: list[int] = []
        self.visits: list[Visit] = []
        """Who gives birth, and the first ordinal of each."""
        self.phases: list[tuple[str, int]] = []
        """Every phase as it comes, and its first event."""
        self.created: list[tuple[int, int, int]] = []
        """What the first step makes and every later one finds: phase and event before which it does, index into
        `initial`; in order."""
        self.made: list[int] = []
        """The ordinals of these, if this is the first step."""
        self.sources: list[int] = []
        """Their indices into the `initial` of a later step."""
        self.carried: list[int] = []
        """Ordinals alive until the next step drops the gradients, in the order in which it does."""
        self.dropped: list[int] = []
        """Ordinals alive until the step returns: the loss."""

    def layer(self, ordinal: int) -> int | None:
        """The number of the layer that an allocation belongs to; None outside of any stack."""
        before = bisect_left(self.made, ordinal)
        if before < len(self.made) and self.made[before] == ordinal:
            return _layer([visit.base for visit in self.initial_visits], self.initial_visits, self.sources[before])
        return _layer(self.starts, self.visits, ordinal - before)

    def initial_layer(self, index: int) -> int | None:
        """The same for number `index` of `initial`."""
        return _layer([visit.base for visit in self.initial_visits], self.initial_visits, index)

    def first_step(self) -> Expansion:
        """The first step of a fresh process: with the births of what it makes."""
        if not self.created:
            return self
        first = Expansion()
        first.initial_visits, first.starts, first.visits = self.initial_visits, self.starts, self.visits
        first.sources = [index for _, _, index in self.created]
        absent = set(first.sources)
        first.initial = [allocation for index, allocation in enumerate(self.initial) if index not in absent]
        moved: list[int] = []  # ordinal -> ordinal in the first step
        done = 0
        for _, event, index in [*self.created, (0, len(self.events), -1)]:
            for death in self.events[done:event]:
                if death < 0:
                    moved.append(len(first.births))
                    first.births.append(self.births[len(moved) - 1])
                first.events.append(death if death < 0 else moved[death])
            done = event
            if index >= 0:
                first.made.append(len(first.births))
                first.births.append(self.initial[index])
                first.events.append(-self.initial[index].size)
        first.phases = [
            (name, start + bisect_left(self.created, (number,))) for number, (name, start) in enumerate(self.phases)
        ]
        first.carried = [moved[ordinal] for ordinal in self.carried]
        first.dropped = [moved[ordinal] for ordinal in self.dropped]
        return first


class Visit:
    """One segment: births number `base` and up, `count` in each of its passes."""

    __slots__ = ("base", "copies", "count", "last_layer", "phase", "repeat", "segment", "step")

    def __init__(self, segment: Segment, phase: int, base: int) -> None:
        self.segment = segment
        self.phase = phase  # how many have begun before
        self.repeat: Repeat | None = segment.repeat
        self.copies = segment.copies
        self.step = 1  # from pass to pass: -1 where layers run downwards
        self.base = base  # counted from the first birth of the step, or of what exists before
        self.count = 0
        self.last_layer = 0  # of its stack, if that is composed

    @property
    def position(self) -> int:
        """FIRST, MIDDLE or LAST, in a composed stack."""
        assert self.repeat is not None
        return self.repeat.index

    def beside(self, other: Visit) -> bool:
        """Whether both are of the same composed stack."""
        ours, theirs = self.repeat, other.repeat
        return bool(ours and theirs and ours.stack == theirs.stack and self.last_layer)

    def layer(self, index: int) -> int | None:
        """The layer that pass number `index` is of."""
        if self.repeat is None:
            return None
        turn = index if self.step > 0 else self.copies - 1 - index
        return self.repeat.first + turn * self.repeat.period

    def ordinal(self, layer: int, number: int) -> int:
        """Birth `number` of a middle layer's pass."""
        return self.base + number + self.count * (layer - 1 if self.step > 0 else self.copies - layer)


def expand(ledger: Ledger) -> Expansion:
    """Spell a ledger out. Raises NotModelledError where it is not certain which layer's tensor dies."""
    return _Expander(ledger).run()


class _Expander:
    """The work in progress."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.visits: list[Visit] = []
        self.first_event: list[int] = []  # of each visit, spelled out
        self.born: dict[Allocation, tuple[Visit, int]] = {}  # where, as the how-manieth
        self.twins: dict[Allocation, Allocation] = {}
        self.result = Expansion()

    def run(self) -> Expansion:
        self.scan()
        self.pair()
        result, events = self.result, self.ledger.events
        for visit in self.visits:
            segment = visit.segment
            self.first_event.append(len(result.events))
            births = [allocation for allocation, birth in events[segment.start : segment.stop] if birth] * visit.copies
            if segment.phase == INITIAL:
                result.initial += births
                result.initial_visits.append(visit)
                continue
            if visit.phase > len(result.phases):
                result.phases.append((segment.phase, len(result.events)))
            result.births += births
            result.starts.append(visit.base)
            result.visits.append(visit)
            if visit.copies == 1:
                self.spell_once(visit)
            else:
                self.spell_passes(visit)
        self.find_created()
        if self.ledger.micro_batches > 2:
            from memplan.micro_batches import repeat_micro_batch  # few runs have so many

            repeat_micro_batch(result, self.ledger.micro_batches - 2)
        self.find_survivors()
        return result

    def scan(self) -> None:
        """Number all births, and find the direction of every visit to a middle layer."""
        events, born = self.ledger.events, self.born
        segments = self.ledger.segments
        depths = {each.repeat.stack: each.copies + 1 for each in segments if each.repeat and each.copies > 1}
        latest: dict[str, Visit] = {}  # of each stack
        ordinal, phase, before = 0, 0, INITIAL
        for segment in segments:
            if segment.phase != before:
                ordinal = 0 if before == INITIAL else ordinal
                phase, before = phase + 1, segment.phase
            visit = Visit(segment, phase, ordinal)
            repeat = segment.repeat
            if repeat is not None and repeat.stack in depths:
                visit.last_layer = depths[repeat.stack]
                previous = latest.get(repeat.stack)
                if previous is not None and segment.copies > 1:
                    visit.step = previous.step if previous.position == MIDDLE else MIDDLE - previous.position
                latest[repeat.stack] = visit
            for allocation, birth in events[segment.start : segment.stop]:
                if birth:
                    born[allocation] = (visit, visit.count)
                    visit.count += 1
            ordinal += visit.count * visit.copies
            self.visits.append(visit)

    def pair(self) -> None:
        """Find the middle layer's twin of every allocation of the first (last) layer that dies in the middle one: of
        those that die in the last (first) one, that which is made alike, in the same phase and order."""
        events, born = self.ledger.events, self.born
        orphans: dict[Key, list[Allocation]] = {}
        offered: dict[Key, list[Allocation]] = {}
        for visit in self.visits:
            if not visit.last_layer:
                continue
            for allocation, birth in events[visit.segment.start : visit.segment.stop]:
                home, _ = born[allocation]
                if birth or not home.beside(visit) or home.position == visit.position:
                    continue
                assert visit.repeat is not None
                made = (visit.repeat.stack, allocation.module, allocation.operation, allocation.shape, allocation.dtype)
                if visit.position == MIDDLE:
                    key: Key = (home.position - MIDDLE, home.phase, visit.phase, *made)
                    orphans.setdefault(key, []).append(allocation)
                elif home.position == MIDDLE:
                    key = (MIDDLE - visit.position, home.phase, visit.phase, *made)
                    offered.setdefault(key, []).append(allocation)
        for key, allocations in orphans.items():
            others = offered.get(key, [])
            if len(others) != len(allocations):
                raise uncertain(allocations[0])
            allocations.sort(key=self.birth_order)
            others.sort(key=self.birth_order)
            self.twins.update(zip(allocations, others, strict=True))

    def birth_order(self, allocation: Allocation) -> tuple[int, int]:
        visit, number = self.born[allocation]
        return (visit.segment.start, number)

    def spell_once(self, visit: Visit) -> None:
        """A pass that runs as it was traced."""
        segment, born, spelled = visit.segment, self.born, self.result.events
        for allocation, birth in self.ledger.events[segment.start : segment.stop]:
            if birth:
                spelled.append(-allocation.size)
                continue
            home, number = born[allocation]
            if home.segment.phase == INITIAL:
                raise uncertain(allocation)
            if home.copies == 1:
                spelled.append(home.base + number)
            elif not home.beside(visit):
                spelled.append(home.base + number + home.count * (home.copies - 1))
            else:
                spelled.append(home.ordinal(1 if visit.position == FIRST else home.copies, number))

    def spell_passes(self, visit: Visit) -> None:
        """Every layer's pass: event j of pass i is first[j] + i * change[j], but for a few at the edge."""
        segment, born, step = visit.segment, self.born, visit.step
        first: list[int] = []
        change: list[int] = []
        edges: list[tuple[int, int, int]] = []  # pass, event, ordinal
        for allocation, birth in self.ledger.events[segment.start : segment.stop]:
            if birth:
                first.append(-allocation.size)
                change.append(0)
                continue
            home, number = born[allocation]
            if not home.beside(visit) or home.segment.phase == INITIAL:
                raise uncertain(allocation)
            layer = 1 if step > 0 else visit.copies
            if home.position != MIDDLE:
                neighbour = home.position - MIDDLE
                edges.append((0 if neighbour == -step else visit.copies - 1, len(first), home.base + number))
                layer += neighbour
                home, number = born[self.twins[allocation]]
            first.append(home.ordinal(layer, number))
            change.append(home.count * step * home.step)
        events = self.result.events
        begin, length = len(events), len(first)
        template = list(zip(first, change, strict=True))
        for index in range(visit.copies):
            events += [start + index * each for start, each in template]
        for index, event, ordinal in edges:
            events[begin + index * length + event] = ordinal

    def find_created(self) -> None:
        """What only the first step makes: at its first use; optimizer states, where nothing else is known, when the
        optimizer step begins (torch/optim/adam.py, _init_group)."""
        events, first_use, first_phase = self.ledger.events, self.ledger.first_use, self.ledger.first_phase
        phases, created = self.result.phases, self.result.created
        by_default = next((place for place, (name, _) in enumerate(phases) if name == "optimizer_step"), None)
        for visit in self.result.initial_visits:
            for place, (allocation, _) in enumerate(events[visit.segment.start : visit.segment.stop]):
                use = first_use.get(allocation)
                if allocation in self.ledger.found:
                    continue
                if use is None and (allocation.component != "optimizer_state" or by_default is None):
                    continue
                for index in range(visit.copies):
                    number = visit.base + index * visit.count + place
                    if use is not None:
                        created.append((*self.spelled_out(use, first_phase.get(allocation), visit, index), number))
                    elif by_default is not None:
                        created.append((by_default, phases[by_default][1], number))
        created.sort()

    def spelled_out(self, event: int, phase: int | None, maker: Visit, index: int) -> tuple[int, int]:
        """Phase and place of an event of the ledger, of `phase` where that is given. In a middle layer's segment it is
        that of the first pass, or, for what belongs to the same stack, of the same layer's."""
        for visit, first in zip(self.visits, self.first_event, strict=True):
            segment = visit.segment
            if phase is not None and visit.phase != phase:
                continue
            if segment.start <= event < segment.stop and segment.phase != INITIAL:
                turn = 0
                if visit.copies > 1 and maker.copies > 1 and maker.beside(visit):
                    turn = index if maker.step == visit.step else visit.copies - 1 - index
                return visit.phase - 1, first + turn * (segment.stop - segment.start) + event - segment.start
        phases = self.result.phases
        if phase is not None and phase < len(phases):
            return phase - 1, phases[phase][1]  # nothing follows it there
        return len(phases) - 1, len(self.result.events)

    def find_survivors(self) -> None:
        """What outlives the step, and a check: nothing dies twice."""
        result = self.result
        deaths = [event for event in result.events if event >= 0]
        dead = set(deaths)
        if len(dead) != len(deaths):
            raise uncertain(next(result.births[ordinal] for ordinal in dead if deaths.count(ordinal) > 1))
        for ordinal, allocation in enumerate(result.births):
            if ordinal not in dead:
                (result.carried if allocation.component == "gradients" else result.dropped).append(ordinal)
        result.carried.sort(key=self.place_of_gradient())

    def place_of_gradient(self) -> Callable[[int], tuple[int, int, int]]:
        """By ordinal: where zero_grad comes to it, which goes by the order of the parameters. Those of a stack follow
        each other layer by layer; what belongs to no parameter comes last, as it was made."""
        order, births, layer_of = self.ledger.gradient_order, self.result.births, self.result.layer
        last = max(order.values(), default=0) + 1
        first_of_stack: dict[str, int] = {}
        for allocation, place in order.items():
            stack, star, _ = allocation.module.partition("*")
            if star:
                first_of_stack[stack] = min(first_of_stack.get(stack, last), place)

        def place_of(ordinal: int) -> tuple[int, int, int]:
            allocation, layer = births[ordinal], layer_of(ordinal)
            place = order.get(allocation, last)
            if layer is None or place == last:
                return (place, 0, 0)
            return (first_of_stack.get(allocation.module.partition("*")[0], place), layer, place)

        return place_of


def uncertain(allocation: Allocation) -> NotModelledError:
    """It is not known which copy of an allocation dies, or one dies that no step has made."""
    where = f" of {allocation.module}" if allocation.module else ""
    return NotModelledError(
        f"cannot tell which layer's {allocation.operation}{where} dies", "trace every layer (every_layer=True)"
    )


def _layer(starts: list[int], visits: list[Visit], number: int) -> int | None:
    at = bisect_right(starts, number) - 1
    return visits[at].layer((number - starts[at]) // max(visits[at].count, 1))
