"""One run profiled: measured as ever, and beside that over time and by the clock."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.measure.course import course_of_history
from memplan.measure.exhaustion import is_exhaustion
from memplan.measure.timing import Timed, library_writing, times, training, writing

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.measure.card import Card


def profile_on_cpu(model: Model, run: Run, device: Device, runs: int) -> dict[str, Any]:
    """What memplan measures of `run` (memplan/profiles.py, `Record`), with `memory_over_time` and, where `runs` is not
    0, `times` of so many runs at least. `model` and `run` have been validated."""
    measured: dict[str, Any]
    if isinstance(run, TrainingRun):
        from memplan.measure.run import measure_training

        measured = measure_training(model, run, device, over_time=True)
    elif isinstance(model, Transformer):
        from memplan.measure.generation import measure_generation

        measured = measure_generation(model, run, device, over_time=True)
    else:
        from memplan.measure.library_generation import measure_library_generation

        measured = measure_library_generation(model, run, device, over_time=True)
    if runs:
        torch.set_num_threads(device.threads)
        with warnings.catch_warnings(), torch.backends.mkldnn.flags(enabled=True):  # as PyTorch comes
            warnings.filterwarnings("ignore", "TF32 acceleration")  # told of Intel's GPUs when the setting is put back
            measured["times"] = times(_on_cpu(model, run), device, run.precision, runs)
    return measured


def profile_on_card(model: Model, run: TrainingRun, card: Card, runs: int, name: str) -> dict[str, Any]:
    """The same on a card, whose name in the catalogue is `name` ("" where it is not in it)."""
    from memplan.measure.cuda import measure_on_card

    measured = measure_on_card(model, run, card, history=True)
    history = measured.pop("history")
    if measured["outcome"] != "ran":
        return measured
    measured["memory_over_time"] = course_of_history(history, max(step for step, _, _ in history["marks"]))
    if runs:
        try:
            measured["times"] = times(training(model, run, card.target), card.device, run.precision, runs, name)
        except Exception as error:  # it was measured: there is only no room for a second model beside what is left
            if not is_exhaustion(error):
                raise
    return measured


def _on_cpu(model: Model, run: Run) -> Timed:
    if isinstance(run, TrainingRun):
        return training(model, run, torch.device("cpu"))
    if isinstance(model, Transformer):
        return writing(model, run)
    return library_writing(model, run)
