"""A request and its sizes in words: what the text reports share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.units import human

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.model import Transformer
    from memplan.config.run import TrainingRun
    from memplan.estimate import LedgerLine


def exact(size: int) -> str:
    """`9.31 GiB (9,996,123,456 bytes)`: readable, and nothing hidden by rounding."""
    unit = "byte" if abs(size) == 1 else "bytes"
    return f"{human(size)} ({size:,} {unit})" if abs(size) >= 1024 else f"{size:,} {unit}"


def spaced(name: str) -> str:
    """A name of the glossary as prose: `optimizer_state` is `optimizer state`."""
    return name.replace("_", " ")


def model_in_words(model: Transformer, parameter_count: int) -> str:
    """`gpt2: decoder, 12 layers, 124,439,808 parameters`."""
    layers = f"{model.num_layers:,} {'layer' if model.num_layers == 1 else 'layers'}"
    if model.architecture == "encoder-decoder":
        layers = f"{model.num_encoder_layers:,} + {layers}"
    return f"{model.name}: {model.architecture}, {layers}, {parameter_count:,} parameters"


def run_in_words(run: TrainingRun, device: Device) -> str:
    """`micro-batch 1 x 1,024 tokens, naive attention, fp32, adamw (for-loop), on cpu`."""
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
        parts.append(f"{run.recompute} recompute")
    return f"{', '.join(parts)}, on {device.name}"


def copies_in_words(line: LedgerLine) -> str:
    """`12 x 48.00 MiB`, or nothing for a single copy: its size stands beside it."""
    return f"{line.copies:,} x {human(line.size)}" if line.copies > 1 else ""
