"""From the command line of `memplan explain` to what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memplan.errors import ConfigurationError

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run


def request_of(
    model: str | None,
    settings: Sequence[str],
    device: str | None,
    run: Mapping[str, object],
    implementation: str | None,
) -> tuple[Model, Run, Device] | None:
    """The plan that is asked for; None where no model is named. Raises ConfigurationError for options that go with a
    model and have none, and for a model without its card."""
    if model is None:
        given = [f"--{name.replace('_', '-')}" for name in run]
        for option, value in (("--set", settings), ("--device", device), ("--implementation", implementation)):
            given += [option] if value else []
        if given:
            raise ConfigurationError(f"{given[0]} says something of a plan, and there is none", "name it with --model")
        return None
    from memplan.commands.request import read, resolve

    if device is None and read(model, settings, implementation)[2] is None:
        raise ConfigurationError(
            "--device: the snapshot does not say which card it is of, and the plan depends on it",
            "for example --device h100-80gb; `memplan devices` lists the names",
        )
    return resolve(model, settings, device, run, implementation)


def index_of(text: str | None) -> int | None:
    """The number of a device in the snapshot. Raises ConfigurationError for what is none."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigurationError(f"--device-index: must be a whole number from 0, not {text[:40]!a}", "for example 0")
    return int(text)
