"""The device `local`: a card of this machine, or a MIG slice of one, as its driver reports it now.

`local` is the first card that CUDA sees, `local:1` the second, `local:GPU-8f3a` the one whose uuid begins so
(`local:MIG-...` for a slice). CUDA_VISIBLE_DEVICES counts as it does for any program.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from memplan.config import devices
from memplan.config.device import Device
from memplan.config.fields import show
from memplan.errors import ConfigurationError, NotModelledError
from memplan.units import MIB

if TYPE_CHECKING:
    from memplan.config.card import Card
    from memplan.measure.driver import Driver
    from memplan.measure.visible import Reading


def load_device(name: str) -> Device:
    """The device of that name: all that memplan.config.devices knows, and `local`. Raises ConfigurationError, or
    MissingDependencyError where this machine has no driver."""
    if not isinstance(name, str) or name.strip().partition(":")[0].lower() != "local":
        return devices.load_device(name)
    from memplan.measure.driver import read_driver

    which = _which(name)
    driver = read_driver()
    reading = _chosen(which, driver)
    return _card(_numbered(int(which)) if which.isdigit() else f"local:{reading.uuid}", reading, driver)


def local_devices() -> tuple[Card, ...]:
    """Every card and slice that CUDA sees here, by the names `load_device` takes. Raises as that does."""
    from memplan.measure.driver import read_driver
    from memplan.measure.visible import order_is_known, visible

    driver = read_driver()
    by_number = order_is_known(driver.readings, os.environ)
    return tuple(
        _card(_numbered(number) if by_number else f"local:{reading.uuid}", reading, driver)
        for number, reading in enumerate(visible(driver.readings, os.environ))
    )


def uuid_of(name: str) -> str:
    """The uuid of a local card: what CUDA_VISIBLE_DEVICES must say for a program to have this card and no other."""
    from memplan.measure.driver import read_driver

    return _chosen(_which(name), read_driver()).uuid


def _card(name: str, reading: Reading, driver: Driver) -> Card:
    """What the driver keeps for itself no program can have, so it is no part of the capacity: with it a verdict would
    promise some hundreds of MiB too many. What other processes hold stays in, and is told beside it."""
    from memplan.config.card import Card

    capacity = reading.total_bytes - reading.reserved_bytes
    own = reading.process_bytes(os.getpid()) or 0
    listed = devices.card_named(reading.name, capacity)
    size = f"{reading.total_bytes / MIB:,.0f} MiB"
    if reading.reserved_bytes:
        size += f", {reading.reserved_bytes / MIB:,.0f} of them the driver's own"
    return Card(
        name=name,
        backend="cuda",
        capacity_bytes=capacity,
        description=reading.name,
        source=f"NVML, driver {driver.version} (CUDA {driver.cuda_version}): {size}",
        compute_capability=reading.compute_capability,
        multiprocessors=reading.multiprocessors or (listed.multiprocessors if listed is not None else 0),
        used_by_others_bytes=max(reading.used_bytes - own, 0),
    )


def _which(name: str) -> str:
    """The number or the beginning of a uuid that a name ends in; "0" for `local`."""
    _, colon, which = name.strip().partition(":")
    which = which if colon else "0"
    number = which.isascii() and which.isdigit() and len(which) <= 4
    if not (number or which[:4].upper() in ("GPU-", "MIG-")):
        raise ConfigurationError(
            f"device: {show(name)} names no card: local:1 is the second, local:GPU-... the one with that uuid"
        )
    return which


def _chosen(which: str, driver: Driver) -> Reading:
    from memplan.measure.visible import beginning_with, order_is_known, visible

    seen = visible(driver.readings, os.environ)
    if not seen:
        _refuse_nothing(driver)
    if not which.isdigit():
        found = beginning_with(which, seen)
        if len(found) == 1:
            return found[0]
        what = "is more than one card or slice" if found else "is no card that CUDA sees here"
        raise ConfigurationError(f"device: {show(f'local:{which}')} {what}", f"there are {_listing(seen)}")
    if not order_is_known(driver.readings, os.environ):
        raise NotModelledError(
            "device: local: the cards of this machine differ, and CUDA counts the fastest first by a rule of its own",
            f"set CUDA_DEVICE_ORDER=PCI_BUS_ID, or say which: {_listing(seen)}",
        )
    number = int(which)
    if number >= len(seen):
        count = "one card" if len(seen) == 1 else f"{len(seen)} cards"
        raise ConfigurationError(
            f"device: local:{number}: CUDA sees {count} here, and the first is local", f"there are {_listing(seen)}"
        )
    return seen[number]


def _numbered(number: int) -> str:
    return f"local:{number}" if number else "local"


def _listing(seen: tuple[Reading, ...]) -> str:
    return ", ".join(f"local:{reading.uuid} ({reading.name})" for reading in seen)


def _refuse_nothing(driver: Driver) -> NoReturn:
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver.readings and setting is not None:
        raise ConfigurationError(
            f"device: local: CUDA_VISIBLE_DEVICES={show(setting)} leaves no card to be seen",
            f"unset it, or name one of {', '.join(reading.uuid for reading in driver.readings)}",
        )
    if driver.sliced:
        raise ConfigurationError(
            f"device: local: MIG mode is on ({', '.join(driver.sliced)}) and there is no slice",
            "nvidia-smi mig -cgi ... -C makes one, nvidia-smi -mig 0 ends the mode",
        )
    raise ConfigurationError(
        "device: local: the NVIDIA driver lists no card",
        "nvidia-smi -L shows what it sees; or name a card: memplan devices",
    )
