"""An estimate as JSON, version 1: integer bytes, a stable order of keys, nothing that differs from run to run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from memplan import __version__

if TYPE_CHECKING:
    from memplan.estimate import Estimate, LedgerLine, PhaseEstimate

SCHEMA_VERSION = 1


def estimate_to_json(estimate: Estimate, *, top: int = 5, ledger: Iterable[LedgerLine] | None = None) -> str:
    """The estimate as indented JSON, one line feed at its end, with the `top` biggest tensors alive at the peak; with
    every line of the ledger where it is given."""
    return json.dumps(estimate_to_dict(estimate, top=top, ledger=ledger), indent=2) + "\n"


def estimate_to_dict(estimate: Estimate, *, top: int = 5, ledger: Iterable[LedgerLine] | None = None) -> dict[str, Any]:
    """The document of version 1. Keys may be added; those that are here stay. A tier that cannot be known is null."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "request": {
            "model": _fields(estimate.model),
            "run": _fields(estimate.run),
            "device": _fields(estimate.device),
        },
        "peak": {
            "phase": estimate.peak.name,
            "allocated_bytes": estimate.peak.peak_allocated_bytes,
            "reserved_bytes": None,  # the caching allocator is not replayed yet
            "device_bytes": None,  # no card has been measured yet
            "module": estimate.peak.peak_module,
            "operation": estimate.peak.peak_operation,
        },
        "interval": _fields(estimate.interval),
        "at_peak": estimate.at_peak,
        "totals": _fields(estimate.totals),
        "phases": [_phase(phase) for phase in estimate.phases],
        "largest": [_line(line) for line in estimate.largest[:top]],
        "fit": None if estimate.fit is None else _fields(estimate.fit),
        "assumptions": list(estimate.assumptions),
    }
    if ledger is not None:
        document["ledger"] = [_line(line) for line in ledger]
    return document


def _phase(phase: PhaseEstimate) -> dict[str, Any]:
    return {
        "name": phase.name,
        "peak_allocated_bytes": phase.peak_allocated_bytes,
        "end_allocated_bytes": phase.end_allocated_bytes,
        "at_peak": phase.at_peak,
        "at_end": phase.at_end,
        "module": phase.peak_module,
        "operation": phase.peak_operation,
    }


def _line(line: LedgerLine) -> dict[str, Any]:
    fields = _fields(line)
    return {"size_bytes": fields.pop("size"), **fields}


def _fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, in their order. dataclasses.asdict would copy every value deeply."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
