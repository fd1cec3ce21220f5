"""What a training run keeps beside the weights: optimizer, gradient scaler, fp32 copies, step and generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memplan.checkpoint.saved import Entry, SavedTensor
from memplan.config.run import TrainingRun
from memplan.config.setups import scales_gradients
from memplan.errors import NotModelledError

GENERATOR_BYTES = 5056
"""`torch.get_rng_state()`: the state of the CPU's generator."""

LEARNING_RATE = 1e-4  # any number: a float needs 9 bytes whatever it is
GROWTH_INTERVAL = 2000


def optimizer_state(run: TrainingRun, parameters: Sequence[Entry]) -> dict[str, Any]:
    """`optimizer.state_dict()` after a step (torch/optim/adam.py, adamw.py, sgd.py, optimizer.py) of an optimizer that
    was given all `parameters`, or the fp32 copies of them. Those that no step reaches have a number and no state."""
    masters = run.master_weights != "none"
    entries = [(number, entry) for number, entry in enumerate(parameters) if entry.reached]
    if run.optimizer == "sgd":
        state = {number: _momentum(entry, masters) for number, entry in entries} if run.momentum else {}
        group = _sgd_group(run)
    elif run.optimizer in ("adam", "adamw"):
        state = {number: _moments(entry, masters) for number, entry in entries}
        group = _adam_group(run)
    else:
        raise NotModelledError(f"optimizer: what {run.optimizer} saves is not modelled yet", "use --optimizer adamw")
    return {"state": state, "param_groups": [{**group, "params": list(range(len(parameters)))}]}


def _moments(entry: Entry, masters: bool) -> dict[str, SavedTensor]:
    shape, dtype = entry.tensor.shape, "fp32" if masters else entry.tensor.dtype
    return {
        "step": SavedTensor((), "fp32"),
        "exp_avg": SavedTensor(shape, dtype),
        "exp_avg_sq": SavedTensor(shape, dtype),
    }


def _momentum(entry: Entry, masters: bool) -> dict[str, SavedTensor]:
    return {"momentum_buffer": SavedTensor(entry.tensor.shape, "fp32" if masters else entry.tensor.dtype)}


def _adam_group(run: TrainingRun) -> dict[str, Any]:
    """Adam's own weight decay is the integer 0, AdamW's a float."""
    return {
        "lr": LEARNING_RATE,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 1e-2 if run.optimizer == "adamw" else 0,
        "amsgrad": False,
        "maximize": False,
        "foreach": run.optimizer_implementation == "foreach",
        "capturable": False,
        "differentiable": False,
        "fused": run.optimizer_implementation == "fused",
        "decoupled_weight_decay": run.optimizer == "adamw",
    }


def _sgd_group(run: TrainingRun) -> dict[str, Any]:
    return {
        "lr": LEARNING_RATE,
        "momentum": run.momentum,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "maximize": False,
        "foreach": run.optimizer_implementation == "foreach",
        "differentiable": False,
        "fused": run.optimizer_implementation == "fused",
    }


def scaler_state(step: int) -> dict[str, Any]:
    """`torch.amp.GradScaler.state_dict()` after so many steps of which none overflowed."""
    return {
        "scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": GROWTH_INTERVAL,
        "_growth_tracker": step % GROWTH_INTERVAL,
    }


def training_state(run: TrainingRun, parameters: Sequence[Entry], step: int) -> dict[str, Any]:
    """Everything but the weights, under the keys that memplan's checkpoints have: `optimizer`, `scaler` and
    `master_weights` (fp32 copies in the order of the parameters) where there are some, `step`, `rng_state`. Parameters
    that ask for no gradient are no business of it."""
    trained = [entry for entry in parameters if entry.requires_grad]
    state: dict[str, Any] = {"optimizer": optimizer_state(run, trained)}
    if scales_gradients(run):
        state["scaler"] = scaler_state(step)
    if run.master_weights != "none":
        state["master_weights"] = [SavedTensor(entry.tensor.shape, "fp32") for entry in trained]
    return {**state, "step": step, "rng_state": SavedTensor((GENERATOR_BYTES,), "uint8")}
