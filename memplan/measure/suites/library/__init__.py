"""The suite `families`: a small model of every type of the library transformers, in every way it can be trained.

One file of this folder for each family; a run of one of its models takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.config.device import Device
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import NotModelledError
from memplan.measure.suites.case import Case, Task

if TYPE_CHECKING:
    from memplan.config.library.model import LibraryModel

_ATTENTION = ("naive", "sdpa")
_PRECISION = ("fp32", "bf16", "bf16-mixed")
_OTHER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    (", padding", {"padding": True}),
    (", recompute", {"recompute": "full", "gradient_accumulation_steps": 2}),
)


@cache
def small_models() -> dict[str, LibraryModel]:
    """Every small model by its name: the type, and what is particular about it (`bert, dropout`)."""
    models: dict[str, LibraryModel] = {}
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        models |= import_module(f"{__name__}.{file.stem}").SMALL
    return models


def small_run(config: LibraryModel, **changes: Any) -> TrainingRun:
    """A run of two short sequences."""
    lengths: dict[str, int] = {"sequence_length": 24}
    if config.architecture == "encoder-decoder":
        lengths = {"source_length": 24, "target_length": 17}
    elif config.tokens_of_an_image:
        lengths = {}
    return TrainingRun(**{"micro_batch_size": 2, **lengths, "attention": "sdpa", **changes})


def tasks(device: Device) -> Iterator[Task]:
    """Every model by each way to attend that it has, in each precision; padded and recomputed where that can be."""
    for key, small in small_models().items():
        model = validate_model(small)
        for attention in _ATTENTION:
            for precision in _PRECISION:
                for title, other in _OTHER:
                    run = small_run(model, attention=attention, precision=precision, **other)
                    try:
                        run = validate_run(model, run, device)
                    except NotModelledError:  # no sdpa, no padding: the type's own limits
                        continue
                    yield Task(Case(replace(model, name=f"{key}{title}"), run))
