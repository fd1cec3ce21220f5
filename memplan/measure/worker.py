"""The child process that runs PyTorch: requests come in as lines of JSON, results go out as lines of JSON.

Started as `python -m memplan.measure.worker`. Results have a channel of their own; whatever PyTorch prints goes to
standard error, where the parent keeps it for the case that something fails. A request either asks what the bytes of a
run depend on here (`environment`), or names a model and a run to be measured.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import MemplanError, NotModelledError
from memplan.profiles import request_of
from memplan.residuals import card_name

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.measure.card import Card

_cards: dict[Device, Card] = {}
"""A card's context is made once, whatever number of runs follows."""


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "model" not in request:
            return {"environment": _environment(_device(request))}
        model, run, device = request_of({"kind": request["kind"], "request": request})
        if request.get("timed_runs") is not None:
            return _profiled(model, run, device, request["timed_runs"])
        if not isinstance(run, TrainingRun):
            if not isinstance(model, Transformer):
                from memplan.measure.library_generation import measure_library_generation

                return {"measured": measure_library_generation(model, run, device)}
            from memplan.measure.generation import measure_generation

            return {"measured": measure_generation(model, run, device)}
        if device.backend == "cpu":
            from memplan.measure.run import measure_training

            return {"measured": measure_training(model, run, device)}
        from memplan.measure.cuda import measure_on_card

        card = _card(device)
        measured = measure_on_card(model, run, card, bool(request.get("history")))
        return {"measured": measured, "left_bytes": card.clear()}
    except Exception as error:  # the parent decides what a failure means
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, MemplanError):
            return {"error": what, "message": error.message, "hint": error.hint}
        return {"error": what, "message": what, "hint": None}


def _profiled(model: Model, run: Run, device: Device, runs: int) -> dict[str, Any]:
    from memplan.measure.profiling import profile_on_card, profile_on_cpu

    if device.backend == "cpu":
        return {"measured": profile_on_cpu(model, run, device, runs)}
    if not isinstance(run, TrainingRun):
        raise NotModelledError(f"measuring generation on {device.name} is not possible yet, only on the device cpu")
    card = _card(device)
    name = card_name(device.name, str(card.environment()["card"]), device.capacity_bytes)
    return {"measured": profile_on_card(model, run, card, runs, name), "left_bytes": card.clear()}


def _device(request: dict[str, Any]) -> Device:
    # JSON has no tuples
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in request["device"].items()
    }
    return Device(**values)


def _environment(device: Device) -> dict[str, Any]:
    if device.backend == "cuda":
        return _card(device).environment()
    from memplan.measure.run import environment

    return environment(device)


def _card(device: Device) -> Card:
    from memplan.measure.card import Card

    if device not in _cards:
        _cards[device] = Card(device)
    return _cards[device]


if __name__ == "__main__":
    main()
