"""Checks judged by hand: reporters are tested on what they are given, not on the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.check.budgets import parse_amount
from memplan.check.judge import Finding, Judged
from memplan.check.remedy import Remedy
from memplan.check.settings import Check
from memplan.estimate import Estimate

GIB = 2**30


def check(name: str, line: int, **values: Any) -> Check:
    return Check(**{"name": name, "line": line, "model": "gpt2", "device": "t4-16gb", **values})


def passed(estimate: Estimate) -> Judged:
    upper, capacity = 3 * GIB, 15 * GIB
    return Judged(check("fine-tune", 7), "passed", estimate, upper, capacity, capacity, grown=-(2**20))


@pytest.fixture
def passing(on_cpu: Estimate, on_card: Estimate) -> list[Judged]:
    """Nothing is wrong."""
    budget = parse_amount("6 GiB")
    on_the_cpu = Judged(
        check("tests", 12, device="cpu", budget=budget), "passed", on_cpu, on_cpu.peak.peak_allocated_bytes, 0, 6 * GIB
    )
    return [passed(on_card), on_the_cpu, Judged(check("later", 16, level="off"), "off")]


@pytest.fixture
def failing(on_card: Estimate) -> list[Judged]:
    """One of each kind; the second has a name with everything in it that some format must escape."""
    capacity = 2_900 * 2**20
    upper = 3 * GIB + 450 * 2**20
    big = replace(on_card, fit=None)
    short = Judged(
        check("train-8b", 3),
        "failed",
        big,
        upper,
        capacity,
        capacity,
        findings=(Finding("does-not-fit", "error", upper, capacity, "does not fit t4-16gb"),),
        remedies=(
            Remedy({"recompute": "full"}, capacity - 10 * 2**20),
            Remedy({"attention": "flash", "micro_batch_size": 3}, capacity - 2**20),
        ),
    )
    limit = 3 * GIB
    odd = Judged(
        check('50 %, a|b: <c> `d` *e* & "f" \U0001f600', 9, budget=parse_amount("3 GiB")),
        "failed",
        big,
        upper,
        16 * GIB,
        limit,
        grown=2 * GIB,
        findings=(
            Finding("over-budget", "error", upper, limit, "exceeds the budget of 3 GiB"),
            Finding("grew", "warn", upper, upper - 2 * GIB, "grew by more than 5 %"),
        ),
    )
    narrow = Judged(
        check("narrow", 15, headroom=parse_amount("13 GiB")),
        "warned",
        big,
        upper,
        16 * GIB,
        16 * GIB,
        findings=(Finding("low-headroom", "warn", upper, 3 * GIB, "leaves less than the headroom of 13 GiB"),),
    )
    unknown = Judged(
        check("unknown", 20, device="t5"),
        "undecided",
        error="device: 't5' is not known; did you mean \"t4\"?",
        hint="`memplan devices` lists them",
    )
    return [short, odd, narrow, unknown, Judged(check("later", 24, level="off"), "off"), passed(on_card)]
