"""Recorded runs: what a record holds, and how it is kept. Torch-free.

A record is a JSON document: `request` (model, run, device with every default resolved), `environment` (versions and
settings the bytes can depend on), `sdpa_kernels` (which kernels of scaled_dot_product_attention ran), and `phases`
with the bytes at the peak and at the end of each, by component.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from memplan import __version__
from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError

SCHEMA_VERSION = 1

Record = dict[str, Any]


def fields(configuration: Transformer | TrainingRun | Device) -> dict[str, Any]:
    """A configuration as plain data, in the order of its fields."""
    return {name: getattr(configuration, name) for name in type(configuration).__dataclass_fields__}


def make_record(model: Transformer, run: TrainingRun, device: Device, measured: dict[str, Any]) -> Record:
    """The record of one measured training step."""
    return {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "kind": "training_step",
        "request": {"model": fields(model), "run": fields(run), "device": fields(device)},
        **measured,
    }


def file_name(record: Record) -> str:
    """A name that says what was run, and ends in a fingerprint of the request: the same request, the same file."""
    import hashlib

    request = record["request"]
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:8]
    words = [request["model"]["name"], request["run"]["attention"], request["run"]["precision"], fingerprint]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)) + ".json"


def save(record: Record, folder: Path) -> Path:
    """Write `record` to `folder`/<device>/, atomically, and return the file. Raises MeasurementError if it cannot."""
    directory = folder / re.sub(r"[^A-Za-z0-9.]+", "-", record["request"]["device"]["name"])
    target = directory / file_name(record)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise MeasurementError(f"cannot write the record {target}: {error.strerror or error}") from error
    return target


def read(file: Path) -> Record:
    """The record in `file`. Raises MeasurementError for what is not one, or is of a newer schema."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasurementError(f"cannot read the record {file}: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("schema_version"), int):
        raise MeasurementError(f"{file} is not a record of memplan")
    if record["schema_version"] > SCHEMA_VERSION:
        raise MeasurementError(
            f"the record {file} has schema version {record['schema_version']}, newer than {SCHEMA_VERSION}",
            "a newer memplan reads it",
        )
    return record


def request_of(record: Record) -> tuple[Transformer, TrainingRun, Device]:
    """What a record's run was asked to do."""
    request = record["request"]
    return Transformer(**request["model"]), TrainingRun(**request["run"]), Device(**request["device"])
