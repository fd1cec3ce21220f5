"""Differences and plans as they are shown."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from memplan import schemas
from memplan.check.diff import Change, Difference
from memplan.report.check.diff import FORMATS, MARKER, render

GIB, MIB = 2**30, 2**20

ENDINGS = {"text": "txt", "json": "json", "markdown": "md"}


@pytest.fixture
def differences() -> list[Difference]:
    """One of each kind."""
    return [
        Difference(
            "a|b <c>",
            "changed",
            Change("a|b <c>", 10 * GIB, 12 * GIB),
            (Change("activations", 3 * GIB, 6 * GIB), Change("temporaries", GIB, 0)),
            (Change("decoder.layers.*.attention (aten::mm)", 48 * MIB, 96 * MIB), Change("loss (aten::sum)", 0, MIB)),
            (("run.sequence_length", 1024, 2048), ("run.padding", None, True), ("device", "t4", "h100-80gb")),
            "fail",
        ),
        Difference("smaller", "changed", Change("smaller", 10 * GIB, 9 * GIB), (Change("inputs", 5, 4),)),
        Difference("warned", "changed", Change("warned", 100 * GIB, 101 * GIB), level="warn"),
        Difference("same", "same", Change("same", GIB, GIB)),
        Difference("new", "added", Change("new", 0, GIB)),
        Difference("gone", "removed", Change("gone", GIB, 0)),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_goldens(form: str, differences: list[Difference], golden: Any) -> None:
    golden(f"diff.{ENDINGS[form]}", render(form, differences))


def test_json_keeps_to_its_schema(differences: list[Difference]) -> None:
    for found in (differences, []):
        document = json.loads(render("json", found))
        jsonschema.validate(document, json.loads(schemas.read("diff")), jsonschema.Draft202012Validator)


def test_a_comment_is_found_again(differences: list[Difference]) -> None:
    assert render("markdown", differences).startswith(f"{MARKER}\n## Memory: 3 changed, 1 added, 1 removed, 1 the same")


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_to_compare(form: str) -> None:
    assert render(form, [])
