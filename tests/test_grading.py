"""The estimator graded on records made by hand, whose errors are known by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.estimate import Estimate
from memplan.grading import Grading, grade, with_residuals
from memplan.profiles import Record
from memplan.promises import Check
from memplan.residuals import COLUMNS, residuals_to_text
from memplan.verify import TIERS, TOLERANCES

from .records import CARD, MIB, allocated_of, card_record

FOLDER = Path("profiles")
CONTEXT = 500 * MIB


def off(tier: str, by: int, **options: Any) -> Record:
    """A record whose measurement of one tier is so many bytes more than what is estimated."""
    record = card_record(**options)
    record["tiers"][f"{tier}_bytes"] += by
    return record


def graded(*records: Record) -> Grading:
    return grade([(FOLDER / "card" / f"{number}.json", each) for number, each in enumerate(records)], FOLDER)


def check(grading: Grading, says: str) -> Check:
    (found,) = [check for check in grading.checks if says in check.says]
    return found


def test_exact_records_hold_everything() -> None:
    grading = graded(*(card_record(micro_batch_size=size) for size in range(1, 13)))
    assert grading.holds
    assert grading.misses == ()
    assert [(each.tier, each.count, each.exact) for each in grading.summaries if not each.group] == [
        (tier, 12, 12) for tier in TIERS
    ]
    assert {(each.tier, each.inside, each.count) for each in grading.coverage} == {(tier, 12, 12) for tier in TIERS}


def test_errors_are_signed_and_of_the_measurement() -> None:
    size = allocated_of(card_record())
    grading = graded(off("allocated", size), off("allocated", -size // 2), card_record())
    summary = next(each for each in grading.summaries if each.tier == "allocated" and not each.group)
    assert (summary.count, summary.exact) == (3, 1)
    low, high = -0.5, (size - (size - size // 2)) / (size + -size // 2)
    assert summary.worst == pytest.approx(high, rel=1e-6)
    assert summary.mean == pytest.approx((low + high) / 3, rel=1e-6)
    assert [miss.residual.difference for miss in grading.misses] == [size // 2 + size % 2, -size]
    assert grading.misses[0].figure == "allocated tier"  # the largest share first, not the most bytes


def test_summaries_are_told_apart() -> None:
    grading = graded(
        card_record(),
        off("allocated", 512, attention="flash", precision="bf16"),
        off("reserved", 2 * MIB, precision="bf16-mixed"),
        card_record(device=replace(CARD, name="h200-141gb")),
    )
    found = {(each.tier, each.group, each.value): (each.count, each.exact) for each in grading.summaries}
    assert found["allocated", "attention", "naive"] == (3, 3)
    assert found["allocated", "attention", "flash"] == (1, 0)
    assert found["allocated", "phase", "forward"] == (4, 4)  # the tier was off, and no phase
    assert found["reserved", "precision", "bf16-mixed"] == (1, 0)
    assert found["reserved", "precision", "fp32"] == (2, 2)
    assert found["device", "device", "h200-141gb"] == (1, 1)
    assert found["device", "architecture", "decoder"] == (4, 4)


def test_tiers_that_one_side_does_not_know_are_left_out() -> None:
    grading = graded(card_record(reserved=None, on_device=None), card_record(micro_batch_size=3))
    assert {each.tier: each.count for each in grading.summaries if not each.group} == {
        "allocated": 2,
        "reserved": 1,
        "device": 1,
    }


@pytest.mark.parametrize(
    ("tier", "thousandths", "says"),
    [("allocated", 2, "allocated within 0.2 %"), ("reserved", 30, "reserved within 3 %"), ("device", 20, "within 2 %")],
)
def test_no_record_is_beyond_the_largest_error(tier: str, thousandths: int, says: str) -> None:
    # off by `more` bytes: |more| * 1000 <= (estimated + more) * thousandths
    estimated = int(card_record()["tiers"][f"{tier}_bytes"])
    most = estimated * thousandths // (1000 - thousandths)
    inside = graded(off(tier, most))
    assert check(inside, says).holds
    outside = graded(off(tier, most + 1))
    assert not check(outside, says).holds
    assert not outside.holds


@pytest.mark.parametrize(
    ("tier", "percent", "says"), [("allocated", 0.1, "allocated 0 bytes off"), ("reserved", 2, "reserved within 1 %")]
)
def test_ninety_five_percent_are_within_the_usual_error(tier: str, percent: float, says: str) -> None:
    usual = [card_record(micro_batch_size=size) for size in range(1, 20)]
    by = int(card_record(micro_batch_size=20)["tiers"][f"{tier}_bytes"] * percent / 100)
    assert check(graded(*usual, off(tier, by, micro_batch_size=20)), says).holds  # 19 of 20
    short = check(graded(*usual[1:], off(tier, by, micro_batch_size=20)), says)  # 18 of 19
    assert (short.holding, short.count, short.holds) == (18, 19, False)


def test_the_tolerances_are_those_that_are_promised() -> None:
    assert [tuple(vars_of(each)) for each in TOLERANCES] == [
        ("cpu", "allocated", 0, 100, 0),
        ("cuda", "allocated", 0, 95, 2),
        ("cuda", "reserved", 10, 95, 30),
        ("cuda", "device", 20, 100, 20),
    ]


def vars_of(tolerance: Any) -> list[Any]:
    return [getattr(tolerance, name) for name in ("backend", "tier", "usual", "share", "most")]


def test_another_kernel_than_the_one_asked_for_does_not_hold() -> None:
    record = card_record(attention="flash", precision="bf16")
    record["sdpa_kernels"] = ["math"]
    grading = graded(record, card_record())
    kernels = check(grading, "attention kernel")
    assert (kernels.holding, kernels.count, kernels.holds) == (1, 2, False)


def test_a_kernel_that_is_not_known_is_not_counted() -> None:
    record = card_record(attention="flash", precision="bf16")
    record["sdpa_kernels"] = None
    grading = graded(record, card_record())
    assert check(grading, "attention kernel").count == 1
    assert grading.holds


# ---------------------------------------------------------------- out of memory


@pytest.fixture
def simple_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards without a caching allocator: what is needed is known by hand, however small the card is."""

    def tiers(predicted: Estimate) -> dict[str, int]:
        allocated = predicted.peak.peak_allocated_bytes
        return {"allocated": allocated, "device": allocated + CONTEXT}

    monkeypatch.setattr("memplan.verify.estimated_tiers", tiers)
    monkeypatch.setattr("memplan.graded.estimated_tiers", tiers)


def needed(size: int = 2) -> int:
    """Bytes that a micro-batch of that size needs by `simple_tiers`."""
    return allocated_of(card_record(micro_batch_size=size)) + CONTEXT


def small_card(capacity: int) -> dict[str, Any]:
    return {"device": replace(CARD, capacity_bytes=capacity)}


@pytest.mark.usefixtures("simple_tiers")
def test_running_out_is_foreseen_on_the_device_tier() -> None:
    grading = graded(card_record(outcome="out_of_memory", **small_card(needed() - 1)))
    assert check(grading, "running out of memory is foreseen").holds
    assert grading.unforeseen == ()
    assert grading.summaries == () and grading.residuals == ()


@pytest.mark.usefixtures("simple_tiers")
def test_running_out_where_it_was_said_to_fit_does_not_hold() -> None:
    grading = graded(card_record(outcome="out_of_memory", **small_card(needed())))
    assert not grading.holds
    (each,) = grading.unforeseen
    assert each.predicted == needed()


@pytest.mark.usefixtures("simple_tiers")
def test_what_others_use_of_a_card_is_not_there() -> None:
    device = replace(CARD, capacity_bytes=needed() + MIB, used_by_others_bytes=2 * MIB)
    assert graded(card_record(outcome="out_of_memory", device=device)).holds


def test_the_largest_tier_of_the_estimate_is_what_a_card_must_hold() -> None:
    grading = graded(card_record())
    assert grading.grades[0].predicted == grading.grades[0].estimate.tiers.device_bytes
    assert grading.grades[0].said_to_fit
    assert graded(card_record(outcome="out_of_memory", **small_card(2 * MIB))).holds


def boundary(less: str, more: str, capacity: int) -> Check | None:
    """Of micro-batches of 2 and 3: how they ended on a card of that capacity."""
    records = []
    for size, outcome in ((2, less), (3, more)):
        options = {"micro_batch_size": size, **small_card(capacity)}
        records.append(card_record(**options) if outcome == "ran" else card_record(outcome=outcome, **options))
    found = [check for check in graded(*records).checks if "largest micro-batch" in check.says]
    return found[0] if found else None


@pytest.mark.usefixtures("simple_tiers")
def test_the_largest_micro_batch_is_right_where_both_ends_are() -> None:
    two, three = needed(2), needed(3)
    assert boundary("ran", "out_of_memory", two) == Check("the largest micro-batch that fits is predicted", 1, 1, 90)
    too_low = boundary("ran", "ran", three - 1)  # said to run out, and it ran
    assert too_low is not None and (too_low.holding, too_low.count) == (0, 1)
    too_high = boundary("ran", "out_of_memory", three)  # said to fit, and it ran out
    assert too_high is not None and (too_high.holding, too_high.count) == (0, 1)
    both_out = boundary("out_of_memory", "out_of_memory", two)
    assert both_out is not None and both_out.holding == 0
    assert boundary("ran", "ran", three) is None  # no boundary between them, and none predicted


@pytest.mark.usefixtures("simple_tiers")
def test_records_of_other_drivers_make_no_boundary() -> None:
    record = card_record(micro_batch_size=2, **small_card(needed()))
    other = card_record(
        outcome="out_of_memory", micro_batch_size=3, environment={"driver": "470.1"}, **small_card(needed())
    )
    assert not [check for check in graded(record, other).checks if "largest micro-batch" in check.says]


# ---------------------------------------------------------------- what cannot be graded


def test_runs_that_did_not_end_are_counted_and_nothing_else() -> None:
    outcomes = ["timed_out", "killed", "failed", "killed"]
    grading = graded(card_record(), *(card_record(outcome=outcome) for outcome in outcomes))
    assert grading.ungraded == {"timed_out": 1, "killed": 2, "failed": 1}
    assert grading.holds and len(grading.grades) == 1


def test_a_request_that_is_not_modelled_is_a_problem_and_stops_nothing() -> None:
    old = card_record(environment={"torch": "1.13.1"})
    short = card_record()
    short["phases"] = short["phases"][:2]
    grading = graded(old, card_record(), short)
    assert [file for file, _ in grading.problems] == ["card/0.json", "card/2.json"]
    assert "1.13.1" in grading.problems[0][1]
    assert "no phase backward" in grading.problems[1][1]
    assert "profiles" not in grading.problems[0][1]
    assert len(grading.grades) == 1


# ---------------------------------------------------------------- residuals and intervals


def test_a_line_for_every_run_that_ran() -> None:
    grading = graded(off("reserved", 2 * MIB), card_record(outcome="out_of_memory"))
    (line,) = grading.residuals
    row = dict(zip(COLUMNS, line, strict=True))
    assert row["card"] == "h100-80gb" and row["compute_capability"] == "9.0" and row["torch"] == "2.13"
    assert int(row["reserved_measured"]) - int(row["reserved_estimated"]) == 2 * MIB
    assert row["device_estimated"] == row["device_measured"]
    assert int(row["allocated_measured"]) == allocated_of(card_record())


def test_residuals_have_to_be_what_grading_gives() -> None:
    grading = graded(card_record(), off("reserved", 4096, micro_batch_size=3))
    text = residuals_to_text(grading.residuals)
    assert with_residuals(grading, text).holds
    assert not with_residuals(grading, text.replace("naive", "flash")).holds
    assert not with_residuals(grading, "").holds


def test_the_interval_of_a_record_is_made_without_it() -> None:
    records = [card_record(micro_batch_size=size) for size in range(2, 14)]
    outlier = off("reserved", 2 * MIB, micro_batch_size=14)
    coverage = {each.tier: (each.inside, each.count) for each in graded(*records, outlier).coverage}
    # the twelve exact ones see the outlier and are inside; the outlier sees exact ones alone, and is not
    assert coverage == {"allocated": (13, 13), "reserved": (12, 13), "device": (13, 13)}


def test_the_settings_of_the_allocator_are_those_of_the_run() -> None:
    settings = {"allocator_settings": "roundup_power2_divisions:2"}
    plain, rounded = graded(card_record()).grades[0], graded(card_record(environment=settings)).grades[0]
    assert rounded.estimate.tiers.allocated_bytes > plain.estimate.tiers.allocated_bytes


def test_settings_that_are_not_modelled_are_a_problem() -> None:
    ((_, why),) = graded(card_record(environment={"allocator_settings": "backend:cudaMallocAsync"})).problems
    assert "cudaMallocAsync" in why


def test_reserved_bytes_are_told_apart_by_phase_where_they_were_measured() -> None:
    record = card_record()
    for phase, estimated in zip(record["phases"], graded(record).grades[0].estimate.phases, strict=True):
        phase["peak_reserved_bytes"] = estimated.peak_reserved_bytes
    record["phases"][3]["peak_reserved_bytes"] += 2 * MIB
    found = {(each.tier, each.value): each.exact for each in graded(record).summaries if each.group == "phase"}
    assert found["reserved", "forward"] == 1
    assert found["reserved", "optimizer_step"] == 0
    assert found["allocated", "optimizer_step"] == 1
