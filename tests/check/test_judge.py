"""Verdicts on the upper end of an estimate, and the remedies that come with them."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.check.baseline import Baseline
from memplan.check.budgets import parse_amount
from memplan.check.judge import Judged, judge, judge_one, upper_end
from memplan.check.remedy import BEYOND, last_within
from memplan.check.settings import Check, read
from memplan.config.devices import load_device
from memplan.config.load import build_run, load_model
from memplan.estimate import estimate

SMALL: dict[str, Any] = {
    "name": "small", "line": 3, "model": "gpt2", "device": "t4",
    "changes": {"num_layers": 2, "vocab_size": 500}, "run": {"sequence_length": 64, "attention": "naive"},
}  # fmt: skip


def check_of(**values: Any) -> Check:
    amounts = {
        key: parse_amount(values[key], zero=True)
        for key in ("budget", "headroom", "growth", "growth_warning")
        if key in values
    }
    return Check(**{**SMALL, **values, **amounts})


def need(**values: Any) -> int:
    """The upper end of the small job's estimate."""
    model = load_model("gpt2", SMALL["changes"])
    device = load_device(values.pop("device", "t4"))
    return upper_end(estimate(model, build_run(model, {**SMALL["run"], **values}), device))


def rules(judged: Judged) -> list[tuple[str, str]]:
    return [(finding.rule, finding.level) for finding in judged.findings]


def test_it_fits() -> None:
    judged = judge_one(check_of())
    assert (judged.outcome, judged.findings, judged.remedies) == ("passed", (), ())
    assert judged.upper == need()
    assert judged.capacity == judged.limit == load_device("t4").capacity_bytes
    assert (judged.reserve, judged.margin) == (0, judged.limit - judged.upper)


@pytest.mark.parametrize(("more", "outcome"), [(0, "passed"), (-1, "failed")])
def test_the_budget_is_held_against_the_upper_end_to_the_byte(more: int, outcome: str) -> None:
    judged = judge_one(check_of(budget=f"{need() + more} B"))
    assert judged.outcome == outcome
    assert judged.margin == more
    assert judged.estimate is not None and judged.estimate.interval.device_bytes is not None
    assert judged.estimate.tiers.device_bytes is not None
    assert judged.upper == judged.estimate.interval.device_bytes[1] > judged.estimate.tiers.device_bytes
    assert judged.reserve == judged.capacity - judged.limit > 0


def test_a_share_is_one_of_the_card() -> None:
    judged = judge_one(check_of(budget="50 %"))
    assert judged.limit == judged.capacity // 2


def test_no_budget_is_beyond_the_card() -> None:
    judged = judge_one(check_of(budget="10 TiB"))
    assert judged.limit == judged.capacity
    assert judged.reserve == 0


def test_what_does_not_fit_is_not_over_its_budget_as_well() -> None:
    judged = judge_one(
        check_of(run={"sequence_length": 1024, "micro_batch_size": 512, "attention": "naive"}, budget="1 GiB")
    )
    assert rules(judged) == [("does-not-fit", "error")]
    assert judged.outcome == "failed"


def test_a_warning_is_no_failure() -> None:
    judged = judge_one(check_of(level="warn", budget="1 MiB"))
    assert rules(judged) == [("over-budget", "warn")]
    assert judged.outcome == "warned"


@pytest.mark.parametrize(("more", "expected"), [(0, []), (-1, [("low-headroom", "warn")])])
def test_headroom_is_left_of_the_budget(more: int, expected: list[tuple[str, str]]) -> None:
    judged = judge_one(check_of(budget=f"{need() + 1000 + more} B", headroom="1000 B"))
    assert rules(judged) == expected


def test_switched_off() -> None:
    assert judge_one(check_of(level="off", model="nowhere")).outcome == "off"


def test_on_the_cpu_tensors_are_what_counts() -> None:
    judged = judge_one(check_of(device="cpu", budget="1 GiB"))
    assert judged.upper == need(device="cpu")
    assert (judged.outcome, judged.capacity, judged.reserve) == ("passed", 0, 0)


UNDECIDED = {
    "unknown model": ({"model": "gtp2"}, "'gtp2' is neither a preset nor a file"),
    "unknown device": ({"device": "h1000"}, "device: 'h1000' is not known"),
    "a card that differs": ({"device": "local:0"}, "differs from machine to machine"),
    "unknown setting of the model": ({"changes": {"num_layer": 3}}, "num_layer"),
    "a run that cannot be": ({"run": {"sequence_length": 2000}}, "1024"),
    "no length": ({"run": {}}, "sequence_length: is missing"),
    "a setting of another mode": ({"run": {"prompt_length": 3, "sequence_length": 8}}, "prompt_length"),
    "a file that is missing": ({"model": "nowhere/config.json"}, "no such file"),
    "whose code": ({"implementation": "transformers"}, "reference transformer's alone"),
    "no limit on the CPU": ({"device": "cpu"}, "budget: is missing: cpu has no capacity"),
    "a share of no capacity": ({"device": "cpu", "budget": "90 %"}, "90 % of what?"),
    "headroom of no capacity": ({"device": "cpu", "headroom": "1 GiB", "growth": "5 %"}, "headroom: 1 GiB of what?"),
    "growth without a baseline": ({"growth": "5 %"}, "there is no baseline to compare with"),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_cannot_be_decided_says_why(name: str) -> None:
    values, why = UNDECIDED[name]
    judged = judge_one(
        check_of(**values), None if "growth" in values and "headroom" not in values else Baseline("b", {})
    )
    assert judged.outcome == "undecided"
    assert why in judged.error
    assert "\n" not in judged.error
    assert judged.estimate is None


def test_one_that_cannot_be_decided_leaves_the_others_judged(written: Any) -> None:
    path = written(
        "[defaults]\ndevice = 't4'\nsequence_length = 8\nattention = 'naive'\n"
        "[checks.a]\nmodel = 'nowhere'\n[checks.b]\nmodel = 'gpt2'\n[checks.c]\nmodel = 'gpt2'\ndevice = 'h1'\n"
    )
    assert [each.outcome for each in judge(read(path))] == ["undecided", "passed", "undecided"]


def test_a_mistake_of_memplans_own_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("memplan.check.judge.estimate", broken)
    judged = judge_one(check_of())
    assert (judged.outcome, judged.error) == ("undecided", "memplan itself failed: ZeroDivisionError: by zero")


def before(upper: int) -> Baseline:
    return Baseline("base.json", {"small": {"upper_bytes": upper}})


@pytest.mark.parametrize(
    ("change", "values", "expected"),
    [
        (0, {"growth": "0 %"}, []),
        (1, {"growth": "0 %"}, [("grew", "error")]),
        (1, {"growth": "0 %", "level": "warn"}, [("grew", "warn")]),
        (1, {"growth": "1 B", "growth_warning": "0 B"}, [("grew", "warn")]),
        (2, {"growth": "1 B", "growth_warning": "0 B"}, [("grew", "error")]),
        (1, {"growth_warning": "0 B"}, [("grew", "warn")]),
        (-5, {"growth": "0 %", "growth_warning": "0 %"}, []),
        (5, {}, []),
    ],
)
def test_growth_over_the_baseline(change: int, values: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    judged = judge_one(check_of(**values), before(need() - change))
    assert rules(judged) == expected
    assert judged.grown == change


def test_a_check_that_is_new_has_nothing_to_grow_from() -> None:
    judged = judge_one(check_of(growth="0 %"), Baseline("base.json", {}))
    assert (judged.outcome, judged.grown) == ("passed", None)


def test_a_growth_may_be_all_that_a_check_on_the_cpu_asks() -> None:
    judged = judge_one(check_of(device="cpu", growth="0 %"), before(need(device="cpu")))
    assert (judged.outcome, judged.limit, judged.grown) == ("passed", 0, 0)


NAIVE = {"attention": "naive"}
JOBS: dict[str, dict[str, Any]] = {
    "long": {"run": {**NAIVE, "sequence_length": 1000, "micro_batch_size": 3}},
    "wide": {"run": {**NAIVE, "sequence_length": 100, "micro_batch_size": 100}},
    "deep": {
        "run": {**NAIVE, "sequence_length": 256, "micro_batch_size": 4},
        "changes": {"num_layers": 40, "attention_dropout": 0},
    },
    "two lengths": {
        "model": "t5-small",
        "changes": {},
        "run": {**NAIVE, "source_length": 500, "target_length": 300, "micro_batch_size": 4},
    },
}


@pytest.mark.parametrize("device", ["t4", "h100-80gb", "cpu"])
@pytest.mark.parametrize("share", [0.95, 0.7, 0.4, 0.1])
@pytest.mark.parametrize("name", JOBS)
def test_every_remedy_passes_when_it_is_tried(name: str, share: float, device: str) -> None:
    job = {**JOBS[name], "device": device}
    needs = judge_one(check_of(**job, budget="1 TiB")).upper
    judged = judge_one(check_of(**job, budget=f"{int(needs * share)} B"))
    assert judged.outcome == "failed"
    for remedy in judged.remedies:
        assert remedy.changes
        tried = judge_one(
            check_of(**{**job, "run": {**job["run"], **remedy.changes}}, budget=f"{int(needs * share)} B")
        )
        assert tried.outcome == "passed", remedy
        assert tried.upper == remedy.upper <= judged.limit
    if share > 0.9:
        assert judged.remedies


def test_what_nothing_helps_has_no_remedy() -> None:
    judged = judge_one(check_of(budget="1 MiB"))
    assert judged.outcome == "failed"
    assert judged.remedies == ()


def test_remedies_are_for_what_does_not_fit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("memplan.check.remedy.remedies_for", broken)
    assert judge_one(check_of(growth="0 %"), before(need() - 1)).outcome == "failed"
    assert judge_one(check_of(headroom="100 %")).outcome == "warned"
    assert judge_one(check_of()).outcome == "passed"


@pytest.mark.parametrize("most", [1, 2, 3, 10, 63, 127])
@pytest.mark.parametrize("slope", [1, 7, 1000])
def test_the_last_number_within_a_limit(most: int, slope: int) -> None:
    for limit in range(0, slope * (most + 2), max(slope * most // 20, 1)):
        asked: list[int] = []

        def need(number: int, asked: list[int] = asked) -> int:
            asked.append(number)
            return slope * number

        number, needs = last_within(need, limit, most)
        assert number == min(limit // slope, most)
        assert needs == slope * number
        assert len(asked) == len(set(asked)) <= 8 + BEYOND


def test_a_number_beyond_a_dip_is_found() -> None:
    needs = {1: 10, 2: 20, 3: 50, 4: 60, 5: 35, 6: 55, 7: 60, 8: 70, 9: 80, 10: 90}
    assert last_within(needs.get, 40, 10) == (5, 35)


def test_numbers_that_cannot_be_had() -> None:
    assert last_within(lambda number: None, 40, 10) == (0, 0)
    assert last_within(lambda number: 10 * number if number < 3 else None, 1000, 10) == (2, 20)
    assert last_within(lambda number: 10, 1000, 0) == (0, 0)
