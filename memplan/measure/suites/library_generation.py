"""A small model of every type of the library transformers that writes, in every way it can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memplan.config.device import Device
from memplan.config.inference import InferenceRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import NotModelledError
from memplan.measure.suites.case import Case, Task
from memplan.measure.suites.library import small_models

if TYPE_CHECKING:
    from memplan.config.library.model import LibraryModel

_ATTENTION = ("naive", "sdpa")
_PRECISION = ("fp32", "bf16", "fp16")
_OTHER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    (", static", {"cache": "static", "sampling": "sampled"}),
    (", padding", {"padding": True, "logits": "all"}),
    (", static, padding", {"cache": "static", "padding": True}),
)


def small_generation(config: LibraryModel, **changes: Any) -> InferenceRun:
    """A run that reads two short prompts and writes a few tokens."""
    lengths: dict[str, int] = {"prompt_length": 20}
    if config.architecture == "encoder-decoder":
        lengths = {"source_length": 20, "prompt_length": 1}
    return InferenceRun(**{"micro_batch_size": 2, **lengths, "new_tokens": 6, "attention": "sdpa", **changes})


def tasks(device: Device) -> Iterator[Task]:
    """Every model that decodes by each way to attend that it has, in each precision, with both caches."""
    for key, small in small_models().items():
        model = validate_model(small)
        if model.architecture == "encoder":
            continue
        for attention in _ATTENTION:
            for precision in _PRECISION:
                for title, other in _OTHER:
                    run = small_generation(model, attention=attention, precision=precision, **other)
                    try:
                        run = validate_run(model, run, device)
                    except NotModelledError:  # no sdpa, no fp16: the type's own limits
                        continue
                    yield Task(Case(replace(model, name=f"{key}{title}"), run))
