"""An estimate as JSON, version 1: integer bytes, a stable order of keys, nothing that differs from run to run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.profiles import fields

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
            "model": fields(estimate.model),
            "run": fields(estimate.run),
            "device": fields(estimate.device),
        },
        "peak": {
            "phase": estimate.peak.name,
            "allocated_bytes": estimate.peak.peak_allocated_bytes,
            "reserved_bytes": estimate.tiers.reserved_bytes,
            "device_bytes": estimate.tiers.device_bytes,
            "module": estimate.peak.peak_module,
            "operation": estimate.peak.peak_operation,
        },
        "interval": fields(estimate.interval),
        "at_peak": estimate.at_peak,
        "totals": fields(estimate.totals),
        "phases": [phase_to_dict(phase) for phase in estimate.phases],
        "largest": [line_to_dict(line) for line in estimate.largest[:top]],
        "fit": None if estimate.fit is None else fields(estimate.fit),
        "assumptions": list(estimate.assumptions),
    }
    if estimate.largest_batch is not None:
        document["largest_batch"] = estimate.largest_batch
    if ledger is not None:
        document["ledger"] = [line_to_dict(line) for line in ledger]
    return document


def phase_to_dict(phase: PhaseEstimate) -> dict[str, Any]:
    """One phase of the document."""
    return {
        "name": phase.name,
        "peak_allocated_bytes": phase.peak_allocated_bytes,
        "end_allocated_bytes": phase.end_allocated_bytes,
        "peak_reserved_bytes": phase.peak_reserved_bytes,
        "at_peak": phase.at_peak,
        "at_end": phase.at_end,
        "module": phase.peak_module,
        "operation": phase.peak_operation,
    }


def line_to_dict(line: LedgerLine) -> dict[str, Any]:
    """One tensor, or several equal ones."""
    values = fields(line)
    return {"size_bytes": values.pop("size"), **values}
