"""The residuals of the recorded runs: one small file beside them, so that no estimate has to grade hundreds of records.

`memplan verify --recorded --write-residuals` makes the file, and `memplan verify --recorded` says where it is out of
date. It is text: a line for each run, columns divided by tabs, read without any parser.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from memplan.config.device import Device
from memplan.config.model import told
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

FILE_NAME = "residuals.tsv"

COLUMNS = (
    "backend", "card", "compute_capability", "torch", "attention", "precision", "architecture",
    "optimizer_implementation", "recompute", "setup", "longest_sequence",
    "allocated_estimated", "allocated_measured", "reserved_estimated", "reserved_measured",
    "device_estimated", "device_measured",
    "request",
)  # fmt: skip
"""Tiers in bytes, empty where either side does not know them; `request` is a fingerprint of model and run."""

(
    BACKEND, CARD, CAPABILITY, TORCH, ATTENTION, PRECISION, ARCHITECTURE,
    IMPLEMENTATION, RECOMPUTE, SETUP, LENGTH,
    ALLOCATED, _, RESERVED, _, DEVICE, _,
    REQUEST,
) = range(len(COLUMNS))  # fmt: skip
"""Positions of the columns. A tier's measurement stands right behind its estimate."""

TIERS = {"allocated": ALLOCATED, "reserved": RESERVED, "device": DEVICE}

Line = Sequence[str]

_MAKE = "`memplan verify --recorded --write-residuals` makes it anew"


def profiles_folder() -> str:
    """Where the recorded runs lie: inside the package once installed, beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(package, "profiles_data")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "profiles")


SIMULATED = "simulated "
"""How the name of a card begins that was simulated: such runs say nothing of the device tier."""


@cache
def card_name(device_name: str, driver_name: str, capacity_bytes: int) -> str:
    """One name for one kind of card, whether it was named by the catalogue or read as `local` from a driver that calls
    it `driver_name`. A MIG slice and a card that the catalogue lacks keep the driver's name."""
    if device_name.partition(":")[0] != "local":
        return device_name
    from memplan.config.devices import card_named

    known = card_named(driver_name, capacity_bytes)
    return known.name if known else driver_name or device_name


def kind_of(model: Model) -> str:
    """What the column `architecture` says: that of the reference transformer, or the library and its type of model,
    `transformers llama`."""
    implementation: str = getattr(model, "implementation", "")
    return f"{implementation} {model.model_type}" if implementation else model.architecture  # type: ignore[union-attr]


def library_of(kind: str) -> str:
    """The library and type of model in that column; "" where it is the reference transformer."""
    return kind if " " in kind else ""


def features(model: Model, run: Run, device: Device, torch: tuple[int, int], card: str, capability: str) -> list[str]:
    """The columns that say what kind of run it is, all before those of the tiers."""
    head = [device.backend, card, capability, f"{torch[0]}.{torch[1]}", run.attention, run.precision, kind_of(model)]
    if isinstance(run, TrainingRun):
        longest = max(run.sequence_length, run.source_length, run.target_length)
        return [*head, run.optimizer_implementation, run.recompute, setup_of(run), str(longest)]
    longest = max(run.prompt_length + run.new_tokens, run.source_length)
    return [*head, "none", "none", setup_of(run), str(longest)]


def setup_of(run: Run) -> str:
    """What the column `setup` says: in which words a run differs from a plain training step, whatever the numbers."""
    if not isinstance(run, TrainingRun):
        return f"generate {run.cache} {run.cache_dtype} {run.logits} {run.sampling} {run.weight_quantization}"
    words: list[str] = [] if run.optimizer in ("adamw", "adam", "sgd") else [run.optimizer]
    for name, known in TrainingRun.__dataclass_fields__.items():
        value = getattr(run, name)
        if "newer" in known.metadata and value != known.default:
            words.append(f"{name}={value}" if isinstance(value, str) else name)
    return " ".join(words) or "plain"


def fingerprint(model: Model, run: Run) -> str:
    """Eight hexadecimal digits for what is run, whatever it is called and wherever it runs."""
    import hashlib

    values = [(name, value) for name, value in told(model).items() if name != "name"]
    values += told(run).items()
    return hashlib.sha256(repr(values).encode()).hexdigest()[:8]


def residuals_to_text(lines: Iterable[Line]) -> str:
    """The whole file: a line of column names, then the runs in order."""
    return "".join("\t".join(line) + "\n" for line in [COLUMNS, *sorted(map(list, lines))])


def read_residuals(backend: str, path: str | None = None) -> list[Line]:
    """The lines of one backend; none where there is no file. Raises MeasurementError for a file that is damaged."""
    path = path or os.path.join(profiles_folder(), FILE_NAME)
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MeasurementError(f"cannot read the residuals {path}: {error}", _MAKE) from error
    return list(_read(backend, path, state.st_mtime_ns, state.st_size))


@cache
def _read(backend: str, path: str, _changed: int, _size: int) -> tuple[Line, ...]:
    """The file as it is now; grading asks for it once a record."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"cannot read the residuals {path}: {error}", _MAKE) from error
    head, *rest = text.split("\n")
    if tuple(head.split("\t")) != COLUMNS or rest.pop() != "":
        raise MeasurementError(f"{path} does not hold the residuals of recorded runs, or not all of them", _MAKE)
    start = f"{backend}\t"
    lines = [line.split("\t") for line in rest if line.startswith(start)]
    if not _sound(lines):
        line = next(line for line in lines if not _sound([line]))
        raise MeasurementError(f"{path}: a line is damaged: {' '.join(line)[:80]!a}", _MAKE)
    return tuple(lines)


def _sound(lines: Sequence[Line]) -> bool:
    """Whether every line has every column, and numbers where they belong. By columns: each cold start looks at
    thousands of lines."""
    if set(map(len, lines)) - {len(COLUMNS)}:
        return False
    sizes = list(zip(*lines, strict=True))[LENGTH:REQUEST]
    return not lines or (all(map(all, sizes[:3])) and "".join(map("".join, sizes)).isdecimal())
