"""What an estimate takes for granted about the way a run is set up: a line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memplan.config.run import TrainingRun
from memplan.config.setups import PAGED, QUANTISED, scales_gradients
from memplan.units import ITEM_BYTES

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.runs import Run
    from memplan.ledger import Ledger


def setup_assumptions(run: Run, device: Device, ledger: Ledger) -> list[str]:
    """Lines on precision, optimizer and step, where they are not the plain ones."""
    if not isinstance(run, TrainingRun):
        return []
    lines = [*_of_the_optimizer(run, ledger), *_of_the_step(run)]
    if lines and device.backend == "cuda":
        lines.append("the optimizer step as set up here has not been held against a run on a card")
    return lines


_OPTIMIZERS = {
    "adafactor": "torch.optim.Adafactor, whose second moments of a matrix are a row and a column",
    "lion": "Lion with one momentum for each parameter, and one temporary of each in turn (memplan/reference/lion.py)",
    "muon": "torch.optim.Muon for the matrices of layers, torch.optim.AdamW for embeddings, head, norms and biases",
    "adamw-8bit": "bitsandbytes.optim.AdamW8bit",
    "paged-adamw": "bitsandbytes.optim.PagedAdamW",
    "paged-adamw-8bit": "bitsandbytes.optim.PagedAdamW8bit",
}


def _of_the_optimizer(run: TrainingRun, ledger: Ledger) -> Iterator[str]:
    line = _OPTIMIZERS.get(run.optimizer)
    if line is not None:
        if run.optimizer in QUANTISED:
            line += ": states of 8 bits in blocks of 256, and in fp32 those of parameters of less than 4,096 elements"
        yield line
    if run.optimizer in PAGED:
        yield (
            f"{paged_bytes(run, ledger):,} bytes of optimizer states lie in managed memory, which neither PyTorch's "
            "allocator nor this estimate counts: the driver moves them between host and card"
        )


def paged_bytes(run: TrainingRun, ledger: Ledger) -> int:
    """Bytes of the two states of each parameter of at least 100,000 elements."""
    from memplan.ops.eight_bit import LEAST_PAGED

    total = 0
    for allocation in ledger.births():
        elements = allocation.size // ITEM_BYTES[allocation.dtype]
        if allocation.component == "parameters" and elements >= LEAST_PAGED:
            total += 2 * elements * allocation.copies * (1 if run.optimizer in QUANTISED else 4)
    return total


def _of_the_step(run: TrainingRun) -> Iterator[str]:
    each = "one tensor for each parameter, none of them flattened"
    if run.master_weights == "deepspeed":
        yield (
            f"master weights as DeepSpeed's FP16_UnfusedOptimizer keeps them, {each}; their fp32 gradients are "
            "temporaries of the optimizer step, beside the half-precision ones"
        )
    elif run.master_weights == "megatron":
        yield (
            f"master weights and fp32 gradients as Megatron-LM keeps them, {each}; a half-precision gradient is "
            "dropped as soon as it is added"
        )
    if scales_gradients(run) and run.precision == "fp16":
        yield "the loss is scaled by torch.amp.GradScaler, and no step is skipped"
    elif run.precision == "fp16-mixed" and not scales_gradients(run):
        yield "the loss is not scaled, though gradients in fp16 may vanish"
    if run.gradient_clipping:
        yield "gradients are clipped by torch.nn.utils.clip_grad_norm_, in its foreach form"
    if run.optimizer_in_backward:
        yield (
            "every parameter has an optimizer of its own, which steps within the backward pass; its gradient is a "
            "temporary there, and the phase optimizer_step is empty"
        )
