"""Random configurations of each type: the small model of the suite with sizes, switches and shares changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple, get_args

from hypothesis import reject
from hypothesis import strategies as st

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.library.model import Activation, LibraryModel, validate_library_model
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.errors import MemplanError
from memplan.estimate import estimate

from .small import SMALL, small_generation, small_run

CPU = load_device("cpu")
KEPT = ("implementation", "model_type", "head_class", "name")


class Case(NamedTuple):
    """A configuration and a run of it, both resolved."""

    model: LibraryModel
    run: TrainingRun


class Generation(NamedTuple):
    """A configuration and a run of it that writes."""

    model: LibraryModel
    run: InferenceRun


@st.composite
def models(draw: st.DrawFn, model_type: str) -> LibraryModel:
    """One of the type's small models, a few of its fields changed; what contradicts itself is drawn again."""
    start = draw(st.sampled_from([model for model in SMALL.values() if model.model_type == model_type]))
    changes: dict[str, Any] = {}
    names = [field for field in fields(start) if field.name not in KEPT]
    for field in draw(st.lists(st.sampled_from(names), max_size=5, unique_by=lambda each: each.name)):
        value = getattr(start, field.name)
        if field.type == "bool":
            changes[field.name] = not value
        elif field.type == "float":
            changes[field.name] = draw(st.sampled_from((0.0, 0.1)))
        elif field.type in ("int", "int | None") and value is not None:
            changes[field.name] = draw(
                st.sampled_from((value, 1, 2, 3, value * 2, max(value // 2, 1), value + 1, 5, 7, 12, 64))
            )
        elif field.type == "Activation":
            changes[field.name] = draw(st.sampled_from(get_args(Activation)))
    try:
        return validate_library_model(replace(start, **changes))
    except MemplanError:
        reject()


@st.composite
def cases(draw: st.DrawFn, model_type: str) -> Case:
    """A model and a run that it takes."""
    model = draw(models(model_type))
    names = ("source_length", "target_length") if model.architecture == "encoder-decoder" else ("sequence_length",)
    if model.tokens_of_an_image:
        names = ()
    run = small_run(
        model,
        **{name: draw(st.sampled_from((1, 2, 7, 16, 33, 70, 200))) for name in names},
        micro_batch_size=draw(st.integers(1, 3)),
        attention=draw(st.sampled_from(("naive", "sdpa"))),
        precision=draw(st.sampled_from(("fp32", "bf16", "bf16-mixed"))),
        padding=draw(st.booleans()),
        recompute=draw(st.sampled_from(("none", "full"))),
        gradient_accumulation_steps=draw(st.sampled_from((1, 1, 1, 2))),
    )
    try:
        return Case(model, validate_run(model, run, CPU))
    except MemplanError:
        reject()


@st.composite
def generations(draw: st.DrawFn, model_type: str) -> Generation:
    """A model and a run that writes with it."""
    model = draw(models(model_type))
    lengths = {"prompt_length": draw(st.sampled_from((1, 2, 7, 16, 33, 70, 200)))}
    if model.architecture == "encoder-decoder":
        lengths = {
            "source_length": draw(st.sampled_from((1, 2, 7, 16, 33, 70, 200))),
            "prompt_length": draw(st.sampled_from((1, 1, 2, 5))),
        }
    run = small_generation(
        model,
        **lengths,
        new_tokens=draw(st.sampled_from((0, 1, 2, 3, 4, 5, 9, 14))),
        micro_batch_size=draw(st.integers(1, 3)),
        attention=draw(st.sampled_from(("naive", "sdpa"))),
        precision=draw(st.sampled_from(("fp32", "bf16", "fp16"))),
        padding=draw(st.booleans()),
        cache=draw(st.sampled_from(("dynamic", "static"))),
        logits=draw(st.sampled_from(("last", "all"))),
        sampling=draw(st.sampled_from(("greedy", "sampled"))),
    )
    try:
        estimate(model, run, CPU)  # the widths of some experts have no rule
        return Generation(model, validate_run(model, run, CPU))
    except MemplanError:
        reject()
