"""A request and its sizes in words: what the text reports share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memplan.config.generation import writes
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.units import human

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.inference import InferenceRun
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.estimate import LedgerLine


def exact(size: int) -> str:
    """`9.31 GiB (9,996,123,456 bytes)`: readable, and nothing hidden by rounding."""
    unit = "byte" if abs(size) == 1 else "bytes"
    return f"{human(size)} ({size:,} {unit})" if abs(size) >= 1024 else f"{size:,} {unit}"


def spaced(name: str) -> str:
    """A name of the glossary as prose: `optimizer_state` is `optimizer state`."""
    return name.replace("_", " ")


def model_in_words(model: Model, parameter_count: int) -> str:
    """`gpt2: decoder, 12 layers, 124,439,808 parameters`; a library's model with the class that is trained."""
    layers = f"{model.num_layers:,} {'layer' if model.num_layers == 1 else 'layers'}"
    if model.architecture == "encoder-decoder":
        layers = f"{model.num_encoder_layers:,} + {layers}"
    head_class = getattr(model, "head_class", "")
    kind = f"{head_class} of {model.implementation}" if head_class else model.architecture  # type: ignore[union-attr]
    return f"{model.name}: {kind}, {layers}, {parameter_count:,} parameters"


def run_in_words(model: Model, run: Run, device: Device) -> str:
    """`micro-batch 1 x 1,024 tokens, naive attention, fp32, adamw (for-loop), on cpu`; or
    `micro-batch 1, prompt of 128 tokens, 64 new tokens, ...`."""
    words = _training(run) if isinstance(run, TrainingRun) else _generation(model, run)
    return f"{', '.join(words)}, on {device.name}"


def _generation(model: Model, run: InferenceRun) -> list[str]:
    """Of a model that only reads nothing is said of writing."""
    only_reads = isinstance(model, Transformer) and not writes(model)
    if only_reads:
        parts = [f"micro-batch {run.micro_batch_size:,} x {run.prompt_length:,} tokens, read once"]
        parts += ["with padding mask"] if run.padding else []
        return [*parts, f"{run.attention} attention", run.precision]
    parts = [f"micro-batch {run.micro_batch_size:,}", f"prompt of {run.prompt_length:,} tokens"]
    if run.source_length:
        parts.insert(1, f"source of {run.source_length:,} tokens")
    parts.append(f"{run.new_tokens:,} new tokens ({run.sampling})" if run.new_tokens else "no new tokens")
    if run.padding:
        parts.append("with padding mask")
    parts += [f"{run.attention} attention", run.precision]
    if run.weight_quantization != "none":
        parts.append(f"{run.weight_quantization} weights")
    parts.append(f"{run.cache} cache" + ("" if run.cache_dtype == "same" else f" in {run.cache_dtype}"))
    if run.logits == "all":
        parts.append("logits of the whole prompt")
    return parts


def sequences_in_words(largest_batch: int) -> str:
    """How many sequences of a length fit a card together."""
    if not largest_batch:
        return "not even one such sequence is sure to fit"
    what = "sequence fits" if largest_batch == 1 else "sequences fit"
    return f"up to {largest_batch:,} such {what} (micro_batch_size)"


def whole(run: Run) -> str:
    """What a run's peak is the peak of."""
    return "step" if isinstance(run, TrainingRun) else "run"


def _training(run: TrainingRun) -> list[str]:
    tokens = f"{run.sequence_length:,}"
    if run.source_length or run.target_length:
        tokens = f"{run.source_length:,} source + {run.target_length:,} target"
    parts = [f"micro-batch {run.micro_batch_size:,} x {tokens} tokens"]
    if run.gradient_accumulation_steps > 1:
        parts.append(f"{run.gradient_accumulation_steps:,} accumulation steps")
    if run.padding:
        parts.append("with padding mask")
    momentum = f", momentum {run.momentum:g}" if run.momentum else ""
    parts += [
        f"{run.attention} attention",
        run.precision,
        f"{run.optimizer} ({run.optimizer_implementation}{momentum})",
    ]
    if run.recompute != "none":
        every = f" of every {run.recompute_every} layers" if run.recompute_every > 1 else ""
        parts.append(f"{run.recompute} recompute{every}")
    return parts + list(_set_up(run))


def _set_up(run: TrainingRun) -> Iterator[str]:
    """What sets a run apart from a plain step."""
    if run.gradient_scaling != "auto":
        yield f"{run.gradient_scaling} gradient scaling".replace("none", "no")
    if run.master_weights != "none":
        yield f"master weights as {run.master_weights} keeps them"
    if run.gradient_clipping:
        yield f"gradients clipped at {run.gradient_clipping:g}"
    if run.optimizer_in_backward:
        yield "updates in the backward pass"
    if run.loss != "whole":
        yield f"{run.loss} loss ({run.loss_chunks:,} chunks)"
    if run.frozen or run.frozen_layers:
        layers = [f"the {run.frozen_layers:,} lowest layers"] if run.frozen_layers else []
        yield f"frozen: {' and '.join([*run.frozen, *layers])}"
    if run.weight_quantization != "none":
        double = ", scales quantised as well" if run.weight_quantization == "nf4" and run.double_quantization else ""
        yield f"{run.weight_quantization} weights{double}"
    if run.lora_rank:
        yield f"LoRA of rank {run.lora_rank:,} in {run.lora_dtype} on {' and '.join(run.lora_targets)}"


def copies_in_words(line: LedgerLine) -> str:
    """`12 x 48.00 MiB`, or nothing for a single copy: its size stands beside it."""
    return f"{line.copies:,} x {human(line.size)}" if line.copies > 1 else ""
