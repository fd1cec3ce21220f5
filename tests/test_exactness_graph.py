"""What a run changes of the graph, to the byte: recomputed attention and layers, losses in chunks, frozen weights."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings

from .graph_cases import graph_cases
from .strategies import FRESH, Case

pytest.importorskip("torch")
from .test_exactness import residuals

EXAMPLES = int(os.environ.get("MEMPLAN_EXAMPLES", "60"))


@settings(FRESH, max_examples=EXAMPLES)
@given(case=graph_cases())
def test_the_estimate_is_the_run(case: Case) -> None:
    assert residuals(case) == {}
