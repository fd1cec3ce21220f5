"""Optimizer states and the temporaries of a step against torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memplan.ops.optim import SGD, Adam, Optimizer  # noqa: E402
from memplan.ops.tensor import Parameter, Storage, empty  # noqa: E402
from memplan.ops.trace import Trace  # noqa: E402

from .harness import TORCH_DTYPES, Curve, curve_of_run, curve_of_trace, sizes_only_backend  # noqa: E402

SHAPES = st.lists(st.lists(st.sampled_from((1, 2, 5, 16)), min_size=1, max_size=2).map(tuple), min_size=1, max_size=5)
Shapes = list[tuple[int, ...]]


def real(kind: str, implementation: str, momentum: float, shapes: Shapes, dtype: str) -> tuple[int, Curve]:
    """Bytes of state, and the second step."""
    torch.set_num_threads(2)
    parameters = [torch.nn.Parameter(torch.randn(shape).to(TORCH_DTYPES[dtype])) for shape in shapes]
    settings: dict[str, Any] = {"foreach": implementation == "foreach", "fused": implementation == "fused"}
    if kind == "SGD":
        settings["momentum"] = momentum
    optimizer = getattr(torch.optim, kind)(parameters, lr=1e-3, **settings)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()

    curve = curve_of_run(lambda: optimizer.step())
    state = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    bytes_of_state = sum(value.untyped_storage().nbytes() for value in state)
    return bytes_of_state, curve


def sizes_only(kind: str, implementation: str, momentum: float, shapes: Shapes, dtype: str) -> tuple[int, Curve]:
    """The same of the twin."""
    trace = Trace(sizes_only_backend(2))
    parameters = [
        Parameter(Storage(trace, trace.allocate(shape, dtype, "parameter")), shape, dtype) for shape in shapes
    ]
    optimizer: Optimizer
    if kind == "SGD":
        optimizer = SGD(trace, parameters, implementation, momentum)
    else:
        optimizer = Adam(trace, parameters, implementation, weight_decay=kind == "AdamW")
    for parameter in parameters:
        parameter.grad = empty(trace, parameter.shape, dtype, "gradient")
    before = len(trace.ledger.events)
    optimizer.allocate_state()
    begin = len(trace.ledger.events)
    optimizer.step()
    trace.recording = False
    return sum(allocation.size for allocation, _ in trace.ledger.events[before:begin]), curve_of_trace(trace, begin)


@pytest.mark.parametrize("implementation", ["for-loop", "foreach", "fused"])
@pytest.mark.parametrize(("kind", "momentum"), [("AdamW", 0.0), ("Adam", 0.0), ("SGD", 0.0), ("SGD", 0.9)])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes=SHAPES, dtype=st.sampled_from(("fp32", "bf16")))
def test_a_step(kind: str, momentum: float, implementation: str, shapes: Shapes, dtype: str) -> None:
    expected_state, expected = real(kind, implementation, momentum, shapes, dtype)
    state, curve = sizes_only(kind, implementation, momentum, shapes, dtype)
    assert state == expected_state
    assert curve.end == expected.end == 0
    assert max(curve.births, default=0) == max(expected.births, default=0)
    assert curve.births == expected.births
