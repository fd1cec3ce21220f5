"""A checkpoint written for real: one training step, then every file of memplan/checkpoint/sizes.py by the libraries
themselves, into a folder that is emptied again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memplan.checkpoint.sizes import OPTIMIZER_FILE, TRAINING_FILE, WEIGHTS_FILE
from memplan.checkpoint.training import GROWTH_INTERVAL
from memplan.config.library.model import LibraryModel
from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.config.setups import scales_gradients
from memplan.errors import MeasurementError, MissingDependencyError
from memplan.measure.run import subject_of
from memplan.reference.training import INITIAL_SCALE, make_optimizer

MOST_STEPS = 10
"""In fp16 a step whose gradients overflow is skipped; then there is no optimizer state yet."""

LENGTH = 4  # tokens of the batch that is trained on, which leaves no trace in a checkpoint

Key = tuple[str, str, str]
"""`weights` or `training_state`, format, name of a file."""


def write_checkpoint(
    config: Configuration | LibraryModel, run: TrainingRun, step: int, max_shard_bytes: int, folder: str
) -> dict[Key, int]:
    """Train `config` for a step, write every file of its checkpoint into `folder` and return their sizes in bytes.

    Each is removed before the next one is written. The checkpoint says that `step` steps have been taken. Raises
    MeasurementError where the model cannot be trained, MissingDependencyError where safetensors is not installed.
    """
    torch.manual_seed(0)
    model, rest = _trained(config, run, step)
    sizes: dict[Key, int] = {}

    def keep(what: str, form: str) -> None:
        for file in sorted(Path(folder).iterdir()):
            if file.name.startswith("model") or file.suffix == ".pt":
                sizes[what, form, file.name] = file.stat().st_size
            file.unlink()

    torch.save(model.state_dict(), Path(folder, WEIGHTS_FILE))
    keep("weights", "torch_save")
    torch.save({"model": model.state_dict(), **rest}, Path(folder, TRAINING_FILE))
    keep("training_state", "torch_save")
    _save_safetensors(model, folder, max_shard_bytes)
    keep("weights", "safetensors")
    sizes.update({("training_state", form, name): size for (what, form, name), size in _safetensors(sizes)})
    torch.save(rest, Path(folder, OPTIMIZER_FILE))
    keep("training_state", "safetensors")
    return sizes


def libraries(config: Configuration | LibraryModel) -> dict[str, str]:
    """The releases that wrote the files: torch, safetensors, and the library of the model."""
    from importlib.metadata import version

    names = ["torch", "safetensors", *([] if isinstance(config, Configuration) else [config.implementation])]
    return {name: version(name) for name in names}


def _safetensors(sizes: dict[Key, int]) -> list[tuple[Key, int]]:
    return [(key, size) for key, size in sizes.items() if key[1] == "safetensors"]


def _save_safetensors(model: nn.Module, folder: str, max_shard_bytes: int) -> None:
    """`save_pretrained` where the model has it; else each storage once, under its first name."""
    save = getattr(model, "save_pretrained", None)
    if save is not None:
        save(folder, max_shard_size=max_shard_bytes)
        return
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingDependencyError("safetensors is not installed", "pip install safetensors") from error
    tensors: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        tensors.setdefault(tensor.data_ptr(), (name, tensor))
    save_file(dict(tensors.values()), Path(folder, "model.safetensors"), metadata={"format": "pt"})


def _trained(config: Configuration | LibraryModel, run: TrainingRun, step: int) -> tuple[nn.Module, dict[str, Any]]:
    """The model after a step, and all else that a run saves."""
    subject = subject_of(config, _small(config, run))
    model = subject.model.to(torch.float16) if run.precision == "fp16" else subject.model
    weights = nn.ParameterList([weight for weight in model.parameters() if weight.requires_grad])
    optimizer: Any = _WithMasters(weights, run) if run.master_weights != "none" else make_optimizer(weights, run)
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL_SCALE) if scales_gradients(run) else None
    in_step = scaler if run.master_weights == "none" else None
    for _ in range(MOST_STEPS):
        try:
            subject.step(model, optimizer, subject.batch, run, _unmarked, in_step)
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise MeasurementError(f"a step of {config.name} cannot be taken, so nothing is written: {why}") from error
        if optimizer.state_dict()["state"] or (run.optimizer == "sgd" and not run.momentum):
            break
    else:
        raise MeasurementError("gradients overflow in fp16 at every scale, so no step is ever taken")
    rest: dict[str, Any] = {"optimizer": optimizer.state_dict()}
    if scaler is not None:
        scaler.load_state_dict(scaler.state_dict() | {"_growth_tracker": step % GROWTH_INTERVAL})
        rest["scaler"] = scaler.state_dict()
    if isinstance(optimizer, _WithMasters):
        rest["master_weights"] = [master.detach() for master in optimizer.masters]
    return model, {**rest, "step": step, "rng_state": torch.get_rng_state()}


def _unmarked(phase: str) -> None:
    pass


def _small(config: Configuration | LibraryModel, run: TrainingRun) -> TrainingRun:
    """The same weights trained over one short sequence, with attention that every model has."""
    two = config.architecture == "encoder-decoder"
    if isinstance(config, Configuration):
        length = min(LENGTH, config.max_positions or LENGTH)
    else:
        length = 0 if config.tokens_of_an_image else min(LENGTH, config.most_positions or LENGTH)
    return replace(
        run,
        micro_batch_size=1,
        sequence_length=0 if two else length,
        source_length=length if two else 0,
        target_length=length if two else 0,
        attention="naive",
        recompute="none",
        padding=False,
        gradient_accumulation_steps=1,
    )


class _WithMasters:
    """An optimizer of fp32 copies of the weights: gradients go to them, and what comes of it back to the weights."""

    def __init__(self, weights: nn.ParameterList, run: TrainingRun) -> None:
        self.weights = weights
        self.masters = nn.ParameterList([weight.detach().float() for weight in weights])
        plain = replace(run, precision="fp32", master_weights="none")
        single = make_optimizer(self.masters, plain)
        assert isinstance(single, torch.optim.Optimizer)  # those of several parts are refused
        self.optimizer = single
        self.state_dict: Callable[[], dict[str, Any]] = self.optimizer.state_dict

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in (*self.weights, *self.masters):
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for weight, master in self._pairs():
            master.grad = None if weight.grad is None else weight.grad.float()
        self.optimizer.step()
        for weight, master in self._pairs():
            weight.copy_(master)

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        return zip(self.weights, self.masters, strict=True)
