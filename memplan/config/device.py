"""Where the run happens: a card, or the CPU with a stated number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from memplan.config.card import Card as Card

DEFAULT_CPU_THREADS = 2
"""Threads of the device `cpu`. Fixed, so that the same request gives the same bytes on every machine: some CPU kernels
keep a buffer per thread. `cpu:8` asks for eight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device. `capacity_bytes` is what the driver lets programs have of it, 0 where no capacity is fixed (the CPU).

    One with the backend "cuda" is always a Card (card.py): `Device(**record)` makes the one or the other.
    """

    name: str
    backend: Literal["cpu", "cuda"]
    capacity_bytes: int = 0
    threads: int = 0  # cpu only
    description: str = ""
    source: str = ""  # where capacity_bytes comes from

    # Fields of Card alone, so that the CPU's records, and the fingerprints made of them, stay as they are.
    compute_capability = ""
    multiprocessors = 0
    context_bytes = 0
    used_by_others_bytes = 0

    def __new__(cls, *, backend: str = "cpu", **_fields: Any) -> Device:
        """copy and pickle give no fields: they set them afterwards."""
        if backend == "cuda" and cls is Device:
            card: type[Device] = __getattr__("Card")
            return object.__new__(card)
        return object.__new__(cls)

    @property
    def available_bytes(self) -> int:
        """What a job can have now: the capacity less what other processes hold of it."""
        return max(self.capacity_bytes - self.used_by_others_bytes, 0)


def __getattr__(name: str) -> Any:
    """`Card` can be had from here too. Defining it takes a millisecond, which the CPU's path does not pay."""
    if name == "Card":
        from memplan.config.card import Card

        return Card
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
