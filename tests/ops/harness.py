"""One operation for real and sizes-only, side by side: the bytes alive after each of its allocations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from memplan.measure.probes import mark, record_memory
from memplan.ops import elementwise
from memplan.ops.autograd import backward
from memplan.ops.backend import Backend, release
from memplan.ops.tensor import Parameter, Storage, Tensor, empty
from memplan.ops.trace import Trace

TORCH_DTYPES = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int64": torch.int64, "bool": torch.bool,
}  # fmt: skip
BEGIN = "memplan.begin"


class Input(NamedTuple):
    """One tensor an operation is given. A trained one gets a gradient; integers are below `high`."""

    shape: tuple[int, ...]
    dtype: str = "fp32"
    trained: bool = True
    high: int = 2


class Curve(NamedTuple):
    """Bytes alive beyond the inputs: after each allocation, and at the end, with outputs and gradients held."""

    births: list[int]
    end: int


def sizes_only_backend(threads: int) -> Backend:
    """The rules of the PyTorch at hand."""
    return Backend("cpu", threads, release(torch.__version__))


def real_curve(
    function: Callable[..., torch.Tensor], inputs: Sequence[Input], threads: int, autocast: bool = False
) -> Curve:
    """Forward and backward of `function` in PyTorch, as measure_training sets it up."""
    torch.set_num_threads(threads)
    torch.backends.mkldnn.set_flags(False)
    tensors = [_real(item) for item in inputs]
    held: list[torch.Tensor] = []

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = function(*tensors)
        if output.requires_grad:
            gradient = torch.ones(output.shape, dtype=output.dtype)
            torch.autograd.backward(output, gradient)
        held.append(output)

    return curve_of_run(run)


def sizes_only_curve(
    function: Callable[..., Tensor], inputs: Sequence[Input], threads: int, autocast: bool = False
) -> Curve:
    """The same of its twin."""
    trace = Trace(sizes_only_backend(threads))
    tensors = [_sizes_only(trace, item) for item in inputs]
    trace.enter_phase("forward")
    begin = len(trace.ledger.events)
    with trace.autocast("bf16" if autocast else None):
        output = function(*tensors)
    if output.requires_grad:
        backward(output)
    trace.recording = False
    del output
    return curve_of_trace(trace, begin)


def assert_same_curve(
    real: Callable[..., torch.Tensor],
    sizes_only: Callable[..., Tensor],
    inputs: Sequence[Input],
    threads: int = 2,
    autocast: bool = False,
) -> None:
    """Both allocate the same bytes in the same order, with the same bytes alive at each of them and at the end: alone,
    and within a chain, where an input or output dies unless the operation saves it."""
    links = ((real, sizes_only), (_chained(real, inputs, torch.mul), _chained(sizes_only, inputs, elementwise.mul)))
    for place, (ours, theirs) in zip(("alone", "in a chain"), links, strict=True):
        expected = real_curve(ours, inputs, threads, autocast)
        curve = sizes_only_curve(theirs, inputs, threads, autocast)
        assert curve == expected, f"{place}: estimated {curve}, measured {expected}, inputs {inputs}"


def _chained(function: Callable[..., Any], inputs: Sequence[Input], mul: Callable[..., Any]) -> Callable[..., Any]:
    """mul(function(mul(input), ...))"""

    def chained(*tensors: Any) -> Any:
        links = (
            mul(tensor, 2.0) if item.trained and item.dtype not in ("int64", "bool") else tensor
            for item, tensor in zip(inputs, tensors, strict=True)
        )
        return mul(function(*links), 2.0)

    return chained


def curve_of_run(run: Callable[[], None]) -> Curve:
    """What a block of PyTorch code allocates and frees. Frees of what was there before are no concern of it."""

    def marked() -> None:
        mark(BEGIN)
        run()

    events, regions = record_memory(marked)
    begin = next(region.start for region in regions if region.name == BEGIN)
    sizes: list[int] = []
    alive: set[int] = set()
    for event in events:
        if event.time >= begin and (event.size > 0 or event.address in alive):
            sizes.append(event.size)
            (alive.add if event.size > 0 else alive.remove)(event.address)
    return _curve(sizes)


def curve_of_trace(trace: Trace, begin: int) -> Curve:
    """The same of the events a trace has recorded from number `begin` on."""
    return _curve([allocation.size if birth else -allocation.size for allocation, birth in trace.ledger.events[begin:]])


def _curve(sizes: list[int]) -> Curve:
    alive, births = 0, []
    for size in sizes:
        alive += size
        if size > 0:
            births.append(alive)
    return Curve(births, alive)


def _real(item: Input) -> torch.Tensor:
    dtype = TORCH_DTYPES[item.dtype]
    if item.dtype in ("int64", "bool"):
        return torch.randint(0, item.high, item.shape).to(dtype)
    return torch.randn(item.shape).to(dtype).requires_grad_(item.trained)


def _sizes_only(trace: Trace, item: Input) -> Tensor:
    if item.dtype in ("int64", "bool") or not item.trained:
        return empty(trace, item.shape, item.dtype, "input")
    return Parameter(Storage(trace, trace.allocate(item.shape, item.dtype, "parameter")), item.shape, item.dtype)
