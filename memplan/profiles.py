"""Recorded runs: what a record holds, and how it is kept. Torch-free.

A record is a JSON document: `request` (model, run, device with every default resolved), `environment` (versions and
settings the bytes can depend on), `outcome` (one of OUTCOMES; "ran" where it is left out), `sdpa_kernels` (which
kernels of scaled_dot_product_attention ran; null where that is not known), `phases` with the bytes at the peak and at
the end of each (by component where they are known), and on a card `tiers`, the most bytes of the step in each tier. All
sizes are bytes. A run that did not end well may lack what it did not come to, and a record may hold more than this.
memplan/record_faults.py says what may stand where.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.config.device import Device
from memplan.config.model import told
from memplan.errors import MeasurementError
from memplan.record_faults import OUTCOMES as OUTCOMES
from memplan.record_faults import RUNS, faults, kind_of_model
from memplan.residuals import SIMULATED, card_name
from memplan.residuals import profiles_folder as profiles_folder

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

SCHEMA_VERSION = 1

Record = dict[str, Any]

Problem = tuple[Path, str]
"""A file that is no record, and why."""

_PLAIN_FOLDER_OF_CPU = "2.13"
"""Runs of this release on the CPU lie in cpu/; those of others in a folder that names theirs, cpu-torch-2.6/."""


def fields(configuration: Any) -> dict[str, Any]:
    """A configuration (any dataclass) as plain data, in the order of its fields. dataclasses.asdict copies deeply."""
    return {name: getattr(configuration, name) for name in configuration.__dataclass_fields__}


def make_record(model: Model, run: Run, device: Device, measured: dict[str, Any]) -> Record:
    """The record of one measured run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "kind": kind_of_record(run),
        "request": {"model": told(model), "run": told(run), "device": fields(device)},
        **measured,
    }


def outcome_of(record: Record) -> str:
    """How the run ended, one of OUTCOMES."""
    return str(record.get("outcome", "ran"))


def is_graded(record: Record) -> bool:
    """Whether the bytes of a record are held against the estimator: of a training that was watched
    (memplan/measure/watching/record.py), where it says so."""
    watched = record.get("watched")
    return not isinstance(watched, dict) or watched.get("graded") is True


def card_of(record: Record) -> str:
    """Where it ran: the name of the device; of `local`, that of the card. A card that was simulated says so
    (tests/simulated_card: PyTorch's CUDA build without a GPU)."""
    device, card = record["request"]["device"], record["environment"].get("card")
    name = card_name(device["name"], str(card or ""), device.get("capacity_bytes", 0))
    return f"{SIMULATED}{name}" if record["environment"].get("simulated") else name


def file_name(record: Record) -> str:
    """A name that says what was run, and ends in a fingerprint of the request: the same request, the same file.

    Of a card the folder tells; what the driver says of it at the moment it is read is no part of the request. Settings
    of the allocator, where there are any, are.
    """
    import hashlib

    request, settings = record["request"], record["environment"].get("allocator_settings")
    asked = dict(request)
    if request["device"]["backend"] == "cuda":
        del asked["device"]
    if settings:
        asked["allocator_settings"] = settings
    fingerprint = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    run = request["run"]
    return _slug(request["model"]["name"], run["attention"], run["precision"], fingerprint) + ".json"


def folder_name(record: Record) -> str:
    """The folder of the machine and the software that ran it: a device, then what of PyTorch and the driver the bytes
    can depend on, so that records of several stand side by side."""
    environment = record["environment"]
    release = ".".join(str(environment["torch"]).split(".")[:2])
    cuda = record["request"]["device"]["backend"] == "cuda"
    words = [card_of(record)]
    if cuda or release != _PLAIN_FOLDER_OF_CPU:
        words += ["torch", release]
    if cuda and environment.get("driver"):
        words += ["driver", str(environment["driver"]).split(".")[0]]
    return _slug(*words)


def record_path(record: Record) -> str:
    """Where a record lies below profiles/. `request` and `environment` are all that is read of it."""
    return f"{folder_name(record)}/{file_name(record)}"


def save(record: Record, folder: Path) -> Path:
    """Write `record` below `folder`, atomically, and return the file. Raises MeasurementError if it cannot."""
    target = folder / record_path(record)
    write_text(target, json.dumps(record, indent=1) + "\n", "the record")
    return target


def write_text(target: Path, text: str, what: str) -> None:
    """`write_bytes` of a text, as UTF-8."""
    write_bytes(target, text.encode(), what)


def write_bytes(target: Path, content: bytes, what: str) -> None:
    """Write a file under a temporary name and rename it; what is there and no plain file (a device, a pipe) is written
    to as it is, for to rename would replace it. Raises MeasurementError, naming `what`, if it cannot."""
    if target.exists() and not target.is_file():
        try:
            target.write_bytes(content)
        except OSError as error:
            raise MeasurementError(f"cannot write {what} {target}: {error.strerror or error}") from error
        return
    if target.is_symlink():  # a link stays one
        target = target.resolve()
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise MeasurementError(f"cannot write {what} {target}: {error.strerror or error}") from error


def read(file: Path) -> Record:
    """The record in `file`. Raises MeasurementError for what is not one, is damaged, or is of a newer schema."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"cannot read the record {file}: {error}") from error
    if not isinstance(record, dict) or type(record.get("schema_version")) is not int:
        raise MeasurementError(f"{file} is not a record of memplan")
    if record["schema_version"] > SCHEMA_VERSION:
        raise MeasurementError(
            f"the record {file} has schema version {record['schema_version']}, newer than {SCHEMA_VERSION}",
            "a newer memplan reads it",
        )
    fault = next(faults(record), None)
    if fault is not None:
        raise MeasurementError(f"the record {file} is damaged: {fault}")
    return record


def read_all(folder: Path) -> tuple[list[tuple[Path, Record]], list[Problem]]:
    """Every record below `folder` in the order of their paths, and the files that are none. Raises MeasurementError
    where the folder itself cannot be read."""
    records: list[tuple[Path, Record]] = []
    problems: list[Problem] = []
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise MeasurementError(f"cannot read the records in {folder}: {error.strerror}") from error
        problems.append((Path(error.filename), f"cannot read the folder {error.filename}: {error.strerror}"))

    for place, _, names in os.walk(folder, onerror=refuse):
        files += [Path(place, name) for name in names if name.endswith(".json")]
    for file in sorted(files):
        try:
            records.append((file, read(file)))
        except MeasurementError as error:
            problems.append((file, error.message))
    return records, problems


def request_of(record: Record) -> tuple[Model, Run, Device]:
    """What a record's run was asked to do."""
    request = record["request"]
    kind = RUNS[record["kind"]]
    return model_of(request["model"]), kind(**_with_tuples(request["run"])), Device(**request["device"])


def model_of(values: dict[str, Any]) -> Model:
    """The model of a request; one that names no implementation is the reference transformer's."""
    return kind_of_model(values)(**_with_tuples(values))


def kind_of_record(run: Run) -> str:
    """What `kind` says of a run."""
    return next(kind for kind, each in RUNS.items() if isinstance(run, each))


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _slug(*words: str) -> str:
    import re

    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words))
