"""One configuration of a suite, and what has to be known to run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from memplan.config.device import Device
from memplan.config.kernels import kernel_problem
from memplan.config.model import Transformer
from memplan.config.run import Attention, Precision, TrainingRun
from memplan.config.validate import validate_model, validate_run

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

Change = dict[str, Any]

KERNELS: tuple[Attention, ...] = ("naive", "efficient", "flash")


class Case(NamedTuple):
    """One configuration of a suite."""

    model: Model
    run: Run


@dataclass(frozen=True, slots=True)
class Task:
    """A case and how it is run: in a process of its own, with a memory history."""

    case: Case
    fresh: bool = False
    history: bool = False

    @property
    def title(self) -> str:
        """`gpt-like, flash, bf16, 4 x 512`: no other task of a suite has it, and `--only` is matched with it."""
        model, run = self.case
        return f"{model.name}, {run.attention}, {run.precision}, {batch_in_words(run)}"


def batch_in_words(run: Run) -> str:
    """`4 x 512`, or `4 x 512+256` tokens of source and target; `4 x 512 -> 64` where 64 new ones are written."""
    if not isinstance(run, TrainingRun):
        read = f"{run.source_length}+{run.prompt_length}" if run.source_length else f"{run.prompt_length}"
        return f"{run.micro_batch_size} x {read} -> {run.new_tokens}"
    tokens = f"{run.source_length}+{run.target_length}" if run.source_length else f"{run.sequence_length}"
    return f"{run.micro_batch_size} x {tokens}"


def make_case(base: Transformer, name: str, model: Change, run: Change, device: Device) -> Case:
    """The configuration `base` changed by `model`, under a name that says what it shows; validated."""
    built = validate_model(replace(base, **model, name=name))
    return Case(built, validate_run(built, TrainingRun(**run), device))


def kernels(model: Transformer, device: Device, precision: Precision, padding: bool = False) -> Iterator[Attention]:
    """The attention kernels that take such a configuration (memplan/config/kernels.py), naive first."""
    run = TrainingRun(precision=precision, padding=padding)
    resolved = validate_model(model)
    for kernel in KERNELS:
        if kernel_problem(resolved, run, device, kernel) is None:
            yield kernel


def offered(base: Transformer, name: str, model: Change, run: Change, device: Device) -> Iterator[Case]:
    """The configuration, where the device has the attention kernel that `run` names."""
    taking = kernels(replace(base, **model), device, run.get("precision", "fp32"), run.get("padding", False))
    if run["attention"] in taking:
        yield make_case(base, name, model, run, device)


def lengths(model: Transformer, sequence: int) -> Change:
    """The length of a run: an encoder-decoder reads so many tokens and writes half as many."""
    if model.architecture == "encoder-decoder":
        return {"source_length": sequence, "target_length": sequence // 2}
    return {"sequence_length": sequence}
