"""The simulated card made like one of the catalogue. Import this before PyTorch makes its CUDA context."""

from __future__ import annotations

import os
from typing import Any

import torch

from memplan.config.context import context_of
from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.kernels import generation_of
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.estimate import backend_of
from memplan.measure.card import Card
from memplan.measure.cuda import measure_on_card

SHARED_KIB = {(7, 0): 96, (7, 5): 64, (8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227}
"""Shared memory a block may ask for (CUDA C++ Programming Guide, technical specifications); 99 where not named."""


def make_card(name: str) -> tuple[Device, Card]:
    """The device of that name, and PyTorch's view of a simulated card like it."""
    device = load_device(name)
    major, minor = generation_of(device)
    cudnn = torch._C._cudnn.getCompileVersion()
    settings = {
        "SIMULATED_NAME": f"simulated {name}",
        "SIMULATED_MAJOR": major,
        "SIMULATED_MINOR": minor,
        "SIMULATED_MULTIPROCESSORS": device.multiprocessors,
        "SIMULATED_THREADS": backend_of(device).threads_per_multiprocessor,
        "SIMULATED_SHARED": SHARED_KIB.get((major, minor), 99) * 1024,
        "SIMULATED_TOTAL": device.capacity_bytes,
        "SIMULATED_CONTEXT": context_of(device).bytes,  # so that the estimate's room is the card's
        "SIMULATED_CUDNN": cudnn[0] * 10_000 + cudnn[1] * 100 + cudnn[2],
    }
    for variable, value in settings.items():
        os.environ[variable] = str(value)
    # Scale and overflow flag are written by kernels, which did not run: read back, they would look like an overflow.
    torch.amp.GradScaler.get_scale = lambda scaler: scaler._init_scale  # type: ignore[method-assign]
    torch.amp.GradScaler._maybe_opt_step = lambda scaler, optimizer, state: optimizer.step()  # type: ignore[method-assign]
    return device, Card(device)


def run_for_real(model: Transformer, run: TrainingRun, card: Card, history: bool = False) -> dict[str, Any]:
    """What memplan measures on a card, less what only a driver knows."""
    measured = measure_on_card(model, run, card, history)
    measured["environment"] |= {"simulated": True, "driver": None}
    measured.pop("driver_memory", None)
    measured.pop("loss_is_finite", None)
    if "tiers" in measured:
        measured["tiers"] |= {"device_bytes": None, "context_bytes": None}
    return measured
