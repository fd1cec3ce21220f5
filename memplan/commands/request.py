"""A command line made into a configuration, in the one way that all commands share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memplan.config import devices
from memplan.config.device import Device
from memplan.config.load import build_run, load_model, load_request, parse_override
from memplan.config.presets import names
from memplan.config.validate import validate_run
from memplan.errors import ConfigurationError

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run


def resolve(
    source: str,
    settings: Sequence[str],
    device_name: str | None,
    options: Mapping[str, object],
    implementation: str | None = None,
) -> "tuple[Model, Run, Device]":
    """The model of `source` with `settings` (key=value) laid over it, its run and its device, all of it checked.

    A TOML file brings a run and a device of its own; `options` and `device_name` win over them.
    """
    model, run_keys, file_device = read(source, settings, implementation)
    device = load_device(device_name or file_device or "cpu")
    run = build_run(model, {**run_keys, **options})
    return model, validate_run(model, run, device), device


def read(
    source: str, settings: Sequence[str], implementation: str | None
) -> "tuple[Model, dict[str, object], str | None]":
    """The model of `source` with `settings` laid over it, and the run's keys and the device that a TOML file brings."""
    overrides = dict(parse_override(text) for text in settings)
    if source.lower().endswith(".toml") and source not in names():
        if implementation not in (None, "reference"):
            raise ConfigurationError(f"--implementation {implementation} takes a config.json, not a TOML file")
        return load_request(source, overrides)
    return load_model(source, overrides, implementation), {}, None


def load_device(name: str) -> Device:
    """The device of that name; `local` is asked of this machine's driver."""
    if not name.strip().lower().startswith("local"):
        return devices.load_device(name)
    from memplan.measure.local import load_device as load_local  # a millisecond that other devices do without

    return load_local(name)
