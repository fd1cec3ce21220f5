"""The suite `setups`: ways to set training up, each with small models of memplan and of the library transformers."""

from __future__ import annotations

from collections.abc import Iterator

from memplan.config.device import Device
from memplan.measure.suites.case import Task
from memplan.measure.suites.setups import adapters, graph, optimizers, precision


def tasks(device: Device) -> Iterator[Task]:
    """All of them, group by group."""
    for group in (precision, optimizers, graph, adapters):
        yield from group.tasks(device)
