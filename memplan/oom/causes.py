"""A plain reading of a message: why there was not enough, as far as its own figures tell.

A statement is made only where it holds for every size that prints as the message says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memplan.oom.message import Message
from memplan.oom.printed import together
from memplan.oom.shares import WIDEST_CONTEXT, held_by_others, is_this_process, outside
from memplan.units import human

Kind = Literal[
    "larger_than_card", "other_processes", "limit", "fragmentation", "too_large", "free_but_refused", "spilled",
    "private_pools", "block_limit", "container", "elsewhere", "library", "driver", "nvml", "host", "shared_segment",
    "nothing_said",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """One statement. `size` is the bytes that it is about, 0 where it is about none."""

    kind: Kind
    text: str
    size: int = 0


def causes(message: Message) -> tuple[Cause, ...]:
    """Everything that the message tells of why, the most telling first."""
    if message.kind == "cpu":
        return (Cause("host", "the machine's own memory ran out, or the process may not have more of it (ulimit, a "
                              "container's limit): no card is involved"),)  # fmt: skip
    if message.kind in ("library", "driver", "nvml", "bare"):
        return (_without_figures(message),)
    found = [*_blocked(message), *_never(message), *_limited(message), *_others(message)]
    found += [*_loose(message), *_short(message), *_free(message, bool(found)), *_spilled(message), *_pools(message)]
    found += _shared(message)
    if is_this_process(message):
        number = message.others[0].number
        found.append(Cause("container", f"process {number} is this one itself: in a container it has another number"))
    if not any(cause.kind not in ("shared_segment", "private_pools", "container") for cause in found):
        found.append(Cause("nothing_said", "the figures of the message do not tell more"))
    return tuple(found)


def _without_figures(message: Message) -> Cause:
    if message.kind == "library":
        return Cause(
            "library",
            f"{message.library}: a library asked the driver for memory beside PyTorch's allocator and got none; the "
            "card was full already, by what the allocator keeps or by other processes",
        )
    if message.kind == "driver":
        return Cause(
            "driver",
            "the driver itself had none left: for a context, a kernel or a library, beside PyTorch's allocator. The "
            "line of the traceback may be a later one: kernels run asynchronously",
        )
    if message.kind == "nvml":
        return Cause(
            "nvml",
            "PyTorch ran out of memory and failed while it put the message together: NVML, which it asks who uses the "
            "card, did not answer. How much was asked for is lost; a driver newer than PyTorch's, MIG and containers "
            "are what makes NVML fail",
        )
    return Cause("nothing_said", "the log says that memory ran out, and no figure")


def _blocked(message: Message) -> list[Cause]:
    if not message.block_limit or message.asked is None:
        return []
    return [Cause("block_limit", f"the platform gives no single block of {message.asked.text}, however much is free")]


def _never(message: Message) -> list[Cause]:
    asked, capacity = message.asked, message.capacity
    if asked is None or capacity is None or asked.low <= capacity.high:
        return []
    return [
        Cause(
            "larger_than_card",
            f"{asked.text} is more than the whole card has ({capacity.text}): it can never fit in one piece",
            asked.low - capacity.high,
        )
    ]


def _limited(message: Message) -> list[Cause]:
    limit, asked, held = message.limit, message.asked, message.held
    if limit is None or asked is None:
        return []
    if message.kind == "mps":
        own = [size for size in (message.allocated, message.other_allocations, asked) if size is not None]
        return [
            Cause(
                "limit",
                f"what is allocated and what was asked for exceed the most that MPS allows itself, {limit.text} "
                "(PYTORCH_MPS_HIGH_WATERMARK_RATIO); the rest of the machine's memory is left to others",
                max(together(own)[1] - limit.low, 0),
            )
        ]
    if held is None or message.free is None or message.free.high < asked.low or held[1] + asked.high <= limit.low:
        return []
    return [
        Cause(
            "limit",
            f"the process allows itself {limit.text} (set_per_process_memory_fraction, or per_process_memory_fraction "
            f"in PYTORCH_ALLOC_CONF): the card still had {message.free.text} free",
            max(held[1] + asked.high - limit.low, 0),
        )
    ]


def _others(message: Message) -> list[Cause]:
    asked, free = message.asked, message.free
    found = []
    own = is_this_process(message)
    others = held_by_others(message)
    if asked is not None and free is not None and others and free.low < asked.high:
        said = f"{human(others)} of the card is held by other processes"
        if not message.others or own:
            said += " or by what the message does not name (graphics, other containers)"
        if others >= asked.high - free.low:
            said += f"; without them the {asked.text} would have fitted"
        found.append(Cause("other_processes", said, others))
    if message.kind == "async" and message.capacity and message.free and message.allocated:
        beyond = message.capacity.low - message.free.high - message.allocated.high
        if beyond > WIDEST_CONTEXT:
            said = "is neither in this process's tensors nor free: other processes hold it, or the driver's own pool"
            found.append(Cause("elsewhere", f"{human(beyond)} of the card {said}", beyond))
    return found


def _loose(message: Message) -> list[Cause]:
    """Reserved memory that no tensor uses, and too little of it in one piece."""
    asked, loose = message.asked, message.loose
    if message.kind != "caching" or asked is None or loose is None:
        return []
    free = message.free.low if message.free is not None else 0
    limited = message.limit is not None
    if loose[0] >= asked.high:
        said = (
            f"PyTorch holds {human(sum(loose) // 2)} that no tensor uses, more than was asked for, but not in one piece"
        )
    elif not limited and loose[0] + free >= asked.high > free:
        said = (
            f"{human(sum(loose) // 2)} that PyTorch holds and no tensor uses, and {human(free)} that are free, are "
            "together enough, but lie in pieces that cannot be joined"
        )
    else:
        return []
    if message.backend in ("CUDA", "HIP", ""):
        said += "; PYTORCH_ALLOC_CONF=expandable_segments:True joins such pieces"
    return [Cause("fragmentation", f"fragmentation: {said}", sum(loose) // 2)]


def _short(message: Message) -> list[Cause]:
    """Simply too large: even with nothing lost in gaps."""
    asked, allocated, capacity = message.asked, message.allocated, message.capacity
    if message.kind == "mps" or asked is None or allocated is None or capacity is None:
        return []
    short = allocated.low + asked.low - capacity.high
    if short <= 0:
        beyond, loose = outside(message), message.loose
        if beyond is None or loose is None or message.free is None:
            return []
        short = asked.low - message.free.high - loose[1]
        if short <= 0:
            return []
        return [
            Cause(
                "too_large",
                f"too large for the room it had: what is free and what PyTorch holds unused are together at least "
                f"{human(short)} less than {asked.text}, so no setting of the allocator helps",
                short,
            )
        ]
    return [
        Cause(
            "too_large",
            f"too large: the tensors that are alive ({allocated.text}) and the {asked.text} are at least "
            f"{human(short)} more than the card has ({capacity.text})",
            short,
        )
    ]


def _free(message: Message, explained: bool) -> list[Cause]:
    asked, free = message.asked, message.free
    if explained or asked is None or free is None or free.low < asked.high:
        return []
    return [
        Cause(
            "free_but_refused",
            f"{free.text} were free when the message was written, more than the {asked.text} that were refused: the "
            "process may not use them (set_per_process_memory_fraction, which older releases do not mention), the "
            "driver gives no block so large (Windows, WSL), or another process has given them back since",
            free.low,
        )
    ]


def _spilled(message: Message) -> list[Cause]:
    allocated, capacity = message.allocated, message.capacity
    if allocated is None or capacity is None or allocated.low <= capacity.high:
        return []
    return [
        Cause(
            "spilled",
            f"{allocated.text} are allocated on a card of {capacity.text}: the driver (Windows, WSL) had moved the "
            "rest into the machine's own memory, which is many times slower",
            allocated.low - capacity.high,
        )
    ]


def _pools(message: Message) -> list[Cause]:
    if message.private_pools is None:
        return []
    return [
        Cause(
            "private_pools",
            f"{message.private_pools.text} of what is allocated belong to private pools (CUDA graphs): nobody else can "
            "use them while the graphs live",
            message.private_pools.middle,
        )
    ]


def _shared(message: Message) -> list[Cause]:
    from memplan.oom.asking import tensor_sizes

    sizes = tensor_sizes(message)
    if message.kind != "caching" or not sizes or not all(each.shared for each in sizes):
        return []
    assert message.asked is not None
    most = max(each.high for each in sizes)
    return [
        Cause(
            "shared_segment",
            f"{message.asked.text} is the segment that the allocator takes for any tensor of up to {human(most)}: the "
            "card was full, and this small tensor is not the reason",
            most,
        )
    ]
