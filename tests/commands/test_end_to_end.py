"""`memplan estimate` with the real engine: what it prints adds up, and is the same every time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import memplan
from memplan.cli import run

SCHEMA = json.loads((Path(memplan.__file__).parent / "schemas" / "estimate.json").read_text(encoding="utf-8"))

REQUESTS = [
    "gpt2 --sequence-length 1024 --attention naive",
    "llama-3-8b --sequence-length 8192 --attention naive",
    "llama-3-8b --sequence-length 8192 --attention flash --precision bf16-mixed --recompute full",
    "bert-large --sequence-length 128 --attention naive --padding --optimizer sgd",
    "t5-base --source-length 64 --target-length 32 --attention naive --gradient-accumulation-steps 2",
    "llama-3-70b --sequence-length 4096 --device h100-80gb",
]


def document_of(request: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["estimate", *request.split(), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("request_", REQUESTS)
def test_json_keeps_to_the_schema_and_adds_up(request_: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = document_of(request_, capsys)
    jsonschema.validate(document, SCHEMA)
    assert sum(document["at_peak"].values()) == document["peak"]["allocated_bytes"]
    for phase in document["phases"]:
        assert sum(phase["at_peak"].values()) == phase["peak_allocated_bytes"]
        assert sum(phase["at_end"].values()) == phase["end_allocated_bytes"]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_tier_that_is_null_has_its_reason_among_the_assumptions(
    request_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = document_of(request_, capsys)
    assumptions = " ".join(document["assumptions"])
    for tier in ("reserved_bytes", "device_bytes"):
        if document["peak"][tier] is None:
            assert tier in assumptions


def test_same_request_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["estimate", *REQUESTS[0].split(), "--json", "--explain"]
    texts = []
    for _ in range(2):
        assert run(command) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["ledger"]


@pytest.mark.parametrize("request_", REQUESTS)
def test_text_fits_eighty_columns(request_: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", *request_.split(), "--explain"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^peak: +[\d.]+ .iB \([\d,]+ bytes\) in \w+", text, re.MULTILINE)


def test_sixteen_bytes_a_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", *REQUESTS[0].split()]) == 0
    text = capsys.readouterr().out
    shares = dict(re.findall(r"^(parameters|gradients|optimizer state|sum) .* ([\d.]+)$", text, re.MULTILINE))
    assert shares == {"parameters": "4.00", "gradients": "4.00", "optimizer state": "8.00", "sum": "16.00"}


def test_sizes_of_an_impossible_run_are_still_told(capsys: pytest.CaptureFixture[str]) -> None:
    most = str(2**63 - 1)
    assert run(["estimate", "llama-3-8b", "--sequence-length", most, "--micro-batch-size", most]) == 0
    assert "TiB" in capsys.readouterr().out
    document = document_of(f"llama-3-8b --sequence-length {most} --micro-batch-size {most}", capsys)
    assert document["peak"]["allocated_bytes"] > 2**126
