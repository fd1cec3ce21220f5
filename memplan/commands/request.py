"""A command line made into a configuration, in the one way that all commands share."""

from collections.abc import Mapping, Sequence

from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.load import build_run, load_model, load_request, parse_override
from memplan.config.model import Transformer
from memplan.config.presets import names
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run


def resolve(
    source: str, settings: Sequence[str], device_name: str | None, options: Mapping[str, object]
) -> tuple[Transformer, TrainingRun, Device]:
    """The model of `source` with `settings` (key=value) laid over it, its run and its device, all of it checked.

    A TOML file brings a run and a device of its own; `options` and `device_name` win over them.
    """
    overrides = dict(parse_override(text) for text in settings)
    if source.lower().endswith(".toml") and source not in names():
        model, run_keys, file_device = load_request(source, overrides)
    else:
        model, run_keys, file_device = load_model(source, overrides), {}, None
    device = load_device(device_name or file_device or "cpu")
    run = build_run(model, {**run_keys, **options})
    return model, validate_run(model, run, device), device
