"""Bounds from recorded runs: what is near, how they are widened, what is never claimed, and the verdict on them."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError
from memplan.interval import FEWEST, NEAREST, UNMEASURED, Interval, interval_for, verdict
from memplan.measure.suites.library import small_models
from memplan.residuals import (
    ARCHITECTURE,
    CAPABILITY,
    CARD,
    COLUMNS,
    Line,
    features,
    fingerprint,
    library_of,
    read_residuals,
    residuals_to_text,
)

from .records import CARD as H100
from .records import MODEL, run_of

CPU = load_device("cpu")
TORCH = (2, 13)
GB = 10**9


class Tiers(NamedTuple):
    allocated_bytes: int
    reserved_bytes: int | None = None
    device_bytes: int | None = None


def line(
    allocated: tuple[int, int],
    reserved: tuple[int, int] | None = None,
    on_device: tuple[int, int] | None = None,
    *,
    device: Device = H100,
    torch: tuple[int, int] = TORCH,
    card: str | None = None,
    request: str = "",
    **changes: Any,
) -> Line:
    """One recorded run: (estimated, measured) bytes in each tier."""
    run = replace(run_of(), **changes)
    columns = features(MODEL, run, device, torch, card or device.name, device.compute_capability)
    for tier in (allocated, reserved, on_device):
        columns += ["", ""] if tier is None else [str(tier[0]), str(tier[1])]
    return [*columns, request or fingerprint(MODEL, run)]


def bounds(recorded: list[Line], tiers: Tiers | None = None, device: Device = H100, **options: Any) -> Interval:
    return interval_for(MODEL, run_of(), device, tiers or Tiers(GB), TORCH, recorded=recorded, **options)


# ---------------------------------------------------------------- near


def test_exact_runs_near_make_a_point() -> None:
    interval = bounds([line((GB, GB))] * 12)
    assert interval.allocated_bytes == (GB, GB)
    assert interval.reserved_bytes is None and interval.device_bytes is None
    assert interval.basis == "12 recorded runs near, all exact"


def test_errors_of_the_runs_near_are_the_bounds_widened_by_their_spacing() -> None:
    # eleven runs from -0.5 % to +0.5 %: a spread of 1 %, so one tenth of it more on both sides
    recorded = [line((1000, measured)) for measured in range(995, 1006)]
    interval = bounds(recorded, Tiers(1_000_000))
    assert interval.allocated_bytes == (994_000, 1_006_000)
    assert interval.basis == "11 recorded runs near, -0.50 % to +0.50 % off the estimate"


def test_errors_on_one_side_keep_the_estimate_inside() -> None:
    recorded = [line((1000, 1002)) for _ in range(11)]
    assert bounds(recorded, Tiers(1_000_000)).allocated_bytes == (999_800, 1_002_200)


def test_only_the_nearest_runs_count() -> None:
    near = [line((GB, GB)) for _ in range(NEAREST)]
    far = [line((8 * GB, 9 * GB)) for _ in range(30)]
    interval = bounds(far + near)
    assert interval.allocated_bytes == (GB, GB)
    assert interval.basis.startswith(f"{NEAREST} recorded runs")


def test_runs_just_as_near_as_the_last_count_too() -> None:
    recorded = [line((GB, GB)) for _ in range(NEAREST + 5)]
    assert bounds(recorded).basis.startswith(f"{NEAREST + 5} recorded runs")


@pytest.mark.parametrize(
    "other",
    [
        {"attention": "flash"},
        {"loss": "chunked"},
        {"precision": "bf16", "optimizer_implementation": "foreach"},
        {"torch": (2, 6), "recompute": "full", "optimizer_implementation": "fused"},
    ],
)
def test_what_differs_too_much_is_not_near(other: dict[str, Any]) -> None:
    interval = bounds([line((GB, GB), **other)] * 40)
    assert interval.basis.startswith("no recorded run near, so 20 % on both sides")
    assert interval.allocated_bytes == (GB - GB // UNMEASURED, GB + GB // UNMEASURED)


@pytest.mark.parametrize("other", [{"optimizer_implementation": "foreach"}, {"torch": (2, 12)}, {"recompute": "full"}])
def test_what_differs_little_is_near(other: dict[str, Any]) -> None:
    assert bounds([line((GB, GB), **other)] * 12).basis == "12 recorded runs near, all exact"


def test_a_run_of_another_size_by_far_is_not_near() -> None:
    assert bounds([line((GB // 2**16, GB // 2**16))] * 40).basis.startswith("no recorded run near")


def test_another_card_of_the_same_capability_is_near_but_for_its_context() -> None:
    h200 = load_device("h200-141gb")
    recorded = [line((GB, GB), (2 * GB, 2 * GB), (3 * GB, 4 * GB), device=h200)] * 12
    interval = bounds(recorded, Tiers(GB, 2 * GB, 3 * GB), context=(GB // 2, GB))
    assert interval.allocated_bytes == (GB, GB)
    assert interval.reserved_bytes == (2 * GB, 2 * GB)
    assert interval.device_bytes == (2 * GB + GB // 2, 3 * GB)
    assert "allocated and reserved: 12 recorded runs near, all exact" in interval.basis
    assert "device: the bounds of the tier below and those of the CUDA context" in interval.basis


def test_a_card_of_another_capability_is_not_near() -> None:
    t4 = load_device("t4")
    assert bounds([line((GB, GB), device=t4)] * 40).basis.startswith("no recorded run near")


def test_a_local_card_is_the_card_of_the_catalogue() -> None:
    local = replace(H100, name="local", description="NVIDIA H100 80GB HBM3")
    recorded = [line((GB, GB), (GB, GB), (2 * GB, 2 * GB + 10**6))] * 12
    interval = bounds(recorded, Tiers(GB, GB, 2 * GB), device=local)
    assert interval.device_bytes is not None
    assert interval.device_bytes[0] < 2 * GB + 10**6 < interval.device_bytes[1]


# ---------------------------------------------------------------- nothing near


def test_a_card_that_was_never_measured_is_wide_and_says_so() -> None:
    interval = bounds([], Tiers(10 * GB, 12 * GB, 13 * GB), certain=9 * GB, context=(GB // 4, GB))
    assert interval.allocated_bytes == (9 * GB, 12 * GB)  # never below what is certain
    assert interval.reserved_bytes == (12 * GB - 12 * GB // 5, 12 * GB + 12 * GB // 5)
    assert interval.device_bytes == (12 * GB - 12 * GB // 5 + GB // 4, 12 * GB + 12 * GB // 5 + GB)
    assert interval.basis == (
        "allocated and reserved: no recorded run near, so 20 % on both sides, which is no measurement; device: the "
        "bounds of the tier below and those of the CUDA context (on h100-80gb `memplan measure --suite core --out "
        "profiles` makes some)"
    )


def test_a_few_runs_are_too_few_but_what_they_saw_counts() -> None:
    recorded = [line((1000, 1500))] * (FEWEST - 1)
    interval = bounds(recorded, Tiers(1_000_000))
    assert interval.allocated_bytes == (800_000, 1_500_000)
    assert f"only {FEWEST - 1} recorded runs near" in interval.basis


def test_a_tier_has_its_own_number_of_runs() -> None:
    recorded = [line((GB, GB), (2 * GB, 2 * GB))] * 10 + [line((GB, GB))] * 5
    interval = bounds(recorded, Tiers(GB, 2 * GB))
    assert interval.basis == "allocated: 15 recorded runs near, all exact; reserved: 10 recorded runs near, all exact"


# ---------------------------------------------------------------- the CPU


def test_the_cpu_is_a_point_by_its_recorded_runs() -> None:
    interval = interval_for(MODEL, run_of(), CPU, Tiers(GB), TORCH)
    assert interval.allocated_bytes == (GB, GB)
    assert interval.reserved_bytes is None and interval.device_bytes is None
    own = [line for line in read_residuals("cpu") if not library_of(line[ARCHITECTURE])]
    assert interval.basis == f"{len(own)} recorded runs on the CPU, all exact (PyTorch 2.13)"


def test_a_library_type_is_a_point_by_its_own_recorded_runs() -> None:
    """The reference transformer's runs say nothing of it, nor those of another type."""
    model = small_models()["bert"]
    run = TrainingRun(sequence_length=64, attention="sdpa", recompute="full")
    interval = interval_for(model, run, CPU, Tiers(GB), TORCH)
    assert interval.allocated_bytes == (GB, GB)
    own = [line for line in read_residuals("cpu") if line[ARCHITECTURE] == "transformers bert"]
    assert interval.basis == f"{len(own)} recorded runs on the CPU, all exact (PyTorch 2.13)"
    assert interval_for(model, run, CPU, Tiers(GB), (2, 6)).allocated_bytes == (GB - GB // 5, GB + GB // 5)
    others = [line for line in read_residuals("cpu") if line not in own]
    interval = interval_for(model, run, CPU, Tiers(GB), TORCH, recorded=others)
    assert interval.allocated_bytes == (GB - GB // 5, GB + GB // 5)


def test_one_run_on_the_cpu_that_is_not_exact_ends_the_claim() -> None:
    recorded = [*read_residuals("cpu"), line((10**6, 10**6 + 4), device=CPU)]
    interval = bounds(recorded, Tiers(10**6), device=CPU)
    assert interval.allocated_bytes is not None
    assert interval.allocated_bytes[0] < 10**6 + 4 < interval.allocated_bytes[1]
    assert "recorded runs near" in interval.basis


def test_a_precision_that_never_ran_on_the_cpu_is_not_exact() -> None:
    recorded = [line((GB, GB), device=CPU)] * 40
    run = replace(run_of(), precision="bf16")
    interval = interval_for(MODEL, run, CPU, Tiers(GB), TORCH, recorded=recorded)
    assert "all exact (" not in interval.basis


# ---------------------------------------------------------------- held out


def test_the_record_of_the_request_itself_is_held_out() -> None:
    own = [line((1000, 2000))] * 20
    others = [line((1000, 1000), micro_batch_size=3)] * 20
    kept = bounds(own + others, Tiers(1000))
    assert kept.allocated_bytes is not None and kept.allocated_bytes[1] >= 2000
    assert bounds(own + others, Tiers(1000), hold_out=True).allocated_bytes == (1000, 1000)


def test_a_request_is_the_same_under_another_name_and_on_another_card() -> None:
    renamed = replace(MODEL, name="another")
    assert fingerprint(renamed, run_of()) == fingerprint(MODEL, run_of())
    assert fingerprint(MODEL, run_of(micro_batch_size=3)) != fingerprint(MODEL, run_of())


# ---------------------------------------------------------------- laws


def bounds_of(interval: Interval) -> tuple[tuple[int, int] | None, ...]:
    return (interval.allocated_bytes, interval.reserved_bytes, interval.device_bytes)


SIZES = st.integers(1, 2**60)
ERRORS = st.integers(-(10**6), 10**6)


@given(SIZES, st.integers(0, 2**40), st.integers(0, 2**34), st.lists(ERRORS, max_size=40), st.integers(0, 2**61))
def test_the_estimate_is_inside_and_the_tiers_are_in_order(
    allocated: int, more: int, context: int, errors: list[int], certain: int
) -> None:
    tiers = Tiers(allocated, allocated + more, allocated + more + context)
    recorded = [line(*((size, max(size + size * error // 10**7, 0)) for size in tiers)) for error in errors]
    interval = bounds(recorded, tiers, certain=certain, context=(context // 2, context * 2))
    low, high = 0, 0
    for estimated, bound in zip(tiers, bounds_of(interval), strict=True):
        assert bound is not None
        assert bound[0] <= estimated <= bound[1]
        assert low <= bound[0] and high <= bound[1]
        low, high = bound
    assert interval.allocated_bytes is not None
    assert interval.allocated_bytes[0] >= min(certain, allocated)


@given(st.lists(ERRORS, min_size=FEWEST, max_size=NEAREST))
def test_every_run_near_lies_inside(errors: list[int]) -> None:
    recorded = [line((10**9, 10**9 + error)) for error in errors]
    bound = bounds(recorded, Tiers(10**9)).allocated_bytes
    assert bound is not None
    assert all(bound[0] <= 10**9 + error <= bound[1] for error in errors)


def test_the_order_of_the_records_does_not_matter() -> None:
    recorded = [line((GB, GB + size), micro_batch_size=size + 1) for size in range(40)]
    assert bounds(recorded) == bounds(recorded[::-1])


# ---------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("lower", "upper", "says"),
    [
        (90, 100, "fits"),
        (90, 101, "tight"),
        (100, 101, "tight"),
        (101, 101, "does_not_fit"),
        (101, 200, "does_not_fit"),
        (0, 0, "fits"),
    ],
)
def test_the_verdict_needs_both_ends(lower: int, upper: int, says: str) -> None:
    assert verdict(lower, upper, 100) == says


# ---------------------------------------------------------------- the file


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines = [line((2, 2), micro_batch_size=3), line((1, 1), (2, 3), (4, 5)), line((7, 7), device=CPU)]
    file = tmp_path / "residuals.tsv"
    file.write_text(residuals_to_text(lines))
    assert read_residuals("cpu", str(file)) == [lines[2]]
    on_cards = [list(each) for each in read_residuals("cuda", str(file))]
    assert on_cards == sorted(lines[:2])
    assert on_cards[0][CARD] == "h100-80gb" and on_cards[0][CAPABILITY] == "9.0"


def test_the_same_runs_make_the_same_file_in_any_order() -> None:
    lines = [line((size, size)) for size in range(1, 20)]
    assert residuals_to_text(lines) == residuals_to_text(lines[::-1])


def test_no_file_is_no_recorded_run(tmp_path: Path) -> None:
    assert read_residuals("cpu", str(tmp_path / "missing.tsv")) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not hold the residuals"),
        ("backend\tcard\n", "does not hold the residuals"),
        (residuals_to_text([line((1, 1))])[:-1], "or not all of them"),
        ("\t".join(COLUMNS) + "\ncuda\th100-80gb\n", "a line is damaged"),
        (residuals_to_text([line((1, 1))]).replace("\t1\t1\t", "\tone\t1\t"), "a line is damaged"),
        (residuals_to_text([line((1, 1))]).replace("\t1\t1\t", "\t1\t-1\t"), "a line is damaged"),
        (residuals_to_text([line((1, 1), (2, 2))]).replace("\t2\t2\t", "\t2\tmuch\t"), "a line is damaged"),
        ("\xff", "cannot read the residuals"),
    ],
)
def test_a_damaged_file_is_named_with_the_command_that_mends_it(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "residuals.tsv"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(MeasurementError) as caught:
        read_residuals("cuda", str(file))
    assert says in caught.value.message and "residuals.tsv" in caught.value.message
    assert "--write-residuals" in str(caught.value.hint)


def test_reading_hundreds_of_residuals_takes_no_time(tmp_path: Path) -> None:
    """Beside splitting the same text, in the same run."""
    run = [line((GB + size, GB + size), (2 * GB, 2 * GB), (3 * GB, 3 * GB)) for size in range(400)]
    file = tmp_path / "residuals.tsv"
    file.write_text(residuals_to_text([*run, *read_residuals("cpu")]))

    def split() -> None:
        for row in file.read_text().splitlines():
            row.split("\t")

    def best(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, number=1, repeat=9))

    took = best(lambda: bounds(read_residuals("cuda", str(file)), Tiers(GB, 2 * GB, 3 * GB)))
    assert took < 5 * best(split)
