"""One training step with teacher forcing: forward, loss, backward, optimizer step."""

from __future__ import annotations

from memplan.config.run import TrainingRun
from memplan.ops.autograd import backward
from memplan.ops.elementwise import div, to
from memplan.ops.loss import cross_entropy
from memplan.ops.optim import SGD, Adam, Optimizer
from memplan.ops.size import product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import reshape
from memplan.transformer.model import Batch, Transformer


def make_optimizer(trace: Trace, model: Transformer, run: TrainingRun) -> Optimizer:
    """The optimizer and implementation the run asks for."""
    parameters = model.parameters()
    if run.optimizer == "sgd":
        return SGD(trace, parameters, run.optimizer_implementation, run.momentum)
    return Adam(trace, parameters, run.optimizer_implementation, weight_decay=run.optimizer == "adamw")


def compute_loss(trace: Trace, model: Transformer, batch: Batch, run: TrainingRun) -> Tensor:
    """Mean cross-entropy, in fp32, of one micro-batch."""
    with trace.autocast("bf16" if run.precision == "bf16-mixed" else None):
        trace.enter_phase("forward")
        logits = model(batch)
        trace.enter_phase("loss")
        trace.module = "loss"
        loss = cross_entropy(flatten(to(logits, "fp32")), flatten(batch.labels))
        if run.gradient_accumulation_steps > 1:
            loss = div(loss, float(run.gradient_accumulation_steps))
        return loss


def flatten(tensor: Tensor) -> Tensor:
    """[..., classes] -> [rows, classes] for logits, [...] -> [rows] for labels (which hold integers)."""
    kept = () if tensor.dtype == "int64" else tensor.shape[-1:]
    return reshape(tensor, (product(tensor.shape[: len(tensor.shape) - len(kept)]), *kept))


def training_step(trace: Trace, model: Transformer, optimizer: Optimizer, batch: Batch, run: TrainingRun) -> Tensor:
    """One optimizer step over `gradient_accumulation_steps` micro-batches. From the second one on they are all alike:
    gradients exist and are added to."""
    trace.enter_phase("zero_grad")
    optimizer.zero_grad()
    for _ in range(min(run.gradient_accumulation_steps, 2)):
        loss = compute_loss(trace, model, batch, run)
        trace.enter_phase("backward")
        backward(loss)
    trace.enter_phase("optimizer_step")
    optimizer.step()
    trace.enter_phase("end")
    return loss
