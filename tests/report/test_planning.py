"""Plans as text and as JSON, of options made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from memplan import schemas
from memplan.estimate import Estimate
from memplan.plan.choices import OBJECTIVES, Objective, Option, Plan
from memplan.plan.knobs import Choice, Cost
from memplan.report.planning import plan_to_json, render_plan

GIB = 2**30


def options(estimate: Estimate, objective: Objective) -> list[Option]:
    run = estimate.run
    cheap = Choice({}, run, Cost(0, 0, ()))  # type: ignore[arg-type]
    dear = Choice(
        {"recompute": "full", "precision": "bf16"},
        replace(run, recompute="full", precision="bf16"),  # type: ignore[arg-type,call-arg]
        Cost(1233, 333, ("+33 % arithmetic, done again in the backward pass", "bf16 in place of fp32")),
    )
    if objective == "fit":
        split = Option(cheap, 3 * GIB, True, size=2, accumulation=4)
        return [split, Option(dear, GIB, True), Option(cheap, 5 * GIB, False)]
    if objective == "card":
        return [Option(cheap, 3 * GIB, True, size=16 * GIB, device="t4")]
    return [
        Option(dear, 4 * GIB - 1, True, size=12_345, gaps=(12_343, 12_344), certain=False),
        Option(cheap, 4 * GIB, True, size=512),
        Option(cheap, 0, False),
    ]


def plan_of(estimate: Estimate, objective: Objective) -> Plan:
    found = tuple(options(estimate, objective))
    return Plan(estimate.model, estimate.run, estimate.device, objective, 4 * GIB, 5 * GIB, found)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_goldens(objective: Objective, on_card: Estimate, golden: Any) -> None:
    golden(f"plan_{objective}.txt", render_plan(plan_of(on_card, objective)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_json_keeps_to_its_schema(objective: Objective, on_card: Estimate) -> None:
    document = json.loads(plan_to_json(plan_of(on_card, objective)))
    jsonschema.validate(document, json.loads(schemas.read("plan")), jsonschema.Draft202012Validator)


def test_json_says_how_a_batch_is_split(on_card: Estimate) -> None:
    first = json.loads(plan_to_json(plan_of(on_card, "fit")))["options"][0]
    assert first["changes"] == {"micro_batch_size": 2, "gradient_accumulation_steps": 4}
    assert first["micro_batch_size"] == 2


def test_nothing_fits(on_card: Estimate) -> None:
    plan = replace(plan_of(on_card, "fit"), options=(Option(options(on_card, "fit")[0].choice, 5 * GIB, False),))
    assert "verdict:  nothing that was tried fits" in render_plan(plan)
