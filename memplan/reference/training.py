"""One training step with teacher forcing: forward, loss, backward, optimizer step."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memplan.config.run import TrainingRun
from memplan.reference.model import Batch

Mark = Callable[[str], None]


def make_optimizer(model: nn.Module, run: TrainingRun) -> torch.optim.Optimizer:
    """The optimizer and implementation the run asks for."""
    foreach, fused = run.optimizer_implementation == "foreach", run.optimizer_implementation == "fused"
    parameters = model.parameters()
    if run.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=1e-4, momentum=run.momentum, foreach=foreach, fused=fused)
    kind = torch.optim.AdamW if run.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=1e-4, foreach=foreach, fused=fused)


def compute_loss(model: nn.Module, batch: Batch, run: TrainingRun, mark: Mark) -> Tensor:
    """Mean cross-entropy, in fp32, of one micro-batch."""
    with torch.autocast(batch.tokens.device.type, torch.bfloat16, enabled=run.precision == "bf16-mixed"):
        mark("forward")
        logits = model(batch)
        mark("loss")
        loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), batch.labels.view(-1))
        if run.gradient_accumulation_steps > 1:
            loss = loss / run.gradient_accumulation_steps
        return loss


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, run: TrainingRun, mark: Mark
) -> Tensor:
    """One optimizer step over `gradient_accumulation_steps` micro-batches. `mark` is told where each phase begins."""
    mark("zero_grad")
    optimizer.zero_grad(set_to_none=True)
    for _ in range(run.gradient_accumulation_steps):
        loss = compute_loss(model, batch, run, mark)
        mark("backward")
        loss.backward()  # type: ignore[no-untyped-call]
    mark("optimizer_step")
    optimizer.step()
    mark("end")
    return loss
