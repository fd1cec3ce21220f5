"""Which card a message may be from: its capacity says, where nobody does."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.device import Device
from memplan.config.devices import catalogue
from memplan.config.devices import load_device as load_named
from memplan.errors import ConfigurationError, NotModelledError
from memplan.oom.message import Message

NEAR = 50
"""A card's capacity differs by driver and by ECC: by less than one part in so many."""

MOST = 3
"""Kinds of cards that are tried."""


def devices_for(message: Message, named: Device | None = None) -> tuple[Device, ...]:
    """The devices that a message can be from, the likeliest first: the one that is named; else the CPU, or cards of the
    catalogue with nearly the capacity that the message tells, one of each compute capability, with that capacity.

    Raises ConfigurationError where the named device contradicts the message or none has its capacity, and
    NotModelledError for devices that memplan has no rules for.
    """
    backend = message.backend or "CUDA"
    if backend not in ("CUDA", "CPU"):
        raise NotModelledError(
            f"the message is of {backend}, whose kernels memplan has no rules for",
            "without --model, memplan oom says what the message itself tells",
        )
    if backend == "CPU":
        if named is not None and named.backend != "cpu":
            raise ConfigurationError(
                f"--device: the message is of the CPU's allocator, not of {named.name}", "leave --device out"
            )
        return (named or load_named("cpu"),)
    if named is not None:
        if named.backend == "cpu":
            raise ConfigurationError(
                f"device: the message is of a card, not of {named.name}", "name the card, such as --device h100-80gb"
            )
        return (named,)
    if message.capacity is None:
        raise ConfigurationError(
            "--device: is missing: the message does not say how much the card has", "for example --device h100-80gb"
        )
    capacity = message.capacity.middle
    near = sorted(
        (card for card in catalogue() if abs(card.capacity_bytes - capacity) * NEAR <= capacity),
        key=lambda card: abs(card.capacity_bytes - capacity),
    )
    found: dict[str, Device] = {}
    for card in near:
        found.setdefault(card.compute_capability, replace(card, capacity_bytes=capacity))
    if not found:
        raise ConfigurationError(
            f"--device: is missing: no card of the catalogue has {message.capacity.text}",
            "`memplan devices` lists them; name one of the same generation, such as --device h100-80gb",
        )
    return tuple(found.values())[:MOST]
