"""The small models that every set-up is shown with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from memplan.config.device import Device
from memplan.config.validate import validate_model, validate_run
from memplan.errors import NotModelledError
from memplan.measure.suites.case import Case, Change, Task, make_case
from memplan.measure.suites.library import small_models, small_run
from memplan.measure.suites.small import DECODER, ENCODER_DECODER, LLAMA

REFERENCE = {"gpt-like": DECODER, "llama-like": LLAMA, "encoder-decoder": ENCODER_DECODER}
LIBRARY = ("llama", "gpt2", "t5")


def tasks_of(title: str, run: Change, device: Device) -> Iterator[Task]:
    """One set-up with memplan's models, naive and flash, and with the library's, whose scores PyTorch makes where the
    type has that."""
    for name, model in REFERENCE.items():
        lengths = {"sequence_length": 32}
        if model.architecture == "encoder-decoder":
            lengths = {"source_length": 24, "target_length": 17}
        for attention in ("naive", "flash"):
            changes = {"micro_batch_size": 2, "attention": attention, **lengths, **run}
            try:
                yield Task(make_case(model, f"{name}, {title}", {}, changes, device))
            except NotModelledError:  # what the device does not do
                continue
    for name in LIBRARY:
        small = validate_model(small_models()[name])
        attention = "sdpa" if "sdpa" in small.attentions else "naive"
        try:
            checked = validate_run(small, small_run(small, **{"attention": attention, **run}), device)
        except NotModelledError:
            continue
        yield Task(Case(replace(small, name=f"library {name}, {title}"), checked))
