"""Optimizer states and the temporaries of a step against torch.optim and bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memplan.ops.adafactor import Adafactor  # noqa: E402
from memplan.ops.backend import Backend  # noqa: E402
from memplan.ops.eight_bit import BlockwiseAdamW  # noqa: E402
from memplan.ops.muon import Muon  # noqa: E402
from memplan.ops.norms import clip_grad_norm  # noqa: E402
from memplan.ops.optim import SGD, Adam, Optimizer  # noqa: E402
from memplan.ops.tensor import Parameter, Storage, empty  # noqa: E402
from memplan.ops.trace import Trace  # noqa: E402
from memplan.reference.lion import Lion as RealLion  # noqa: E402
from memplan.transformer.lion import Lion  # noqa: E402

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


SIDES = st.sampled_from((1, 2, 5, 16, 60, 130))
ANY_RANK = st.lists(st.lists(SIDES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=5)
MATRICES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4)
DTYPES = st.sampled_from(("fp32", "bf16", "fp16"))
OTHERS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def assert_same_step(
    make: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
    twin: Callable[[Trace, list[Parameter]], Optimizer],
    shapes: Shapes,
    dtype: str,
) -> None:
    """The same bytes of states, and the same bytes alive at each birth of the second step."""
    torch.set_num_threads(2)
    torch.backends.mkldnn.set_flags(False)
    weights = [torch.nn.Parameter(torch.randn(shape).to(TORCH_DTYPES[dtype])) for shape in shapes]
    optimizer = make(weights)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    expected = curve_of_run(lambda: optimizer.step())
    kept = {
        value.data_ptr(): value.untyped_storage().nbytes()
        for values in optimizer.state.values()
        for value in values.values()
        if torch.is_tensor(value) and value.numel()
    }
    kept |= {value.data_ptr(): value.nbytes for value in getattr(optimizer, "name2qmap", {}).values()}

    trace = Trace(sizes_only_backend(2))
    parameters = [
        Parameter(Storage(trace, trace.allocate(shape, dtype, "parameter")), shape, dtype) for shape in shapes
    ]
    traced = twin(trace, parameters)
    for parameter in parameters:
        parameter.grad = empty(trace, parameter.shape, dtype, "gradient")
    before = len(trace.ledger.events)
    traced.allocate_state()
    begin = len(trace.ledger.events)
    traced.step()
    trace.recording = False
    states = [allocation for allocation, _ in trace.ledger.events[before:begin]]
    assert sum(allocation.size for allocation in states) == sum(kept.values())
    assert all(allocation.component == "optimizer_state" for allocation in states)
    assert curve_of_trace(trace, begin) == expected


@pytest.mark.parametrize("implementation", ["for-loop", "foreach"])
@OTHERS
@given(shapes=ANY_RANK, dtype=DTYPES)
def test_adafactor(implementation: str, shapes: Shapes, dtype: str) -> None:
    foreach = implementation == "foreach"
    assert_same_step(
        lambda weights: torch.optim.Adafactor(weights, foreach=foreach),
        lambda trace, parameters: Adafactor(trace, parameters, implementation),
        shapes,
        dtype,
    )


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch 2.9 brought Muon")
@OTHERS
@given(shapes=MATRICES, dtype=DTYPES)
def test_muon(shapes: Shapes, dtype: str) -> None:
    assert_same_step(torch.optim.Muon, Muon, shapes, dtype)


@OTHERS
@given(shapes=ANY_RANK, dtype=DTYPES)
def test_lion(shapes: Shapes, dtype: str) -> None:
    assert_same_step(RealLion, lambda trace, parameters: Lion(trace, parameters, "for-loop"), shapes, dtype)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@OTHERS
@given(shapes=ANY_RANK, dtype=DTYPES)
def test_states_of_8_bits(shapes: Shapes, dtype: str) -> None:
    from bitsandbytes.optim import AdamW8bit

    assert_same_step(AdamW8bit, lambda trace, parameters: BlockwiseAdamW(trace, parameters, True, False), shapes, dtype)


@OTHERS
@given(shapes=ANY_RANK, dtype=DTYPES)
def test_clipping(shapes: Shapes, dtype: str) -> None:
    weights = [torch.nn.Parameter(torch.randn(shape).to(TORCH_DTYPES[dtype])) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)

    def clip() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)

    trace = Trace(sizes_only_backend(2))
    parameters = [
        Parameter(Storage(trace, trace.allocate(shape, dtype, "parameter")), shape, dtype) for shape in shapes
    ]
    for parameter in parameters:
        parameter.grad = empty(trace, parameter.shape, dtype, "gradient")
    begin = len(trace.ledger.events)
    clip_grad_norm(trace, parameters)
    trace.recording = False
    assert curve_of_trace(trace, begin) == curve_of_run(clip)


def paged(shape: tuple[int, ...], quantised: bool) -> int:
    """Bytes of a parameter's states in the allocator of a card."""
    trace = Trace(Backend("cuda"))
    parameter = Parameter(Storage(trace, trace.allocate(shape, "bf16", "parameter")), shape, "bf16")
    before = len(trace.ledger.events)
    optimizer = BlockwiseAdamW(trace, [parameter], quantised, True)
    optimizer.allocate_state()
    trace.recording = False
    return sum(allocation.size for allocation, _ in trace.ledger.events[before:])


def test_large_states_are_paged() -> None:
    """bitsandbytes/optim/optimizer.py, get_state_buffer: from 100,000 elements on."""
    assert paged((99_999,), False) == 2 * 4 * 99_999
    assert paged((100_000,), False) == 0
    maps, scales = 2 * 1024, 2 * 4 * 391
    assert paged((99_999,), True) == 2 * 99_999 + maps + scales
    assert paged((100_000,), True) == maps + scales
    assert paged((4095,), True) == 2 * 4 * 4095
