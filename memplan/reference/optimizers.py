"""Which optimizer updates which parameter, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from memplan.config.run import TrainingRun
from memplan.errors import MissingDependencyError
from memplan.reference.lion import Lion

Parameters = Sequence[nn.Parameter]
LEARNING_RATE = 1e-4


class Together:
    """Several optimizers that step one after another."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)


class InBackward(Together):
    """An optimizer for each parameter, which steps as soon as the backward pass has made the gradient; then that is
    dropped (https://docs.pytorch.org/tutorials/intermediate/optimizer_step_in_backward_tutorial.html)."""

    def __init__(self, parameters: Parameters, kinds: Sequence[str], run: TrainingRun) -> None:
        self.optimizers = {
            parameter: build(kind, [parameter], run) for parameter, kind in zip(parameters, kinds, strict=True)
        }
        super().__init__(list(self.optimizers.values()))
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self.update)  # type: ignore[no-untyped-call]

    def update(self, parameter: torch.Tensor) -> None:
        """What is called when the gradient of `parameter` is there."""
        optimizer = self.optimizers[parameter]  # type: ignore[index]
        optimizer.step()
        optimizer.zero_grad()


def kinds_of(model: nn.Module, run: TrainingRun) -> list[str]:
    """The optimizer of each of `model.parameters()` that is trained. Muon is for the matrices of layers; embeddings,
    heads, norms and biases have AdamW."""
    if run.optimizer != "muon":
        return [run.optimizer for each in model.parameters() if each.requires_grad]
    matrices = set()
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) or not any(part.isdigit() for part in path.split(".")):
            continue
        matrices |= {parameter for parameter in module.parameters(recurse=False) if parameter.ndim == 2}
    return ["muon" if each in matrices else "adamw" for each in model.parameters() if each.requires_grad]


def build_all(parameters: Parameters, kinds: Sequence[str], run: TrainingRun) -> list[torch.optim.Optimizer]:
    """One optimizer of each kind, Muon before AdamW."""
    return [
        build(kind, [each for each, its_kind in zip(parameters, kinds, strict=True) if its_kind == kind], run)
        for kind in sorted(set(kinds), reverse=True)
    ]


def build(kind: str, parameters: Iterable[nn.Parameter], run: TrainingRun) -> torch.optim.Optimizer:
    """One optimizer, in the implementation the run asks for."""
    foreach, fused = run.optimizer_implementation == "foreach", run.optimizer_implementation == "fused"
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=run.momentum, foreach=foreach, fused=fused)
    if kind == "adafactor":
        return torch.optim.Adafactor(parameters, lr=LEARNING_RATE, foreach=foreach)
    if kind == "muon":
        return torch.optim.Muon(parameters, lr=LEARNING_RATE)
    if kind == "lion":
        return Lion(parameters, lr=LEARNING_RATE)
    if kind in BITSANDBYTES:
        optimizer: torch.optim.Optimizer = getattr(_bitsandbytes(), BITSANDBYTES[kind])(parameters, lr=LEARNING_RATE)
        return optimizer
    maker = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    epsilon = 1e-4 if run.precision == "fp16" and run.master_weights == "none" else 1e-8  # fp16 rounds 1e-8 to 0
    return maker(parameters, lr=LEARNING_RATE, eps=epsilon, foreach=foreach, fused=fused)


BITSANDBYTES = {"adamw-8bit": "AdamW8bit", "paged-adamw": "PagedAdamW", "paged-adamw-8bit": "PagedAdamW8bit"}


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise MissingDependencyError(
            "the real run of this optimizer needs bitsandbytes, which is not installed", "pip install bitsandbytes"
        ) from error
    return optim
