"""Which kernel of scaled_dot_product_attention takes key-value heads that several query heads share, by release."""

from __future__ import annotations

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.library.model import validate_library_model
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.estimate import estimate
from memplan.huggingface.attention import scaled_dot_product
from memplan.ops.backend import Backend
from memplan.ops.module import parameter
from memplan.ops.tensor import Parameter, empty
from memplan.ops.trace import Trace

from .small import SMALL


def rules(name: str, release: tuple[int, int]) -> Backend:
    return Backend(name, torch=release, compute_capability=(9, 0), multiprocessors=132)


def heads(trace: Trace, number: int, dtype: str) -> Parameter:
    shape = (2, number, 128, 64)
    tensor = parameter(trace, *shape)
    tensor.storage.allocation = trace.allocate(shape, dtype, "parameter")
    tensor.dtype = dtype
    return tensor


def attend(backend: Backend, dtype: str, shared: int, grouped: bool) -> tuple[str, list[int], list[int]]:
    """The kernel, and what the forward and the backward pass allocate, for 8 query heads."""
    trace = Trace(backend)
    query, key, value = heads(trace, 8, dtype), heads(trace, shared, dtype), heads(trace, shared, dtype)
    start = len(trace.ledger.events)
    output = scaled_dot_product(query, key, value, None, False, 0.0, grouped)
    node = output.node
    assert node is not None
    middle = len(trace.ledger.events)
    forward = [allocation.size for allocation, birth in trace.ledger.events[start:middle] if birth]
    gradient = empty(trace, output.shape, dtype, "gradient", output.strides)
    middle = len(trace.ledger.events)
    results = node.run([gradient])
    backward = [allocation.size for allocation, birth in trace.ledger.events[middle:] if birth]
    del results
    (kernel,) = trace.ledger.sdpa_kernels
    return kernel, forward, backward


@pytest.mark.parametrize(
    ("torch", "backend", "dtype", "shared", "grouped", "kernel"),
    [
        ((2, 13), "cuda", "fp32", 2, True, "math"),
        ((2, 14), "cuda", "fp32", 2, True, "efficient"),
        ((2, 13), "cuda", "fp32", 1, False, "math"),
        ((2, 14), "cuda", "fp32", 1, False, "efficient"),
        ((2, 13), "cuda", "bf16", 2, True, "flash"),
        ((2, 13), "cuda", "bf16", 1, False, "math"),
        ((2, 14), "cuda", "bf16", 1, False, "flash"),
        ((2, 13), "cpu", "fp32", 1, False, "math"),
        ((2, 14), "cpu", "fp32", 1, False, "flash"),
        ((2, 13), "cpu", "fp32", 2, True, "flash"),
    ],
)
def test_the_kernel_of_shared_heads(
    torch: tuple[int, int], backend: str, dtype: str, shared: int, grouped: bool, kernel: str
) -> None:
    assert attend(rules(backend, torch), dtype, shared, grouped)[0] == kernel


@pytest.mark.parametrize(("shared", "grouped", "size"), [(2, True, 131_072), (1, False, 65_536)])
def test_efficient_attention_with_shared_heads(shared: int, grouped: bool, size: int) -> None:
    """As PyTorch 2.14.1's CUDA build allocates it: gradients of keys and values for each query head, and their sums."""
    _, forward, backward = attend(rules("cuda", (2, 14)), "fp32", shared, grouped)
    assert forward == [8, 8, 524_288, 8_192]
    # query, key and value; keys and values by head; gradient times output, its sums twice, a workspace
    assert backward[-9:] == [524_288, size, size, 524_288, 524_288, 524_288, 8_192, 8_192, 524_800]


@pytest.mark.parametrize("run", [TrainingRun(sequence_length=8, attention="naive"), InferenceRun(prompt_length=4)])
def test_an_old_release_is_refused(run: TrainingRun | InferenceRun) -> None:
    with pytest.raises(NotModelledError, match=r"modelled for PyTorch 2\.9 and newer, not for 2\.8"):
        estimate(validate_library_model(SMALL["gpt2"]), run, load_device("cpu"), (2, 8))
