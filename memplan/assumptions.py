"""What an estimate takes for granted: a line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memplan.config.device import DEFAULT_CPU_THREADS
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.setups import PAGED, QUANTISED, scales_gradients
from memplan.ops.backend import NEWEST
from memplan.units import ITEM_BYTES

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.ledger import Ledger
    from memplan.tiers import CardTiers


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


def assumptions(
    model: Model,
    run: Run,
    device: Device,
    torch: tuple[int, int],
    card: CardTiers | None,
    allocator_settings: str,
    ledger: Ledger,
) -> tuple[str, ...]:
    """Everything that an estimate takes for granted, in the order a reader needs it. `card` is how the run went on the
    simulated allocator; None on the CPU."""
    name = f"PyTorch {torch[0]}.{torch[1]}"
    training = isinstance(run, TrainingRun)
    lines = ["steady state: the second step and later, when optimizer states exist"] if training else []
    if isinstance(model, Transformer):
        batch = "one micro-batch of inputs in memory" if training else "no gradients (torch.inference_mode)"
        lines.append(f"memplan's reference transformer in eager PyTorch, with {batch}")
    else:
        from memplan.huggingface.releases import assumptions as of_the_library

        lines += of_the_library(model, torch, run)
    if card is None:
        threads = device.threads or DEFAULT_CPU_THREADS
        lines.append(f"operation rules of {name}'s CPU kernels with {threads} threads and oneDNN off")
    else:
        lines.append(
            f"operation rules of {name}'s CUDA kernels for compute capability {device.compute_capability} with "
            f"{device.multiprocessors} multiprocessors, cuBLAS workspaces included"
        )
    if torch > NEWEST:
        lines.append(f"{name} has not been held against real runs: the rules of {NEWEST[0]}.{NEWEST[1]}")
    if card is None:
        lines.append("reserved_bytes and device_bytes are null: the CPU has no caching allocator and no driver")
    else:
        flash = run.attention == "flash" or "flash" in ledger.sdpa_kernels
        lines += _card_assumptions(flash, "steps" if training else "such runs", device, torch, card, allocator_settings)
        if ledger.sampled:
            lines.append(ledger.sampled)
    if isinstance(run, TrainingRun):
        lines += _graph_assumptions(run)
    if run.weight_quantization != "none" or (isinstance(run, TrainingRun) and run.lora_rank):
        from memplan.config.adapters import assumptions as of_adapters

        lines += of_adapters(model, run, device)
    return tuple(lines)


def _graph_assumptions(run: TrainingRun) -> Iterator[str]:
    """What is made again, how the loss is made, and what learns."""
    if run.recompute != "none":
        where = "each layer" if run.recompute == "full" else "each attention, from queries to mixed values"
        if run.recompute_every > 1:
            where = f"every layer whose number is a multiple of {run.recompute_every}"
        yield f"torch.utils.checkpoint without reentrant autograd round {where}, generator state kept"
    if run.loss == "chunked":
        chunks = f"{run.loss_chunks} chunks of tokens, one after another"
        yield f"logits and loss in {chunks}, each made again in the backward pass"
    elif run.loss == "fused":
        yield (
            f"logits and their gradients in {run.loss_chunks} chunks of tokens, in the forward pass and by PyTorch's "
            "operations: Liger's kernel does without an fp32 copy of a chunk's half-precision logits"
        )
    if run.frozen or run.frozen_layers:
        yield "frozen weights have no gradients and no optimizer states, and are not among the optimizer's parameters"


def _card_assumptions(
    flash: bool, times: str, device: Device, torch: tuple[int, int], card: CardTiers, allocator_settings: str
) -> list[str]:
    settings = f"with {allocator_settings}" if allocator_settings else "with its default settings"
    lines = [f"reserved: the caching allocator replayed over {card.replay.steps} {times}, {settings}, on one stream"]
    if card.squeezed:
        lines.append("the card has too little for all that the allocator would keep: cached memory is given back")
    if card.short:
        lines.append("the card runs out, cached memory given back or not: the sizes are those of a larger card")
    lines.append(f"device: reserved and the CUDA context with its libraries, {card.context.basis}")
    if flash and torch >= (2, 11) and device.compute_capability in ("9.0", "10.0", "10.3"):
        lines.append(
            "flash attention is the kernel that runs: left to itself PyTorch 2.11 and newer may take cuDNN's on this "
            "card (torch.nn.attention.sdpa_kernel chooses)"
        )
    return lines
