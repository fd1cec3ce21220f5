"""Real snapshots, explained: PyTorch's own caching allocator and its own recording (record.py; profiles/)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from memplan.config.load import build_run, load_model
from memplan.config.validate import validate_run
from memplan.estimate import estimate
from memplan.explain.explanation import Explanation, explain
from memplan.explain.opened import open_snapshot
from memplan.explain.recording import record_of
from memplan.explain.rules import settings_of
from memplan.explain.story import Story
from memplan.measure import history
from memplan.profiles import profiles_folder, read, request_of
from memplan.units import MIB

from .subject import CARD, EXPANDABLE_BYTES, LARGE, LIBRARY, MIXED, MODEL, RUN

Recorded = Callable[[str], Path]

SCENES = (
    "plain", "leaking", "fragmented", "out-of-memory", "leaking-out-of-memory", "expandable", "cut", "late", "pools",
    "mixed", "without-frames", "with-all-frames", "only-state", "library", "leaking-torch-2.6", "cut-torch-2.6",
)  # fmt: skip

HISTORIES = sorted(Path(profiles_folder()).rglob(f"*{history.SUFFIX}"))

RUNS = {"mixed": MIXED, "out-of-memory": LARGE}

AS_PLANNED = (
    "plain", "out-of-memory", "cut", "late", "mixed", "without-frames", "with-all-frames", "only-state",
)  # fmt: skip
"""Scenes in which nothing is done that is not in the plan."""


@cache
def explained_scene(recorded: Recorded, name: str, **changes: Any) -> Explanation:
    run = validate_run(MODEL, replace(RUNS.get(name, RUN), **changes), CARD)
    return explain(recorded(name), (MODEL, run, CARD))


@cache
def explained_library(recorded: Recorded, attention: str) -> Explanation:
    import json

    folder = recorded("library").parent
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **LIBRARY}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = load_model(str(folder / "config.json"), {}, None)
    options = {
        "micro_batch_size": 4,
        "sequence_length": 128,
        "attention": attention,
        "optimizer_implementation": "foreach",
    }
    return explain(recorded("library"), (model, validate_run(model, build_run(model, options), CARD), CARD))


def statuses(found: Explanation) -> Counter[str]:
    assert found.beside is not None
    return Counter(each.status for each in found.beside.names.alive)


# ---- the allocator


@pytest.mark.parametrize("name", SCENES)
def test_every_block_of_a_real_trace_is_followed(recorded: Recorded, name: str) -> None:
    """What is followed from the first event to the last is the state that PyTorch says it has in the end."""
    snapshot, _ = open_snapshot(recorded(name))
    recording = record_of(snapshot)
    story = Story(recording, settings_of(recording))
    assert story.strange == story.differing == story.repaired == 0
    assert not recording.unknown
    held = snapshot["segments"]
    assert story.end.reserved == sum(segment["total_size"] for segment in held)
    assert story.end.allocated == sum(segment["allocated_size"] for segment in held)
    assert story.end.requested + story.end.pending >= sum(segment["requested_size"] for segment in held)
    assert story.end.allocated + story.end.pending == sum(segment["active_size"] for segment in held)
    assert story.settings.expandable_segments == (name == "expandable")


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.name.removesuffix(history.SUFFIX))
def test_the_recorded_runs_are_explained_to_the_byte(file: Path) -> None:
    record = read(file.with_name(file.name.replace(history.SUFFIX, ".json")))
    request = request_of(record)
    found = explain(file, request)
    peak, beside = found.story.peak, found.beside
    assert beside is not None
    # The sizes are those that PyTorch counted.
    assert peak.allocated == record["tiers"]["allocated_bytes"]
    assert peak.reserved == found.story.peak_reserved == record["tiers"]["reserved_bytes"]
    assert peak.requested == max(phase["peak_requested_bytes"] for phase in record["phases"])
    assert found.phase == max(record["phases"], key=lambda phase: phase["peak_allocated_bytes"])["name"]
    assert found.phase_basis.startswith("the history's mark")
    # And all of them are the plan's.
    assert statuses(found).keys() == {"planned"}
    assert beside.unseen == () and beside.names.extra == 0
    assert beside.names.found == beside.names.planned > 50
    by_component = dict.fromkeys(beside.planned, 0)
    for each in beside.names.alive:
        assert each.tensor is not None
        tensor = beside.tensors[each.tensor]
        assert tensor.size == each.life.requested
        by_component[tensor.component] += each.life.size
    assert by_component == estimate(*request).at_peak
    assert beside.nearer is None


# ---- beside the plan


@pytest.mark.parametrize("name", AS_PLANNED)
def test_a_run_as_planned_leaves_nothing_unexplained(recorded: Recorded, name: str) -> None:
    found = explained_scene(recorded, name)
    beside = found.beside
    assert beside is not None
    assert statuses(found).keys() == {"planned"}
    assert beside.unseen == () and beside.names.extra == 0 and beside.nearer is None
    assert beside.blocks("planned") == found.story.peak.allocated
    assert all(beside.tensors[each.tensor or 0].size == each.life.requested for each in beside.names.alive)
    if name not in ("out-of-memory", "only-state"):
        assert found.story.peak.allocated == beside.estimate.tiers.allocated_bytes
        assert found.story.peak_reserved == beside.estimate.tiers.reserved_bytes
        assert found.phase == "backward"


def test_leaks_are_named_by_tensor_and_by_code(recorded: Recorded) -> None:
    found = explained_scene(recorded, "leaking")
    beside = found.beside
    assert beside is not None
    assert statuses(found) == {"planned": 153, "kept": 4, "unplanned": 4}
    assert {(kind.module, kind.tensor.operation, kind.size) for kind in beside.kept} == {
        ("head.projection", "aten::mm", 4 * 256 * 8000 * 4)
    }
    assert [each.step for each in beside.names.alive if each.status == "kept"] == [0, 1, 2, 3]
    (kept,), (unplanned,) = beside.kept_by_code, beside.unplanned_by_code
    assert kept.origin is not None and unplanned.origin is not None
    assert kept.origin.frame.short == "reference/heads.py:37 logits"
    assert kept.origin.caller is not None and kept.origin.caller.name == "keep_features"
    assert unplanned.origin.frame.short == "explain/train.py:30 keep_features"
    assert (unplanned.count, unplanned.requested) == (4, 4 * 256 * 512 * 4)
    assert dict(beside.planned) == dict(beside.seen) and beside.unseen == ()
    best = found.changes[0]
    assert (best.kind, best.saves) == ("code", kept.size)
    assert "heads.py:37" in best.what


def test_snapshots_of_an_older_release(recorded: Recorded) -> None:
    """PyTorch 2.6 tells no pools in its trace, and its operations have other temporaries."""
    request = (MODEL, RUN, CARD)
    leaking = explain(recorded("leaking-torch-2.6"), request, torch=(2, 6))
    assert statuses(leaking) == {"planned": 153, "kept": 4, "unplanned": 4}
    assert leaking.beside is not None and leaking.beside.unseen == () and leaking.beside.nearer is None
    cut = explain(recorded("cut-torch-2.6"), request, torch=(2, 6))
    assert statuses(cut).keys() == {"planned"}
    assert cut.beside is not None and cut.beside.unseen == ()
    newer = explain(recorded("leaking-torch-2.6"), request)
    assert newer.beside is not None and newer.beside.nearer is not None
    assert (newer.beside.nearer.setting, newer.beside.goes_with) == ("torch", False)


def test_a_pool_of_ones_own_and_another_stream(recorded: Recorded) -> None:
    found = explained_scene(recorded, "pools")
    assert found.beside is not None
    (group,) = found.beside.unplanned_by_code
    assert group.origin is not None and group.origin.frame.short == "explain/train.py:51 beside"
    assert group.size == 12_582_912  # 12,000,000 bytes, and what a pool of 2 MiB steps adds
    pools = {pool for pool, _ in found.story.peak.places}
    assert pools == {(0, 0), (0, 1)}
    assert len({stream for _, stream in found.story.peak.places}) == 2
    assert found.story.end.pending == 6_000_128  # freed, and another stream was still to use it


def test_a_model_of_the_library_in_a_loop_of_ones_own(recorded: Recorded) -> None:
    """The library keeps keys and values that no training needs; the loop keeps no logits, and one tensor is input and
    labels at once."""
    found = explained_library(recorded, "sdpa")
    beside = found.beside
    assert beside is not None and beside.goes_with
    assert statuses(found)["kept"] == 0
    assert {group.origin.frame.short.split(":")[0] for group in beside.unplanned_by_code if group.origin} == {
        "transformers/cache_utils.py",
        "integrations/sdpa_attention.py",
    }
    assert [(kind.module, kind.tensor.operation) for kind in beside.unseen] == [("lm_head", "aten::mm"), ("", "input")]
    assert beside.nearer is None
    for name in ("parameters", "optimizer_state", "workspace"):
        assert beside.planned[name] == beside.seen[name] > 0


def test_the_wrong_kernel_is_noticed(recorded: Recorded) -> None:
    found = explained_library(recorded, "naive")
    assert found.beside is not None and found.beside.nearer is not None
    assert (found.beside.nearer.setting, found.beside.nearer.value) == ("attention", "sdpa")
    wrong = explained_scene(recorded, "plain", recompute="full")
    assert wrong.beside is not None and wrong.beside.nearer is not None
    assert (wrong.beside.nearer.setting, wrong.beside.nearer.value) == ("recompute", "none")
    assert wrong.beside.nearer.off == 0
    assert wrong.beside.blocks("kept") > 30 * MIB  # what would not be there, were layers made again


def test_without_a_trace_there_is_the_state(recorded: Recorded) -> None:
    found = explained_scene(recorded, "only-state")
    assert found.story.births == 0 and found.replayed is None
    assert found.beside is not None and found.beside.goes_with
    by_optimizer = [
        each
        for each in found.beside.names.alive
        if any(frame.file.endswith("torch/optim/adam.py") for frame in found.stacks.key(each.life.frames))
    ]
    components = {found.beside.tensors[each.tensor or 0].component for each in by_optimizer}
    assert len(by_optimizer) == 72 and components == {"optimizer_state"}


# ---- what runs out, and what to change


def test_the_tensor_that_memory_ran_out_for_is_named(recorded: Recorded) -> None:
    found = explained_scene(recorded, "out-of-memory")
    (shortage,) = found.story.shortages
    assert shortage.requested == 24 * 256 * 8000 * 4
    assert shortage.driver_free == 105_696_460
    assert shortage.moment is not None and shortage.moment.largest_free < shortage.requested
    assert found.beside is not None and found.beside.wanted is not None
    assert found.beside.wanted.title == "loss aten::_log_softmax_backward_data [6144, 8000] fp32"
    assert found.fit is not None and not found.fit.fits
    assert found.fit.room == shortage.moment.reserved + shortage.driver_free
    assert found.fit.remedies
    assert all(remedy.upper <= found.fit.room for remedy in found.fit.remedies)
    for remedy in found.fit.remedies:
        run = validate_run(MODEL, replace(LARGE, **remedy.changes), CARD)
        reserved = estimate(MODEL, run, CARD).interval.reserved_bytes
        assert reserved is not None and reserved[1] <= found.fit.room


def test_a_plan_that_fits_is_not_what_ran_out(recorded: Recorded) -> None:
    found = explained_scene(recorded, "leaking-out-of-memory")
    assert found.beside is not None and found.fit is not None
    assert found.fit.fits and found.fit.remedies == ()
    assert found.beside.blocks("kept") + found.beside.blocks("unplanned") == 178_257_920
    assert found.changes[0].kind == "code"


def test_fragmentation_is_told_and_what_would_be_without(recorded: Recorded) -> None:
    found = explained_scene(recorded, "fragmented")
    peak = found.story.peak
    assert (peak.reserved, peak.fragmented) == (497_025_024, 239_567_872)
    assert peak.fragmented == peak.free_segments + peak.split
    (change,) = [each for each in found.changes if each.kind == "allocator"]
    assert change.before == found.story.peak_reserved == 499_122_176
    real = explained_scene(recorded, "expandable")
    assert change.after == real.story.peak_reserved == EXPANDABLE_BYTES["fragmented"]
    assert real.replayed is not None and real.replayed.expandable is None
    assert real.replayed.same == real.replayed.recorded


@pytest.mark.parametrize("name", EXPANDABLE_BYTES)
def test_expandable_segments_are_judged_as_they_are(recorded: Recorded, name: str) -> None:
    """The replay of a trace with that setting gives what the same run reserved with it."""
    snapshot, _ = open_snapshot(recorded(name))
    from memplan.explain.changes import replay_trace

    recording = record_of(snapshot)
    replayed = replay_trace(Story(recording, settings_of(recording)))
    assert replayed is not None
    assert replayed.same == replayed.recorded
    assert replayed.expandable == EXPANDABLE_BYTES[name]


@pytest.mark.parametrize("name", ["cut", "late"])
def test_a_trace_that_begins_late_is_no_ground_for_a_suggestion(recorded: Recorded, name: str) -> None:
    found = explained_scene(recorded, name)
    assert found.replayed is not None and found.replayed.same != found.replayed.recorded
    assert all(change.kind != "allocator" for change in found.changes)
    assert found.story.beginning.cut == (name == "cut")
    assert any("blocks are in use" in note for note in found.notes)


def test_settings_are_estimated_before_they_are_told(recorded: Recorded) -> None:
    found = explained_scene(recorded, "plain")
    (change,) = [each for each in found.changes if each.what == "--loss chunked"]
    before, after = (estimate(MODEL, replace(RUN, loss=loss), CARD).tiers for loss in ("whole", "chunked"))
    assert (change.before, change.after) == (before.reserved_bytes, after.reserved_bytes)
    assert change.basis == "estimated; gone from the peak: loss (aten::log_softmax)"
    assert [each.saves for each in found.changes] == sorted((each.saves for each in found.changes), reverse=True)


# ---- frames and phases


@pytest.mark.parametrize("name", ["plain", "with-all-frames"])
def test_lines_of_code_outside_of_torch(recorded: Recorded, name: str) -> None:
    found = explained_scene(recorded, name)
    lines = {group.origin.frame.short for group in found.by_origin if group.origin is not None}
    assert {"reference/training.py:65 compute_loss", "reference/training.py:117 update"} <= lines
    assert all("torch/" not in line for line in lines)
    assert any(group.origin is None for group in found.by_origin)  # autograd's thread has no Python code
    callers = {group.origin.caller for group in found.by_origin if group.origin is not None}
    assert {caller.name for caller in callers if caller is not None} == {"train", "prepare"}


def test_no_phase_is_guessed(recorded: Recorded) -> None:
    found = explain(recorded("plain"))
    assert found.phase == found.phase_basis == ""
    assert found.beside is None and found.fit is None
    assert explained_scene(recorded, "plain").phase_basis == "the plan"
