"""One training step with teacher forcing: forward, loss, backward, optimizer step."""

from __future__ import annotations

from memplan.config.frozen import frozen_names
from memplan.config.run import TrainingRun
from memplan.config.setups import scales_gradients
from memplan.errors import ConfigurationError
from memplan.ops.autograd import backward
from memplan.ops.elementwise import div, to
from memplan.ops.loss import cross_entropy
from memplan.ops.module import Module
from memplan.ops.norms import clip_grad_norm
from memplan.ops.optim import Optimizer
from memplan.ops.scaling import GradScaler
from memplan.ops.size import product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import reshape
from memplan.transformer.heads import LanguageModellingHead
from memplan.transformer.loss import chunked_loss, fused_loss
from memplan.transformer.masters import MainGradients, MasterWeights
from memplan.transformer.model import Batch, Transformer
from memplan.transformer.optimizers import InBackward, Together, build_all, kinds_of

AnyOptimizer = Optimizer | Together

AUTOCAST = {"bf16-mixed": "bf16", "fp16-mixed": "fp16"}


def freeze(model: Module, run: TrainingRun) -> None:
    """No gradients for the weights that the run does not train. Raises ConfigurationError where what is left has no
    part in the loss."""
    names = model.names()
    frozen = frozen_names(run, [name for its_names in names.values() for name in its_names])
    for parameter, its_names in names.items():
        parameter.requires_grad = its_names[0] not in frozen
    if not any(parameter.requires_grad and not parameter.unused for parameter in names):
        raise ConfigurationError("frozen: what is left to train has no part in the loss")


def make_optimizer(trace: Trace, model: Module, run: TrainingRun) -> AnyOptimizer:
    """The optimizer and implementation the run asks for."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    kinds = kinds_of(model, run)
    if run.optimizer_in_backward:
        return InBackward(trace, parameters, kinds, run)
    if run.master_weights != "none":
        kind = MasterWeights if run.master_weights == "deepspeed" else MainGradients
        return kind(trace, parameters, kinds, run)
    parts = build_all(trace, parameters, kinds, run)
    return parts[0] if len(parts) == 1 else Together(trace, parts)


def make_scaler(run: TrainingRun, trace: Trace) -> GradScaler | None:
    """Gradient scaling for fp16."""
    return GradScaler(trace) if scales_gradients(run) else None


def compute_loss(trace: Trace, model: Transformer, batch: Batch, run: TrainingRun) -> Tensor:
    """Mean cross-entropy, in fp32, of one micro-batch."""
    with trace.autocast(AUTOCAST.get(run.precision)):
        trace.enter_phase("forward")
        if run.loss == "whole":
            logits = model(batch)
            trace.enter_phase("loss")
            trace.module = "loss"
            loss = cross_entropy(flatten(to(logits, "fp32")), flatten(batch.labels))
        else:
            assert isinstance(model.head, LanguageModellingHead)
            x = model.read(batch, model.head.transformed)
            trace.enter_phase("loss")
            trace.module = "loss"
            in_chunks = chunked_loss if run.loss == "chunked" else fused_loss
            loss = in_chunks(model.head, x, batch.labels, run.loss_chunks)
        if run.gradient_accumulation_steps > 1:
            loss = div(loss, float(run.gradient_accumulation_steps))
        return loss


def flatten(tensor: Tensor) -> Tensor:
    """[..., classes] -> [rows, classes] for logits, [...] -> [rows] for labels (which hold integers)."""
    kept = () if tensor.dtype == "int64" else tensor.shape[-1:]
    return reshape(tensor, (product(tensor.shape[: len(tensor.shape) - len(kept)]), *kept))


def training_step(
    trace: Trace,
    model: Transformer,
    optimizer: AnyOptimizer,
    batch: Batch,
    run: TrainingRun,
    scaler: GradScaler | None = None,
) -> Tensor:
    """One optimizer step over `gradient_accumulation_steps` micro-batches. From the second one on they are all alike:
    gradients exist and are added to."""
    trace.enter_phase("zero_grad")
    optimizer.zero_grad()
    for _ in range(min(run.gradient_accumulation_steps, 2)):
        loss = compute_loss(trace, model, batch, run)
        trace.enter_phase("backward")
        backward(loss if scaler is None else scaler.scale(loss))
    trace.enter_phase("optimizer_step")
    update(trace, optimizer, run, scaler)
    trace.enter_phase("end")
    return loss


def update(trace: Trace, optimizer: AnyOptimizer, run: TrainingRun, scaler: GradScaler | None) -> None:
    """The optimizer step: gradients unscaled and clipped, parameters updated. One that updates in the backward pass has
    nothing left to do."""
    if isinstance(optimizer, InBackward):
        return
    if isinstance(optimizer, MasterWeights):
        optimizer.take_gradients()
    parts = optimizer.parts
    if run.gradient_clipping:
        if scaler is not None:
            for part in parts:
                scaler.unscale(part)
        clip_grad_norm(trace, [parameter for part in parts for parameter in part.parameters])
    for part in parts:
        if scaler is None:
            part.step()
        else:
            scaler.step(part)
    if scaler is not None:
        scaler.update()
    if isinstance(optimizer, MasterWeights):
        optimizer.give_weights()
