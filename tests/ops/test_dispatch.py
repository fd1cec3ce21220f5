"""The rules of rows that are sent where an index says, against the PyTorch operations they stand for."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memplan.ops import dispatch, routing, views  # noqa: E402
from memplan.ops.tensor import empty  # noqa: E402

from .harness import Input, assert_same_curve  # noqa: E402

EXAMPLES = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
FLOATS = st.sampled_from(("fp32", "bf16"))
SIZES = st.sampled_from((1, 2, 3, 8, 15, 16, 17, 33, 200))
THREADS = st.integers(1, 3)


@EXAMPLES
@given(rows=SIZES, columns=SIZES, dtype=FLOATS, turned=st.booleans(), data=st.data())
def test_topk(rows: int, columns: int, dtype: str, turned: bool, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, rows if turned else columns))
    inputs = [Input((rows, columns), dtype)]
    if turned:
        assert_same_curve(
            lambda x: x.t().topk(number, -1)[0], lambda x: routing.topk(views.transpose(x, 0, 1), number)[0], inputs
        )
    else:
        assert_same_curve(lambda x: x.topk(number, -1)[0], lambda x: routing.topk(x, number)[0], inputs)


@EXAMPLES
@given(rows=SIZES, columns=SIZES, dtype=FLOATS, data=st.data())
def test_scatter(rows: int, columns: int, dtype: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, columns))
    inputs = [
        Input((rows, columns), dtype, trained=False),
        Input((rows, number), "int64", high=columns),
        Input((rows, number), dtype),
    ]
    assert_same_curve(lambda x, places, values: x.scatter(-1, places, values), dispatch.scatter, inputs)


@EXAMPLES
@given(rows=SIZES, width=SIZES, number=SIZES, dtype=FLOATS, threads=THREADS)
def test_index_select(rows: int, width: int, number: int, dtype: str, threads: int) -> None:
    inputs = [Input((rows, width), dtype), Input((number,), "int64", high=rows)]
    assert_same_curve(lambda x, at: x.index_select(0, at), dispatch.index_select, inputs, threads)


@EXAMPLES
@given(rows=SIZES, width=SIZES, number=SIZES, dtype=FLOATS, threads=THREADS)
def test_index_add(rows: int, width: int, number: int, dtype: str, threads: int) -> None:
    inputs = [Input((number,), "int64", high=rows), Input((number, width), dtype)]
    assert_same_curve(
        lambda at, source: torch.zeros(rows, width, dtype=source.dtype).index_add_(0, at, source),
        lambda at, source: dispatch.index_add(
            empty(source.trace, (rows, width), source.dtype, "aten::zeros"), at, source
        ),
        inputs,
        threads,
    )
