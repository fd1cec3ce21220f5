"""Training loops that hold other things, and let go of them at other times, than the one estimates are made for.

The counterpart of memplan/huggingface/program.py for transformers' Trainer (transformers/trainer.py, _run_epoch,
training_step and compute_loss of 5.23, with accelerate's backward and data loader) and for Lightning's automatic
optimization (lightning/pytorch/loops/optimization/automatic.py of 2.6): the same models, another step. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from memplan.config.library.model import LibraryModel
from memplan.config.run import TrainingRun
from memplan.config.setups import weight_dtype
from memplan.huggingface import outputs as losses
from memplan.huggingface.adapters import add_adapters
from memplan.huggingface.models import build_model
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.program import make_batch
from memplan.huggingface.quantised import quantise
from memplan.huggingface.settings import Settings
from memplan.ledger import Ledger
from memplan.ops.autograd import attach, backward, make_node
from memplan.ops.backend import Backend
from memplan.ops.elementwise import div, number, pointwise, to
from memplan.ops.module import Module
from memplan.ops.norms import clip_grad_norm
from memplan.ops.scaling import GradScaler
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.trace import Trace
from memplan.transformer.program import build_for, make_input
from memplan.transformer.training import AUTOCAST, AnyOptimizer, make_optimizer, make_scaler, update

LoopName = Literal["transformers.Trainer", "lightning.Trainer"]

TRAINER: LoopName = "transformers.Trainer"
LIGHTNING: LoopName = "lightning.Trainer"


@dataclass(frozen=True, slots=True)
class Loop:
    """How a training loop goes about a step.

    `extra_inputs` are tensors of a batch that the plain loop does not have, as (shape, dtype); `batches` is how many
    batches are in memory at a time. The rest is the Trainer's: `counted_items`, whether the loss is a sum that is
    divided by the number of its tokens, a tensor; `scaled_by_ranks`, whether it is then multiplied by the number of
    ranks in place; and `converts_outputs`, whether accelerate casts what the model returns to fp32. `notes` are lines
    of a plan's assumptions.
    """

    name: LoopName
    extra_inputs: tuple[tuple[tuple[int, ...], str], ...] = ()
    batches: int = 1
    counted_items: bool = False
    scaled_by_ranks: bool = False
    converts_outputs: bool = False
    notes: tuple[str, ...] = ()

    @property
    def tells(self) -> tuple[str, ...]:
        """What a plan for this loop takes for granted, as lines of its assumptions."""
        if self.name == LIGHTNING:
            return (
                "Lightning 2.6, automatic optimization with one optimizer: the gradients of the step before are "
                "dropped behind the forward pass, and logits are let go of before the backward pass",
                "training_step returns the loss that the model computes, and keeps nothing else",
            )
        return (
            *self.notes,
            "Trainer of transformers 5.23 on one device: logits are let go of before the backward pass, gradients are "
            f"dropped at the end of the step, and batches in memory at a time: {self.batches}",
            "nothing of Trainer is overridden: its loss, its optimizer step and its batches are its own",
        )


def trace_loop(config: LibraryModel, run: TrainingRun, backend: Backend, loop: Loop) -> Ledger:
    """The ledger of one step of a loop in its steady state. `config` and `run` have been validated."""
    trace = Trace(backend, first_layer_apart=bool(run.lora_rank))
    model = build_for(run, lambda every: build_model(trace, config, Settings.of(run, every)), False)
    quantise(model, run)
    if run.lora_rank:
        add_adapters(model, run)
    model.place()
    model.allocate(weight_dtype(run))
    optimizer = make_optimizer(trace, model, run)
    optimizer.allocate_state()
    scaler = make_scaler(run, trace)
    trace.ledger.micro_batches = run.gradient_accumulation_steps
    batches = [make_batch(trace, config, run) for _ in range(loop.batches)]
    extra = [make_input(trace, shape, dtype) for _ in batches for shape, dtype in loop.extra_inputs]
    held = _Held()
    if loop.name == LIGHTNING:
        _gradients_of_the_step_before(trace, optimizer)
        _lightning_step(trace, model, optimizer, batches[0], run, scaler, held)
    else:
        held.num_items = make_input(trace, (), "fp32") if loop.counted_items else None
        held.loss = empty(trace, (), "fp32", "loss of the step before")
        held.grad_norm = empty(trace, (), weight_dtype(run), "aten::linalg_vector_norm")
        if backend.cuda:  # a replay knows nothing that a step frees and has not made: there these stand for the next
            extra += [held.loss, held.grad_norm, make_input(trace, (), "fp32")]  # and the sum of losses is there too
        _trainer_step(trace, model, optimizer, batches[0], run, scaler, loop, held)
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.storage.allocation is not None:
            parameter.grad.storage.allocation.component = "gradients"
    ledger = trace.close()
    del batches, extra, held
    return ledger


class _Held:
    """What a loop keeps from one step to the next."""

    def __init__(self) -> None:
        self.num_items: Tensor | None = None
        self.loss: Tensor | None = None
        self.grad_norm: Tensor | None = None


def _trainer_step(
    trace: Trace,
    model: Module,
    optimizer: AnyOptimizer,
    batch: Batch,
    run: TrainingRun,
    scaler: GradScaler | None,
    loop: Loop,
    held: _Held,
) -> None:
    """Trainer._run_epoch. The norm of the gradients is always computed, and kept; they are dropped behind the step."""
    trace.enter_phase("zero_grad")
    last = min(run.gradient_accumulation_steps, 2) - 1
    for index in range(last + 1):
        loss = _trainer_loss(trace, model, batch, run, loop, held.num_items)
        if not loop.counted_items:
            loss = div(loss, 1)
        scaled = div(loss, 1)  # accelerate's backward divides by a number of accumulated steps of its own
        trace.enter_phase("backward")
        backward(scaled if scaler is None else scaler.scale(scaled))
        if index == last:
            trace.enter_phase("optimizer_step")
        del scaled
        held.loss = None if trace.backend.cuda else loss.alias()
        del loss
    held.grad_norm = None
    if scaler is not None:
        for part in optimizer.parts:
            scaler.unscale(part)
    clip_grad_norm(trace, [parameter for part in optimizer.parts for parameter in part.parameters])
    if not trace.backend.cuda:
        held.grad_norm = empty(trace, (), weight_dtype(run), "aten::linalg_vector_norm")
    for part in optimizer.parts:
        if scaler is None:
            part.step()
        else:
            scaler.step(part)
    if scaler is not None:
        scaler.update()
    trace.enter_phase("end")


def _trainer_loss(
    trace: Trace, model: Module, batch: Batch, run: TrainingRun, loop: Loop, num_items: Tensor | None
) -> Tensor:
    """Trainer.compute_loss: the model's outputs, its logits among them, are gone when it returns."""
    with trace.autocast(AUTOCAST.get(run.precision)), _divided_by(num_items):
        trace.enter_phase("forward")
        outputs: Outputs = model(batch)
    assert outputs.loss is not None  # there are labels
    if loop.converts_outputs:
        outputs.logits = to(outputs.logits, "fp32")
    loss = outputs.loss
    return _mul_in_place(loss, 1) if loop.scaled_by_ranks else loss


@contextmanager
def _divided_by(num_items: Tensor | None) -> Iterator[None]:
    """Within, the models' own loss functions divide a sum by the number of its items (loss/loss_utils.py,
    fixed_cross_entropy)."""
    mean = vars(losses)["cross_entropy"]

    def fixed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        loss = mean(logits, labels)  # a sum takes the same memory
        return loss if num_items is None else div(loss, num_items)

    vars(losses)["cross_entropy"] = fixed_cross_entropy
    try:
        yield
    finally:
        vars(losses)["cross_entropy"] = mean


def _mul_in_place(tensor: Tensor, value: float) -> Tensor:
    """tensor *= value: the same memory, with the number kept for the gradient."""
    wrapped = number(tensor, value)
    node = make_node("MulBackward0", _mul_in_place_backward, tensor)
    if node is not None:
        node.save(wrapped)
    if tensor.dtype != wrapped.dtype and not tensor.trace.backend.cuda:
        empty(tensor.trace, (), tensor.dtype, "aten::to")
    return attach(tensor.alias(), node)


def _mul_in_place_backward(node: Any, gradient: Tensor, saved: Any) -> Any:
    return (pointwise("aten::mul", (gradient, saved[0])),)


def _gradients_of_the_step_before(trace: Trace, optimizer: AnyOptimizer) -> None:
    """They are there when the step begins."""
    for part in optimizer.parts:
        for parameter in part.parameters:
            trace.enter_repeat(parameter.repeat)
            trace.module = parameter.name
            parameter.grad = _gradient(parameter)
    trace.enter_repeat(None)
    trace.module = ""


def _gradient(parameter: Parameter) -> Tensor:
    gradient = empty(parameter.trace, parameter.shape, parameter.dtype, "gradient of the step before")
    if gradient.storage.allocation is not None:
        gradient.storage.allocation.component = "gradients"
    return gradient


def _lightning_step(
    trace: Trace,
    model: Module,
    optimizer: AnyOptimizer,
    batch: Batch,
    run: TrainingRun,
    scaler: GradScaler | None,
    held: _Held,
) -> None:
    """The closure that Lightning gives the optimizer (training_step, zero_grad, backward), and the update."""
    trace.enter_phase("zero_grad")
    closure_loss: Tensor | None = None  # its closure keeps it until the step is taken
    for index in range(min(run.gradient_accumulation_steps, 2)):
        held.loss = closure_loss = None
        with trace.autocast(AUTOCAST.get(run.precision)):
            trace.enter_phase("forward")
            outputs: Outputs = model(batch)
        loss = outputs.loss
        assert loss is not None  # there are labels
        del outputs
        closure_loss = div(loss, run.gradient_accumulation_steps)
        held.loss = empty(trace, (), "fp32", "aten::clone")
        del loss
        if not index:
            optimizer.zero_grad()
        trace.enter_phase("backward")
        backward(closure_loss if scaler is None else scaler.scale(closure_loss))
    trace.enter_phase("optimizer_step")
    update(trace, optimizer, run, scaler)
    trace.enter_phase("end")
    del closure_loss
