"""The JSON report: its schema, its sums, its stability."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from memplan import schemas
from memplan.estimate import COMPONENTS, Estimate, LedgerLine
from memplan.report.machine import estimate_to_json

SCHEMA = json.loads(schemas.read("estimate"))


def test_json_on_the_cpu(on_cpu: Estimate, golden: Any) -> None:
    golden("estimate_cpu.json", estimate_to_json(on_cpu))


def test_json_on_a_card_with_the_ledger(on_card: Estimate, ledger: list[LedgerLine], golden: Any) -> None:
    text = estimate_to_json(on_card, ledger=ledger)
    golden("estimate_card_ledger.json", text)
    assert len(json.loads(text)["ledger"]) == len(ledger)


def test_documents_keep_to_version_1(on_cpu: Estimate, on_card: Estimate, ledger: list[LedgerLine]) -> None:
    for text in (estimate_to_json(on_cpu), estimate_to_json(on_card), estimate_to_json(on_card, ledger=ledger)):
        jsonschema.validate(json.loads(text), SCHEMA)


def test_components_add_up_exactly(on_cpu: Estimate) -> None:
    document = json.loads(estimate_to_json(on_cpu))
    assert list(document["at_peak"]) == list(COMPONENTS)
    assert sum(document["at_peak"].values()) == document["peak"]["allocated_bytes"]
    for phase in document["phases"]:
        assert sum(phase["at_peak"].values()) == phase["peak_allocated_bytes"]
        assert sum(phase["at_end"].values()) == phase["end_allocated_bytes"]


def test_the_keys_of_the_design_come_first_and_in_its_order(on_cpu: Estimate) -> None:
    document = json.loads(estimate_to_json(on_cpu))
    design = ["schema_version", "memplan_version", "request", "peak", "interval", "at_peak", "totals", "phases"]
    assert [key for key in document if key in [*design, "fit", "assumptions"]] == [*design, "fit", "assumptions"]
    assert list(document["peak"])[:4] == ["phase", "allocated_bytes", "reserved_bytes", "device_bytes"]


def test_top_says_how_many_tensors(on_cpu: Estimate) -> None:
    assert len(json.loads(estimate_to_json(on_cpu, top=1))["largest"]) == 1


def test_same_estimate_same_bytes(on_card: Estimate) -> None:
    assert estimate_to_json(on_card) == estimate_to_json(on_card)


def test_text_is_ascii_and_ends_in_one_line_feed(on_cpu: Estimate) -> None:
    text = estimate_to_json(on_cpu)
    assert text.isascii()
    assert text.endswith("}\n") and not text.endswith("\n\n")
