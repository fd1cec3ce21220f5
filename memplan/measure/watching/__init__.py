"""`memplan.watch`: a training run held against its plan while it runs, and a record of it.

Nothing here imports torch before it is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from memplan.measure.watching.findings import DriftError as DriftError
from memplan.measure.watching.findings import Finding as Finding
from memplan.measure.watching.findings import MemoryWarning as MemoryWarning
from memplan.measure.watching.findings import OnDrift

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.run import TrainingRun
    from memplan.measure.watching.watcher import Watch as Watch


def watch(
    model: Any,
    run: TrainingRun | Mapping[str, object] | None = None,
    device: Device | str | None = None,
    *,
    record: str | os.PathLike[str] | None = None,
    warn: float = 0.02,
    on_drift: OnDrift = "warn",
    recorded_step: int = 2,
    reset_peaks: bool = False,
    loop: Literal["own", "reference"] = "own",
    save_every: float = 60.0,
) -> Watch:
    """Watch a training run:

        with memplan.watch(model, record="run.json") as watch:
            for batch in loader:
                ...
                optimizer.step()
                watch.step()

    `model` is the module that is trained, a Trainer of transformers, or what estimates take: a preset's name, the path
    of a config.json, a configuration. `run` is a TrainingRun, or those settings of one that are known better than they
    can be seen. Of a model of transformers all that is left out is read off the run: its configuration, its first
    batch, autocast, the optimizer that takes the first step.

    On the CPU the profiler looks at step number `recorded_step` (0: at none) and the one before; other steps are left
    alone. On a card the allocator's counters are read behind each step; with `reset_peaks` they are reset there, and at
    the phases of the recorded step, else a peak shows only where it is the highest so far.

    `record` is the file or the folder for the record, which is written when the run ends or fails, and every
    `save_every` seconds. `warn` is the share of the measurement by which a run may differ from its plan, and `on_drift`
    what happens then: "warn" (a MemoryWarning), "raise" (DriftError), or a function of the Finding. `loop` =
    "reference" says that the loop is the one estimates are made for, so that `memplan verify --recorded` grades it.

    Raises ConfigurationError for what cannot be meant. What cannot be planned is a warning, once.
    """
    from memplan.measure.watching.settings import checked

    asked = checked(
        {
            "record": record,
            "warn": warn,
            "on_drift": on_drift,
            "recorded_step": recorded_step,
            "reset_peaks": reset_peaks,
            "loop": loop,
            "save_every": save_every,
        }
    )
    from memplan.measure.watching.making import make_watch

    return make_watch(model, run, device, asked)


def transformers_callback(**settings: Any) -> Any:
    """A callback for transformers' Trainer: `Trainer(..., callbacks=[memplan.transformers_callback(record="r.json")])`.
    The plan is made of the Trainer's own arguments, its model and its first batch. `settings` are those of `watch`."""
    from memplan.measure.watching.settings import checked

    asked = checked(settings)
    from memplan.measure.watching.callbacks.transformers import WatchCallback

    return WatchCallback(asked)


def lightning_callback(**settings: Any) -> Any:
    """A callback for Lightning's Trainer: `Trainer(..., callbacks=[memplan.lightning_callback(record="r.json")])`.
    The plan is of the model of transformers that the module holds. `settings` are those of `watch`."""
    from memplan.measure.watching.settings import checked

    asked = checked(settings)
    from memplan.measure.watching.callbacks.lightning import make_callback

    return make_callback(asked)
