"""The options that say what to estimate, shared by every command that takes a model and a run.

Sizes arrive as text: Typer's own integers would say "not a valid integer" without saying what would be.
"""

# No `from __future__ import annotations` here nor in a command's file: Typer would evaluate each annotation again.

import re
from collections.abc import Mapping
from typing import Annotated

import typer

from memplan.errors import ConfigurationError

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A preset (see `memplan presets`), a TOML file, or a Hugging Face config.json or its folder.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", show_default=False, help="Change a field of the model; may be given again."
    ),
]
MicroBatchSize = Annotated[
    str | None, typer.Option("--micro-batch-size", metavar="N", help="Sequences in one forward pass. Default: 1.")
]
SequenceLength = Annotated[str | None, typer.Option("--sequence-length", metavar="N", help="Tokens of a sequence.")]
SourceLength = Annotated[
    str | None, typer.Option("--source-length", metavar="N", help="Encoder-decoder: tokens the encoder reads.")
]
TargetLength = Annotated[
    str | None, typer.Option("--target-length", metavar="N", help="Encoder-decoder: tokens the decoder writes.")
]
AccumulationSteps = Annotated[
    str | None,
    typer.Option(
        "--gradient-accumulation-steps", metavar="N", help="Micro-batches for each optimizer step. Default: 1."
    ),
]
Attention = Annotated[str | None, typer.Option("--attention", metavar="KIND", help="naive or flash. Default: flash.")]
Precision = Annotated[
    str | None, typer.Option("--precision", metavar="KIND", help="fp32, bf16 or bf16-mixed. Default: fp32.")
]
Optimizer = Annotated[
    str | None, typer.Option("--optimizer", metavar="KIND", help="adamw, adam or sgd. Default: adamw.")
]
OptimizerImplementation = Annotated[
    str | None,
    typer.Option("--optimizer-implementation", metavar="KIND", help="for-loop, foreach or fused. Default: for-loop."),
]
Momentum = Annotated[str | None, typer.Option("--momentum", metavar="SHARE", help="Of sgd, such as 0.9. Default: 0.")]
Recompute = Annotated[
    str | None,
    typer.Option("--recompute", metavar="KIND", help="Activation checkpointing: none or full. Default: none."),
]
Padding = Annotated[
    bool | None,
    typer.Option(
        "--padding/--no-padding", show_default=False, help="Whether batches carry a padding mask. Default: no."
    ),
]
Torch = Annotated[
    str | None,
    typer.Option("--torch", metavar="RELEASE", help="The PyTorch whose rules to use, such as 2.6. Default: 2.13."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cpu:THREADS or a card (see `memplan devices`). Default: cpu."),
]

_SIZES = frozenset(
    {"micro_batch_size", "sequence_length", "source_length", "target_length", "gradient_accumulation_steps"}
)
_WHOLE = re.compile(r"[+-]?[0-9]+\Z")
_MOST_DIGITS = 4000  # Python itself refuses to read more than 4,300


def size(option: str, text: str) -> int:
    """The whole number of at least 1 that `text` spells. Raises ConfigurationError naming the option."""
    text = text.strip()
    if not _WHOLE.match(text):
        raise ConfigurationError(f"{option}: must be a whole number, not {text[:60]!a}", f"for example {option} 8")
    if len(text) > _MOST_DIGITS:
        raise ConfigurationError(f"{option}: a number of {len(text):,} digits is not a size")
    number = int(text)
    if number < 1:
        raise ConfigurationError(f"{option}: must be at least 1, not {number}", f"for example {option} 8")
    return number


def share(option: str, text: str) -> float:
    """The number that `text` spells; its range is the run's own business."""
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(
            f"{option}: must be a number, not {text[:60]!a}", f"for example {option} 0.9"
        ) from None


def given(options: Mapping[str, object]) -> dict[str, object]:
    """The options that were given, each as its field of TrainingRun is typed."""
    values: dict[str, object] = {}
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name in _SIZES:
            values[name] = size(option, str(value))
        elif name == "momentum":
            values[name] = share(option, str(value))
        else:
            values[name] = value
    return values
