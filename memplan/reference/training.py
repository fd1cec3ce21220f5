"""One training step with teacher forcing: forward, loss, backward, optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memplan.config.frozen import frozen_names
from memplan.config.run import TrainingRun
from memplan.config.setups import scales_gradients
from memplan.reference.loss import chunked_loss, fused_loss
from memplan.reference.masters import MainGradients, MasterWeights
from memplan.reference.model import Batch
from memplan.reference.optimizers import InBackward, Together, build_all, kinds_of

AnyOptimizer = torch.optim.Optimizer | Together

Mark = Callable[[str], None]

WEIGHTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}

INITIAL_SCALE = 2.0**8
"""Small enough that no gradient of a fresh model overflows: a step that is skipped needs less memory than one that
is taken."""


def freeze(model: nn.Module, run: TrainingRun) -> None:
    """No gradients for the weights that the run does not train."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in frozen_names(run, list(trained)):
        trained[name].requires_grad_(False)


def make_optimizer(model: nn.Module, run: TrainingRun) -> AnyOptimizer:
    """The optimizer and implementation the run asks for."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kinds = kinds_of(model, run)
    if run.optimizer_in_backward:
        return InBackward(parameters, kinds, run)
    if run.master_weights != "none":
        kind = MasterWeights if run.master_weights == "deepspeed" else MainGradients
        return kind(parameters, kinds, run)
    parts = build_all(parameters, kinds, run)
    return parts[0] if len(parts) == 1 else Together(parts)


def make_scaler(run: TrainingRun, device: str) -> torch.amp.GradScaler | None:
    """Gradient scaling for fp16, whose smallest gradients would vanish (https://arxiv.org/abs/1710.03740)."""
    return torch.amp.GradScaler(device, init_scale=INITIAL_SCALE) if scales_gradients(run) else None


def compute_loss(model: Any, batch: Batch, run: TrainingRun, mark: Mark) -> Tensor:
    """Mean cross-entropy, in fp32, of one micro-batch."""
    dtype = AUTOCAST.get(run.precision)
    with torch.autocast(batch.tokens.device.type, dtype, enabled=dtype is not None):
        mark("forward")
        if run.loss == "whole":
            logits = model(batch)
            mark("loss")
            loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), batch.labels.view(-1))
        else:
            x = model.read(batch, model.head.transformed)
            mark("loss")
            in_chunks = chunked_loss if run.loss == "chunked" else fused_loss
            loss = in_chunks(model.head, x, batch.labels, run.loss_chunks)
        if run.gradient_accumulation_steps > 1:
            loss = loss / run.gradient_accumulation_steps
        return loss


def training_step(
    model: nn.Module,
    optimizer: AnyOptimizer,
    batch: Batch,
    run: TrainingRun,
    mark: Mark,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """One optimizer step over `gradient_accumulation_steps` micro-batches. `mark` is told where each phase begins."""
    mark("zero_grad")
    optimizer.zero_grad(set_to_none=True)
    for _ in range(run.gradient_accumulation_steps):
        loss = compute_loss(model, batch, run, mark)
        mark("backward")
        if scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    mark("optimizer_step")
    update(optimizer, run, scaler)
    mark("end")
    return loss


def update(optimizer: AnyOptimizer, run: TrainingRun, scaler: torch.amp.GradScaler | None) -> None:
    """The optimizer step: gradients unscaled and clipped, parameters updated. One that updates in the backward pass has
    nothing left to do."""
    if isinstance(optimizer, InBackward):
        return
    if isinstance(optimizer, MasterWeights):
        optimizer.take_gradients()
    parts = optimizer.parts if isinstance(optimizer, Together) else [optimizer]
    if run.gradient_clipping:
        if scaler is not None:
            for part in parts:
                scaler.unscale_(part)
        parameters = [parameter for part in parts for group in part.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, run.gradient_clipping)
        del parameters
    for part in parts:
        if scaler is None:
            part.step()
        else:
            scaler.step(part)
    if scaler is not None:
        scaler.update()
    if isinstance(optimizer, MasterWeights):
        optimizer.give_weights()
