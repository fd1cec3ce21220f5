"""Which tensor was asked for: every birth of a run whose size fits the message, ranked by where the memory runs out.

What decides, in this order: whether the replay with as much memory as the message tells of fails at this very request
with the message's own figures; whether as much was allocated then as the message says; what the traceback says; what
comes first. A size that fits says little alone: a model has many tensors of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memplan.allocator import Settings
from memplan.estimate import LedgerLine, line_of
from memplan.ledger import INITIAL
from memplan.oom.asking import Asking
from memplan.oom.failing import Failure, agrees
from memplan.oom.hints import Hints
from memplan.oom.message import Message
from memplan.oom.steps import Name, Stage, Steps
from memplan.timeline import Tensor


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor that may have been asked for. `allocated` is what the blocks of all others take at that moment, `apart`
    how far that is from what the message says (0: within it, or the message says nothing).

    `slack` is by how much the blocks of the others are larger than their tensors. `replayed` counts the replays that
    fail here with all figures of the message, `met` those that fail here at all. `rises` says that no moment before had
    so much allocated. `traceback` are the points of hints.py.
    """

    step: Name
    phase: str
    tensor: Tensor
    number: int  # of the tensor in its stage
    allocated: int
    apart: int
    slack: int
    rises: bool
    replayed: int = 0
    met: int = 0
    traceback: int = 0
    besides: int | None = (
        None  # what the run holds beyond its configuration, in bytes, if this is the one (shifting.py)
    )
    failure: Failure | None = None  # of a replay that ends here, one with all figures where there is one

    @property
    def consistent(self) -> bool:
        """Whether the moment is the message's: as far as it says anything, and the traceback does not speak of another
        phase."""
        if self.replayed or self.besides is not None:
            return True
        return self.apart == 0 and not self.contradicted

    @property
    def contradicted(self) -> bool:
        """Whether the traceback speaks of another phase."""
        return self.traceback < -1

    @property
    def line(self) -> LedgerLine:
        """The tensor as a line of the ledger, the number of its layer in the module's path."""
        return replace(line_of(self.tensor.allocation, 1), module=self.tensor.module)


def candidates(
    message: Message,
    steps: Steps,
    settings: Settings,
    failed: Sequence[Failure],
    hints: Hints,
    unbounded: Sequence[int],
) -> list[Candidate]:
    """All of them, the likeliest first. `failed` are the replays (failing.py), `unbounded` the blocks of three steps
    without a limit; () for the CPU, where a tensor takes what it asks for. A message without a size is met where a
    replay fails."""
    asking = Asking(message, settings) if message.asked is not None else None
    found: list[Candidate] = []
    for stage in steps.stages():
        blocks = steps.blocks(unbounded, 1 if stage.name == "first" else 3) if unbounded else None
        found += _of_stage(message, stage, asking, blocks)
    found = _met(found, steps, failed, message, asking)
    if asking is None:
        found = [each for each in found if each.met]
    found = [replace(each, traceback=_points(each, hints)) for each in found]
    order = {id(each): place for place, each in enumerate(found)}
    return sorted(found, key=lambda each: (*_rank(each, message), order[id(each)]))


def _rank(each: Candidate, message: Message) -> tuple[float, ...]:
    """Less is likelier."""
    exact = bool(each.replayed)
    silent = message.allocated is None or message.kind == "mps"
    return (
        -exact,
        -each.traceback if exact else 0,
        -each.replayed,
        not each.consistent,
        -each.traceback if each.consistent else each.contradicted,
        0 if silent else each.apart,
        -each.met,
        not each.rises if silent else 0,
        -each.allocated if silent else 0,
    )


def _points(each: Candidate, hints: Hints) -> int:
    return hints.agreement(each.phase, each.tensor.operation, each.tensor.module)


def _of_stage(message: Message, stage: Stage, asking: Asking | None, blocks: list[int] | None) -> list[Candidate]:
    """The births of a stage with the right size; of the first step, what is loaded before it too."""
    timeline = stage.timeline
    tensors = timeline.tensors
    rounded = [(tensor.size + 511) & -512 if blocks is not None else tensor.size for tensor in tensors]
    sizes = rounded if blocks is None else [*blocks, *rounded[len(blocks) :]]
    found: list[Candidate] = []

    def consider(number: int, phase: str, step: Name, alive: int, least: int, rises: bool) -> None:
        tensor = tensors[number]
        if asking is not None and not asking.matches(tensor.size):
            return
        apart = _apart(message, alive, alive - least)
        found.append(Candidate(step, phase, tensor, number, alive, apart, alive - least, rises))

    alive = least = 0
    for number in range(stage.offset):
        if stage.name == "first":
            consider(number, INITIAL, "loading", alive, least, True)
        alive += sizes[number]
        least += rounded[number]
    highest = alive
    for event, number in enumerate(timeline.events):
        if number >= 0:
            rises = alive + sizes[number] > highest
            consider(number, stage.phase(event), stage.name, alive, least, rises)
            alive += sizes[number]
            least += rounded[number]
            highest = max(highest, alive)
        else:
            alive -= sizes[~number]
            least -= rounded[~number]
    return found


def _apart(message: Message, alive: int, slack: int) -> int:
    """How far what is allocated lies from what the message says. Blocks can be larger than what they are for, and by
    how much depends on what was freed before: up to `slack` less is as good."""
    said = message.allocated
    if said is None or message.kind not in ("caching", "async"):
        return 0
    if alive - slack <= said.high and alive >= said.low:
        return 0
    return min(abs(said.distance(alive)), abs(said.distance(alive - slack)))


def place_of(failure: Failure, steps: Steps) -> tuple[Name, int]:
    """Where a replay failed, as candidates say it: the stage, and the number of the tensor in it."""
    if failure.stage == "loading":
        return "loading", failure.number
    stage = steps.later if failure.stage == "later" and not steps.alike else steps.first
    return stage.name, stage.offset + failure.number


def _met(
    found: list[Candidate], steps: Steps, failed: Sequence[Failure], message: Message, asking: Asking | None
) -> list[Candidate]:
    """The candidates with the replays that fail at them."""
    replayed: dict[tuple[Name, int], int] = {}
    met: dict[tuple[Name, int], int] = {}
    nearest: dict[tuple[Name, int], Failure] = {}
    for failure in failed:
        key = place_of(failure, steps)
        met[key] = met.get(key, 0) + 1
        whole = agrees(failure, message, asking) and message.allocated is not None and asking is not None
        replayed[key] = replayed.get(key, 0) + whole
        if key not in nearest or (whole and not agrees(nearest[key], message, asking)):
            nearest[key] = failure
    result = []
    for each in found:
        key = (each.step, each.number)
        if key in met:
            failure = nearest[key]
            each = replace(
                each,
                met=met[key],
                replayed=replayed[key],
                failure=failure,
                allocated=failure.allocated if replayed[key] else each.allocated,
                apart=0 if replayed[key] else each.apart,
            )
        result.append(each)
    return result
