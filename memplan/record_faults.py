"""What is wrong with the shape of a recorded run (memplan/profiles.py says what it should be). Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memplan.config.device import Device
from memplan.config.fields import check_fields, did_you_mean, show
from memplan.config.inference import InferenceRun
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import MemplanError

if TYPE_CHECKING:
    from memplan.config.library.model import LibraryModel

RUNS = {"training_step": TrainingRun, "generation": InferenceRun}
"""Kinds of records, and what was run."""

OUTCOMES = ("ran", "out_of_memory", "timed_out", "killed", "failed")
"""How a run can end."""


def faults(record: dict[str, Any]) -> Iterator[str]:
    """Each as `key: what is wrong and what would be right`, in the order in which others build on them: those behind
    the first need not mean anything."""
    if record.get("kind") not in RUNS:
        yield f"kind: must be one of {', '.join(RUNS)}, not {show(record.get('kind'))}"
        return
    outcome = record.get("outcome", "ran")
    if outcome not in OUTCOMES:
        yield f"outcome: must be one of {', '.join(OUTCOMES)}, not {show(outcome)}"
    environment = record.get("environment")
    if not isinstance(environment, dict) or not isinstance(environment.get("torch"), str):
        yield "environment: must name the release of torch"
    yield from _request_faults(record.get("request"), RUNS[record["kind"]])
    ran = outcome == "ran"
    kernels = record.get("sdpa_kernels", "" if ran else None)
    if kernels is not None and not (isinstance(kernels, list) and all(isinstance(kernel, str) for kernel in kernels)):
        yield "sdpa_kernels: must be a list of names, or null where they are not known"
    if ran or record.get("phases"):
        yield from _phase_faults(record.get("phases"))
    on_card = record["request"]["device"]["backend"] == "cuda"
    if (ran and on_card) or record.get("tiers") is not None:
        yield from _tier_faults(record.get("tiers"), ran)


def kind_of_model(values: dict[str, Any]) -> type[Transformer] | type[LibraryModel]:
    """The class of a request's model. Raises MemplanError for a type that a library is not known to have."""
    if "implementation" not in values:
        return Transformer
    from memplan.config.library.types import library_type

    return library_type(values.get("model_type"), "request.model")


def _request_faults(request: object, of_run: type) -> Iterator[str]:
    if not isinstance(request, dict):
        yield "request: must hold a model, a run and a device"
        return
    for part in ("model", "run"):
        values = request.get(part)
        if not isinstance(values, dict):
            yield f"request: must hold a {part}"
            return
        try:
            kind: type = of_run if part == "run" else kind_of_model(values)
        except MemplanError as error:
            yield error.message
            return
        for name, text in check_fields(kind, values)[1]:
            yield f"request.{part}.{name}: {text}"
    device = request.get("device")
    if not isinstance(device, dict) or not isinstance(device.get("name"), str):
        yield "request: must hold a device with a name"
        return
    if device.get("backend") not in ("cpu", "cuda"):
        yield f"request.device.backend: must be cpu or cuda, not {show(device.get('backend'))}"
    known: dict[str, Any] = Device.__dataclass_fields__
    if device.get("backend") == "cuda":
        from memplan.config.card import Card

        known = Card.__dataclass_fields__
    for name, value in device.items():
        if name not in known:
            yield f"request.device.{name}: is not a known key{did_you_mean(name, known)}"
        elif known[name].type == "int" and not _is_size(value):
            yield f"request.device.{name}: must be a size, not {show(value)}"
        elif known[name].type == "str" and not isinstance(value, str):
            yield f"request.device.{name}: must be text, not {show(value)}"


def _phase_faults(phases: object) -> Iterator[str]:
    if not isinstance(phases, list) or not phases:
        yield f"phases: must be a list of phases, not {show(phases)}"
        return
    for phase in phases:
        if not isinstance(phase, dict) or not isinstance(phase.get("name"), str):
            yield "phases: one of them has no name"
            return
        where = f"phases.{phase['name']}"
        if "peak_allocated_bytes" not in phase:
            yield f"{where}: must hold peak_allocated_bytes"
        for name, value in phase.items():
            if name.endswith("_bytes") and not _is_size(value):
                yield f"{where}.{name}: must be a size, not {show(value)}"
        for moment in ("at_peak", "at_end"):
            components = phase.get(moment, {})
            if not isinstance(components, dict) or not all(map(_is_size, components.values())):
                yield f"{where}.{moment}: must hold sizes by component"


def _tier_faults(tiers: object, ran: bool) -> Iterator[str]:
    if not isinstance(tiers, dict):
        yield f"tiers: must hold sizes by tier, not {show(tiers)}"
        return
    if ran and "allocated_bytes" not in tiers:
        yield "tiers: must hold allocated_bytes"
    for name, value in tiers.items():
        if name.endswith("_bytes") and value is not None and not _is_size(value):
            yield f"tiers.{name}: must be a size or null, not {show(value)}"


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0
