"""One training run of the reference transformer on a CUDA card, measured: steps to warm up, then one that counts.

Out of memory is a result here, not an error. Not measured: bytes by component (the allocator does not know them; sizes
of the tensors that outlive the step are recorded instead), and time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from memplan.config.library.model import LibraryModel
from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError
from memplan.measure.card import Card
from memplan.measure.exhaustion import figures, is_exhaustion
from memplan.measure.history import strip
from memplan.measure.materialise import build_model
from memplan.measure.meter import Meter
from memplan.measure.run import KERNELS, gradients_of, library_environment, make_batch, states_of
from memplan.reference.model import Batch
from memplan.reference.training import AnyOptimizer, compute_loss, make_optimizer, make_scaler, training_step

WARM_UP_STEPS = 3
"""The first step creates the optimizer's state; the allocator's segments settle one or two steps later."""


def measure_on_card(
    config: Configuration | LibraryModel, run: TrainingRun, card: Card, history: bool = False
) -> dict[str, Any]:
    """Run `config` on the card and return what was seen, ready for JSON (memplan/profiles.py, `Record`).

    `config` and `run` have been validated. With `history` the answer holds every event of the allocator as well, as
    PyTorch's own snapshot. Raises MeasurementError where the card's memory was not empty before, and where a step was
    skipped, which needs less than one that is taken.
    """
    left = card.clear()
    if left:
        raise MeasurementError(f"{left:,} bytes are still allocated on the card before the run")
    torch.manual_seed(0)
    before = card.memory()
    if history:
        card.start_history()
    meter = Meter(card.counters, card.reset_peaks)
    environment = card.environment() | library_environment(config)
    measured: dict[str, Any] = {"environment": environment, "outcome": "ran"}
    try:
        measured |= _train(config, run, card, meter)
    except Exception as error:
        if not is_exhaustion(error):
            raise
        measured |= {"outcome": "out_of_memory", "sdpa_kernels": [], "phases": []}
        measured["out_of_memory"] = {"step": len(meter.steps), "phase": meter.phase, **figures(error)}
    measured["allocator"] = {
        "peak_allocated_bytes": meter.peak_allocated,  # of all steps, as far as they came
        "peak_reserved_bytes": meter.peak_reserved,
        "num_alloc_retries": meter.since_start("num_alloc_retries"),
        "num_ooms": meter.since_start("num_ooms"),
        "num_device_alloc": meter.since_start("num_device_alloc"),
        "num_device_free": meter.since_start("num_device_free"),
    }
    measured["steps"] = meter.peaks()
    measured["driver_memory"] = {
        "before_context": card.before_context,
        "after_context": card.after_context,
        "before_run": before,
        **measured.pop("driver_memory", {}),
    }
    if history:
        measured["history"] = strip({"marks": meter.marks, **card.stop_history()})
    return measured


def subject_on(
    config: Configuration | LibraryModel, run: TrainingRun, target: torch.device
) -> tuple[nn.Module, Callable[[], Any], Callable[..., object]]:
    """The model on the card, what makes its batch once the optimizer is made, and a step of training it."""
    if isinstance(config, Configuration):
        return build_model(config, run, target), lambda: make_batch(config, run, target), training_step
    from memplan.measure.library import build_model_on, make_library_batch, train_step

    return build_model_on(config, run, target), lambda: make_library_batch(config, run, target), train_step


def _forward(model: nn.Module, batch: Any, run: TrainingRun) -> None:
    """One forward pass more."""
    if isinstance(batch, Batch):
        compute_loss(model, batch, run, lambda phase: None)
        return
    from memplan.measure.library import forward

    forward(model, batch, run, lambda phase: None)


def _train(config: Configuration | LibraryModel, run: TrainingRun, card: Card, meter: Meter) -> dict[str, Any]:
    """All steps. What it holds on the card is free when it returns or fails, whoever catches the error."""
    model, new_batch, step = subject_on(config, run, card.target)
    optimizer = make_optimizer(model, run)
    scaler = make_scaler(run, card.target.type)
    batch = new_batch()
    loss: torch.Tensor | None = None
    for _ in range(WARM_UP_STEPS + 1):
        loss = None  # a step finds nothing of the one before but gradients
        loss = loss_of(step(model, optimizer, batch, run, meter.mark, scaler))
    assert loss is not None
    meter.stop()
    at_end = card.memory()
    finite = bool(torch.isfinite(loss.detach().cpu()))
    if scaler is not None and scaler.get_scale() < scaler._init_scale:
        raise MeasurementError("gradients overflowed in fp16, so a step was skipped and its memory says nothing")
    phases = meter.phases()
    tensor_bytes = _tensor_bytes(model, optimizer, batch)
    optimizer.zero_grad(set_to_none=True)
    del loss
    context, basis = context_bytes(at_end, card.before_context)
    return {
        "sdpa_kernels": _kernels(model, batch, run),
        "phases": phases,
        "tiers": {
            "allocated_bytes": max(int(phase["peak_allocated_bytes"]) for phase in phases),
            "reserved_bytes": meter.peak_reserved,
            "device_bytes": context + meter.peak_reserved,
            "context_bytes": context,
        },
        "tensor_bytes": tensor_bytes,
        "loss_is_finite": finite,
        "driver_memory": {"at_end": at_end, "basis": basis},
    }


def loss_of(result: Any) -> torch.Tensor:
    """The loss of what a step returns: itself, or the outputs of a library's model."""
    loss: torch.Tensor = result if isinstance(result, torch.Tensor) else result.loss
    return loss.detach()


def context_bytes(memory: dict[str, int | None], others: int | None) -> tuple[int, str]:
    """What the driver counts beyond the allocator's segments, and on what basis: `process`, or, where the driver does
    not tell a process's share, `card`: all that is in use there, less what `others` used before."""
    held = memory["reserved_bytes"] or 0
    if memory["process_bytes"] is not None:
        return memory["process_bytes"] - held, "process"
    return (memory["card_bytes"] or 0) - (others or 0) - held, "card"


def _tensor_bytes(model: nn.Module, optimizer: AnyOptimizer, batch: Any) -> dict[str, int]:
    """Sizes of what outlives the step, before the allocator rounds them up."""
    parameters = list(model.parameters())
    return {
        "parameters": _sum(parameters),
        "gradients": _sum(gradients_of(model, optimizer)),
        "optimizer_state": _sum(states_of(optimizer)),
        "inputs": _sum(list(vars(batch).values())),
    }


def _sum(values: list[Any]) -> int:
    return sum(value.untyped_storage().nbytes() for value in values if isinstance(value, torch.Tensor))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the operations that reach a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.names.add(f"aten::{function.__name__.partition('.')[0]}")
        return function(*arguments, **(keywords or {}))


def _kernels(model: nn.Module, batch: Any, run: TrainingRun) -> list[str]:
    """Which kernels of scaled_dot_product_attention run, seen in one more forward pass behind the step that counts;
    "unknown" where no memory is left for it."""
    with _Operations() as operations:
        try:
            _forward(model, batch, run)
        except Exception as error:
            if not is_exhaustion(error):
                raise
            return ["unknown"]
    fused = sorted({KERNELS[name] for name in operations.names if name in KERNELS})
    # The math kernel is made of operations of its own, so its name is never seen here.
    return fused or (["math"] if run.attention == "sdpa" else [])
