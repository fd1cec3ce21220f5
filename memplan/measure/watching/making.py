"""From what `memplan.watch` is given to a watch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memplan.config.device import Device
from memplan.config.fields import show
from memplan.config.library.model import LibraryModel
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import run_from, validate_model, validate_run
from memplan.errors import ConfigurationError, MissingDependencyError
from memplan.measure.local import load_device

if TYPE_CHECKING:
    from memplan.measure.watching.settings import Settings
    from memplan.measure.watching.watcher import Watch

WHAT = "the module that is trained, a Trainer of transformers, a preset's name, a config.json or a configuration"


def make_watch(model: Any, run: Any, device: Any, settings: Settings) -> Watch:
    """The watch of these. Raises ConfigurationError for what cannot be meant."""
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "watch: a run is watched in PyTorch, and torch is not installed", 'pip install "memplan[torch]"'
        )
    import torch
    from torch import nn

    from memplan.measure.watching.place import device_at
    from memplan.measure.watching.subject import Subject
    from memplan.measure.watching.watcher import Watch

    place = load_device(device) if isinstance(device, str) else device
    if not (place is None or isinstance(place, Device)):
        raise ConfigurationError(f"device: must be a name or a Device, not {show(place)}")
    if not (run is None or isinstance(run, (TrainingRun, Mapping))):
        raise ConfigurationError(f"run: must be a TrainingRun or settings of one by name, not {show(run)}")
    subject = Subject(device=place)
    if _is_trainer(model):
        if run is not None:
            raise ConfigurationError("watch: a Trainer has a run of its own", "leave out run")
        from memplan.measure.watching.callbacks.transformers import WatchedTrainer

        return WatchedTrainer(model, place, settings)
    if isinstance(model, nn.Module):
        subject.module = model
    elif isinstance(model, (str, os.PathLike)):
        subject.model = validate_model(load_model(model))
    elif isinstance(model, (Transformer, LibraryModel)):
        subject.model = validate_model(model)
    else:
        raise ConfigurationError(f"model: must be {WHAT}, not {show(model)}")
    if place is not None:
        _check_place(place, subject.module)
    if subject.model is not None:
        if place is None:
            if torch.cuda.is_available():
                raise ConfigurationError("device: is missing: cpu, or local for the card", "a configuration is nowhere")
            subject.device = place = device_at(torch.device("cpu"))
        if run is None:
            raise ConfigurationError(
                f"run: is missing: a configuration does not say how it is trained: {subject.model.name}",
                "give a TrainingRun, or the module that is trained in place of its configuration",
            )
        asked = run_from(subject.model, run) if isinstance(run, Mapping) else run
        subject.run = validate_run(subject.model, asked, place)
    elif isinstance(run, TrainingRun):
        subject.changes = {name: getattr(run, name) for name in TrainingRun.__dataclass_fields__}
    elif run is not None:
        unknown = [name for name in run if name not in TrainingRun.__dataclass_fields__]
        if unknown:
            raise ConfigurationError(f"run: {', '.join(map(show, unknown))} is no setting of a run")
        subject.changes = dict(run)
    return Watch(subject, settings)


def _is_trainer(model: Any) -> bool:
    """Whether it is a Trainer of transformers, without importing that."""
    return any(
        kind.__module__ == "transformers.trainer" and kind.__qualname__ == "Trainer" for kind in type(model).__mro__
    )


def _check_place(place: Device, module: Any) -> None:
    """Raises ConfigurationError for a device that the run cannot be on."""
    import torch

    parameter = None if module is None else next(module.parameters(), None)
    if parameter is not None and parameter.device.type != place.backend:
        raise ConfigurationError(f"device: {place.name}: the module is on {parameter.device}", "leave device out")
    if place.backend == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device: {place.name}: PyTorch {torch.__version__} has no card here", "leave it out")
    threads = torch.get_num_threads()
    if place.backend == "cpu" and place.threads != threads:
        raise ConfigurationError(
            f"device: {place.name} has {place.threads} threads, and PyTorch runs with {threads}",
            f"leave it out, or torch.set_num_threads({place.threads})",
        )
