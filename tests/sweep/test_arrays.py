"""Sizes as arrays give what estimates give one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numpy")

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError, MemplanError, NotModelledError
from memplan.estimate import estimate
from memplan.sweep.arrays import price
from tests.strategies import Case, cases

CPU = load_device("cpu")
BATCHES = range(1, 501)
LENGTHS = range(8, 4008, 8)


def one_by_one(model: Transformer, run: TrainingRun, **sizes: int) -> int:
    """The peak by `estimate`; -1 where it refuses."""
    try:
        return estimate(model, replace(run, **sizes), CPU).tiers.allocated_bytes
    except ConfigurationError:
        return -1


def test_a_thousand_points_of_a_million() -> None:
    model = load_model("gpt2", {"attention_dropout": 0.0, "max_positions": 3000})
    assert isinstance(model, Transformer)
    draw = random.Random(0)
    for attention in ("naive", "flash"):
        for recompute in ("none", "full"):
            run = TrainingRun(sequence_length=1, attention=attention, recompute=recompute)  # type: ignore[arg-type]
            found = price(model, run, CPU, {"micro_batch_size": BATCHES, "sequence_length": LENGTHS})
            assert found.bytes.size == 250_000
            for number in range(250):
                most = 8 if number % 5 == 0 else 500  # thresholds lie among small sizes
                row, column = draw.randrange(most), draw.randrange(most)
                sizes = {"micro_batch_size": BATCHES[row], "sequence_length": LENGTHS[column]}
                assert found.bytes[row, column] == one_by_one(model, run, **sizes), (attention, recompute, sizes)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(), data=st.data())
def test_random_models(case: Case, data: st.DataObject) -> None:
    model, run = case.model, case.run
    lengths = ["source_length", "target_length"] if run.source_length else ["sequence_length"]
    sizes = {
        name: sorted(data.draw(st.sets(st.integers(1, 70), min_size=1, max_size=6), label=name))
        for name in ["micro_batch_size", *lengths]
    }
    try:
        found = price(model, run, CPU, sizes)
    except NotModelledError as error:
        assert "sizes as arrays" in error.message
        return
    points = [data.draw(st.tuples(*(st.integers(0, len(values) - 1) for values in sizes.values()))) for _ in range(6)]
    for point in points:
        values = {name: each[index] for (name, each), index in zip(sizes.items(), point, strict=True)}
        assert found.bytes[point] == one_by_one(model, run, **values), values


def test_refusals() -> None:
    model = load_model("gpt2", {"attention_dropout": 0.0})
    run = TrainingRun(sequence_length=1)
    for sizes, text in (({"hidden_size": [1]}, "hidden_size"), ({"sequence_length": []}, "sequence_length")):
        with pytest.raises(ConfigurationError, match=text):
            price(model, run, CPU, sizes)
    with pytest.raises(MemplanError, match="h100"):
        price(model, run, load_device("h100-80gb"), {"sequence_length": [1]})
