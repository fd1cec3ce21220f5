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
Implementation = Annotated[
    str | None,
    typer.Option(
        "--implementation",
        metavar="NAME",
        help="Whose code runs the model: reference (memplan's own) or transformers. Default: transformers for a "
        "config.json, reference for all else.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", show_default=False, help="Change a field of the model; may be given again."
    ),
]
Optimizer = Annotated[
    str | None, typer.Option("--optimizer", metavar="KIND", help="adamw, adam or sgd. Default: adamw.")
]
OptimizerImplementation = Annotated[
    str | None,
    typer.Option("--optimizer-implementation", metavar="KIND", help="for-loop, foreach or fused. Default: for-loop."),
]
Momentum = Annotated[str | None, typer.Option("--momentum", metavar="SHARE", help="Of sgd, such as 0.9. Default: 0.")]
Torch = Annotated[
    str | None,
    typer.Option("--torch", metavar="RELEASE", help="The PyTorch whose rules to use, such as 2.6. Default: 2.13."),
]
AllocatorSettings = Annotated[
    str | None,
    typer.Option(
        "--allocator-settings",
        metavar="TEXT",
        show_default=False,
        help="On a card: PYTORCH_ALLOC_CONF of the run, such as expandable_segments:True.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="cpu, cpu:THREADS, local or a card (see `memplan devices`). Default: cpu."
    ),
]

Html = Annotated[
    str | None, typer.Option("--html", metavar="FILE", show_default=False, help="Write the report as a page.")
]

Output = Annotated[
    list[str] | None,
    typer.Option(
        "--output",
        metavar="KIND=FILE",
        show_default=False,
        help="Write html, markdown, json, svg, text, a snapshot for PyTorch's memory viewer, or a trace for Perfetto; "
        "may be given again.",
    ),
]

Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]

_SIZES = frozenset(
    {
        "micro_batch_size", "sequence_length", "source_length", "target_length", "gradient_accumulation_steps",
        "recompute_every", "loss_chunks", "frozen_layers", "lora_rank", "prompt_length", "new_tokens",
        "cache_block_size", "quantization_group_size",
    }
)  # fmt: skip
_NUMBERS = frozenset({"momentum", "gradient_clipping", "lora_dropout"})
_OTHERS_SAY = {"eager": "naive", "flash_attention_2": "flash"}
"""What the library transformers calls our ways to attend."""

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
    """The options that were given, each as its field of a run is typed."""
    values: dict[str, object] = {}
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is None or value == []:
            continue
        if name in _SIZES:
            values[name] = size(option, str(value))
        elif name in _NUMBERS:
            values[name] = share(option, str(value))
        elif name == "attention":
            values[name] = _OTHERS_SAY.get(str(value), value)
        else:
            values[name] = value
    return values
