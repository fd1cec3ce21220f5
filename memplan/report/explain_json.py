"""A snapshot explained, as JSON: integer bytes, a stable order, nothing that is not in the snapshot or the plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.profiles import fields

if TYPE_CHECKING:
    from memplan.explain.beside import Beside, Kind
    from memplan.explain.explanation import Explanation
    from memplan.explain.frames import Frame, Origin
    from memplan.explain.grouping import Group
    from memplan.explain.naming import Named
    from memplan.explain.story import Moment, Shortage

SCHEMA_VERSION = 1


def explanation_to_json(found: Explanation, *, top: int = 5) -> str:
    """The document as indented JSON. Lists of groups hold the `top` largest; every block that is alive at the peak is
    there with its name where there is a plan."""
    return json.dumps(explanation_to_dict(found, top=top), indent=1) + "\n"


def explanation_to_dict(found: Explanation, *, top: int = 5) -> dict[str, Any]:
    """The document of version 1. Keys may be added; those that are here stay."""
    story = found.story
    replayed = found.replayed
    return {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "snapshot": {
            "kind": "history" if found.history else "snapshot",
            "device_index": found.device,
            "device_indices": list(found.devices),
            "events": len(story.recording.events),
            "allocations": story.births,
            "blocks_before": len(story.before),
            "bytes_before": sum(life.size for life in story.before),
            "cut_off": story.beginning.cut,
            "contradictions": story.strange,
            "differing_bytes": story.differing,
            "unknown_actions": dict(sorted(story.recording.unknown.items())),
            "allocator": {name: getattr(story.settings, name) for name in story.settings.__slots__},
        },
        "peak": {
            "event": story.peak.event,
            "phase": found.phase or None,
            "phase_basis": found.phase_basis or None,
            **_moment(story.peak),
        },
        "end": _moment(story.end),
        "most_reserved_bytes": story.peak_reserved,
        "by_size": [_group(group) for group in found.by_size[:top]],
        "by_code": [_group(group) for group in found.by_origin[:top]],
        "out_of_memory": [_shortage(shortage, found) for shortage in story.shortages],
        "plan": None if found.beside is None else _plan(found, found.beside, top),
        "replay": None
        if replayed is None
        else {
            "recorded_bytes": replayed.recorded,
            "same_settings_bytes": replayed.same,
            "expandable_segments_bytes": replayed.expandable,
        },
        "changes": [
            {
                "kind": change.kind,
                "what": change.what,
                "tier": change.tier,
                "before_bytes": change.before,
                "after_bytes": change.after,
                "saves_bytes": change.saves,
                "basis": change.basis,
            }
            for change in found.changes
        ],
        "notes": list(found.notes),
    }


def _moment(moment: Moment) -> dict[str, Any]:
    return {
        "requested_bytes": moment.requested,
        "rounding_bytes": moment.rounding,
        "allocated_bytes": moment.allocated,
        "pending_bytes": moment.pending,
        "free_split_bytes": moment.split,
        "free_segments_bytes": moment.free_segments,
        "reserved_bytes": moment.reserved,
        "largest_free_bytes": moment.largest_free,
        "places": [
            {"pool": list(pool), "stream": stream, "reserved_bytes": reserved, "used_bytes": used}
            for (pool, stream), (reserved, used) in moment.places.items()
        ],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "size_bytes": group.size,
        "count": group.count,
        "requested_bytes": group.requested or None,
        "code": _origin(group.origin),
    }


def _origin(origin: Origin | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    caller = None if origin.caller is None else _frame(origin.caller)
    return {**_frame(origin.frame), "called_from": caller}


def _frame(frame: Frame) -> dict[str, Any]:
    return {"file": frame.file, "line": frame.line, "function": frame.name}


def _shortage(shortage: Shortage, found: Explanation) -> dict[str, Any]:
    return {
        "requested_bytes": shortage.requested,
        "driver_free_bytes": shortage.driver_free,
        "code": _origin(found.stacks.origin(shortage.frames)),
        "moment": None if shortage.moment is None else _moment(shortage.moment),
    }


def _plan(found: Explanation, beside: Beside, top: int) -> dict[str, Any]:
    names, estimate = beside.names, beside.estimate
    return {
        "request": {
            "model": fields(estimate.model),
            "run": fields(estimate.run),
            "device": fields(estimate.device),
        },
        "peak": {
            "phase": estimate.peak.name,
            "allocated_bytes": estimate.tiers.allocated_bytes,
            "reserved_bytes": estimate.tiers.reserved_bytes,
        },
        "steps": beside.steps,
        "step": None if names.step is None else names.step + 1,
        "allocations": {"found": names.found, "planned": names.planned, "others": names.extra},
        "components": {
            name: {"planned_bytes": planned, "seen_bytes": beside.seen[name]}
            for name, planned in beside.planned.items()
        },
        "as_planned_bytes": beside.blocks("planned"),
        "kept_bytes": beside.blocks("kept"),
        "unplanned_bytes": beside.blocks("unplanned"),
        "unseen_bytes": sum(kind.size * kind.count for kind in beside.unseen),
        "largest": [_kind(kind) for kind in beside.largest[:top]],
        "kept": [_kind(kind) for kind in beside.kept],
        "kept_by_code": [_group(group) for group in beside.kept_by_code],
        "unplanned_by_code": [_group(group) for group in beside.unplanned_by_code],
        "unseen": [_kind(kind) for kind in beside.unseen],
        "blocks": [_block(each, found, beside) for each in names.alive],
        "wanted": None if beside.wanted is None else beside.wanted.title,
        "nearer": None if beside.nearer is None else beside.nearer._asdict(),
        "room": None
        if found.fit is None
        else {
            "needed_bytes": found.fit.needed,
            "room_bytes": found.fit.room,
            "fits": found.fit.fits,
            "would_fit": None
            if found.fit.remedies is None
            else [{"changes": dict(each.changes), "upper_bytes": each.upper} for each in found.fit.remedies],
        },
    }


def _kind(kind: Kind) -> dict[str, Any]:
    tensor = kind.tensor
    return {
        "size_bytes": kind.size,
        "count": kind.count,
        "module": kind.module,
        "operation": tensor.operation,
        "component": tensor.component,
        "shape": [int(size) for size in tensor.allocation.shape],
        "dtype": tensor.allocation.dtype,
        "step": None if kind.step is None or kind.step < 0 else kind.step + 1,
    }


def _block(each: Named, found: Explanation, beside: Beside) -> dict[str, Any]:
    life = each.life
    tensor = None if each.tensor is None else beside.tensors[each.tensor]
    return {
        "size_bytes": life.size,
        "requested_bytes": life.requested,
        "status": each.status,
        "component": None if tensor is None else tensor.component,
        "tensor": None if tensor is None else tensor.title,
        "step": None if each.step < 0 else each.step + 1,
        "code": _origin(found.stacks.origin(life.frames)),
    }
