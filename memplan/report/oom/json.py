"""A message of running out of memory, explained: the document of version 1, with integer bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.config.model import told
from memplan.report.machine import SCHEMA_VERSION, line_to_dict
from memplan.report.oom.found import evidence_in_words
from memplan.report.oom.text import FIGURES

if TYPE_CHECKING:
    from memplan.oom.candidates import Candidate
    from memplan.oom.explain import Explanation, Found
    from memplan.oom.message import Message, Report
    from memplan.oom.printed import Printed


def oom_to_json(explanation: Explanation, *, top: int = 5) -> str:
    """The document: the message with every figure as it is printed and as the bytes it stands for, the reading, and
    with a model the tensor. `top` is how many of the biggest tensors are listed."""
    message = explanation.report.message
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "message": _report(explanation.report),
        "others": [_report(each) for each in explanation.further],
        "tensor_sizes": [
            {"least_bytes": sizes.low, "most_bytes": sizes.high, "shared_segment": sizes.shared}
            for sizes in explanation.sizes
        ],
        "reading": [{"kind": each.kind, "text": each.text, "bytes": each.size} for each in explanation.reading],
        "held_by_others_bytes": explanation.others_bytes,
        "in_container": explanation.in_container,
        "found": None if explanation.found is None else _found(explanation.found, message, top),
    }
    return json.dumps(document, indent=2) + "\n"


def _report(report: Report) -> dict[str, Any]:
    message = report.message
    return {
        "process": report.process,
        "line": message.line,
        "count": report.count,
        "same": report.same,
        "kind": message.kind,
        "backend": message.backend,
        "gpu": message.gpu,
        "text": message.text,
        "library": message.library,
        "suggestion": message.suggestion,
        "figures": {name: _printed(getattr(message, name)) for name in FIGURES},
        "processes": [{"process": each.number, "size": _printed(each.size)} for each in message.others],
    }


def _printed(size: Printed | None) -> dict[str, Any] | None:
    return None if size is None else {"printed": size.text, "least_bytes": size.low, "most_bytes": size.high}


def _found(found: Found, message: Message, top: int) -> dict[str, Any]:
    search, changes = found.search, found.changes
    alive = search.alive
    return {
        "request": {"model": told(search.model), "run": told(search.run), "device": search.device.name},
        "card_guessed": found.guessed,
        "allocator_settings": search.allocator_settings,
        "allocator_settings_supposed": bool(found.supposed),
        "torch": f"{search.torch[0]}.{search.torch[1]}",
        "verdict": search.verdict,
        "exact": search.exact,
        "sized": search.sized,
        "consistent": search.consistent,
        "room_bytes": search.room,
        "traceback": list(found.because),
        "candidates": [_candidate(each, message) for each in search.candidates],
        "nearest": [{"asked_bytes": each.segment, "tensor": line_to_dict(each.line)} for each in found.nearest],
        "alternatives": [
            {"changes": dict(each.changes), "exact": each.exact, "candidate": _candidate(each.candidate, message)}
            for each in found.alternatives
        ],
        "alive": None
        if alive is None
        else {
            "allocated_bytes": alive.allocated,
            "components": alive.components,
            "largest": [line_to_dict(line) for line in alive.largest[:top]],
        },
        "limit_bytes": changes.limit or None,
        "upper_bytes": changes.upper if changes.limit else None,
        "held_besides_bytes": changes.besides,
        "changes": [
            {
                "kind": each.kind,
                "changes": dict(each.changes),
                "allocator_settings": each.setting,
                "needs_bytes": each.needs,
            }
            for each in changes.found
        ],
    }


def _candidate(candidate: Candidate, message: Message) -> dict[str, Any]:
    allocation = candidate.tensor.allocation
    return {
        "tensor": line_to_dict(candidate.line),
        "shape": [int(size) for size in allocation.shape],
        "dtype": allocation.dtype,
        "phase": candidate.phase,
        "when": candidate.step,
        "step": candidate.failure.step if candidate.failure is not None else None,
        "allocated_bytes": candidate.allocated,
        "off_bytes": candidate.apart,
        "consistent": candidate.consistent,
        "replayed": candidate.replayed > 0,
        "held_besides_bytes": candidate.besides,
        "traceback": candidate.traceback,
        "evidence": evidence_in_words(candidate, message),
    }
