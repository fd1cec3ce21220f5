"""Measuring on a card, as far as it goes without one: the flow on the CPU beside a made-up allocator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.config.devices import load_device  # noqa: E402
from memplan.errors import MeasurementError, MissingDependencyError  # noqa: E402
from memplan.measure import cuda  # noqa: E402
from memplan.measure.card import MOST_EVENTS, Card  # noqa: E402
from memplan.measure.cuda import WARM_UP_STEPS, context_bytes, measure_on_card  # noqa: E402
from memplan.measure.exhaustion import figures, is_exhaustion  # noqa: E402
from memplan.measure.materialise import build_model  # noqa: E402
from memplan.measure.meter import Meter  # noqa: E402
from memplan.measure.run import PHASES, make_batch  # noqa: E402
from memplan.measure.suite import suite  # noqa: E402
from memplan.profiles import make_record, read, save  # noqa: E402
from memplan.reference.model import Transformer  # noqa: E402

from .fakes import ENVIRONMENT, LOCAL, FakeCard, case  # noqa: E402

CPU = load_device("cpu")
GIB = 2**30

MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.25 GiB is "
    "free. Including non-PyTorch memory, this process has 77.85 GiB memory in use. Of the allocated memory 70.00 GiB "
    "is allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated "
    "memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


@pytest.mark.parametrize("number", range(0, 84, 6))
def test_the_quick_suite_goes_through(number: int, tmp_path: Any) -> None:
    config, run = suite("quick", CPU)[number]
    measured = measure_on_card(config, run, FakeCard())  # type: ignore[arg-type]
    assert measured["outcome"] == "ran"
    assert measured["loss_is_finite"]
    assert measured["sdpa_kernels"] == ([] if run.attention == "naive" else ["flash"])
    assert [phase["name"] for phase in measured["phases"]] == list(PHASES)
    assert len(measured["steps"]) == WARM_UP_STEPS + 1
    record = make_record(config, run, LOCAL, measured)
    assert read(save(record, tmp_path)) == record


def test_the_sizes_that_outlive_a_step() -> None:
    config, run = case(optimizer="adamw")
    measured = measure_on_card(config, run, FakeCard())  # type: ignore[arg-type]
    count = sum(parameter.numel() for parameter in Transformer(config).parameters())
    tensors = len(list(Transformer(config).parameters()))
    assert measured["tensor_bytes"] == {
        "parameters": 4 * count,
        "gradients": 4 * count,
        "optimizer_state": 8 * count + 4 * tensors,  # and a step counter for each tensor
        "inputs": 2 * 8 * 8,
    }


def test_reserved_memory_is_that_of_all_steps_and_allocated_that_of_the_last() -> None:
    measured = measure_on_card(*case(), FakeCard())  # type: ignore[arg-type]
    assert measured["tiers"]["reserved_bytes"] == 2**21  # seen once, in the first step
    assert {phase["peak_reserved_bytes"] for phase in measured["phases"]} == {2**20}
    assert measured["tiers"]["allocated_bytes"] == max(phase["peak_allocated_bytes"] for phase in measured["phases"])
    assert measured["tiers"]["context_bytes"] == 500
    assert measured["tiers"]["device_bytes"] == 500 + 2**21
    assert measured["driver_memory"]["basis"] == "process"


def test_where_the_driver_does_not_tell_a_process_the_whole_card_stands_for_it() -> None:
    measured = measure_on_card(*case(), FakeCard(process_bytes=None))  # type: ignore[arg-type]
    assert measured["tiers"]["context_bytes"] == 900 - 100 - 200  # in use, less what others had, less what is reserved
    assert measured["driver_memory"]["basis"] == "card"
    assert context_bytes({"process_bytes": None, "card_bytes": 900, "reserved_bytes": 200}, None) == (700, "card")


def test_gradient_scaling_takes_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    config, run = case(precision="fp16-mixed", attention="naive")
    assert measure_on_card(config, run, FakeCard())["outcome"] == "ran"  # type: ignore[arg-type]

    def scaler(run: Any, device: str) -> Any:
        return torch.amp.GradScaler(device, init_scale=2.0**120)  # every gradient overflows

    monkeypatch.setattr(cuda, "make_scaler", scaler)
    with pytest.raises(MeasurementError, match="a step was skipped"):
        measure_on_card(config, run, FakeCard())  # type: ignore[arg-type]


def test_a_card_that_is_not_empty_is_refused() -> None:
    with pytest.raises(MeasurementError, match="1,024 bytes are still allocated"):
        measure_on_card(*case(), FakeCard(left=1024))  # type: ignore[arg-type]


def test_a_history_on_request() -> None:
    card = FakeCard()
    measured = measure_on_card(*case(), card, history=True)  # type: ignore[arg-type]
    assert not card.recording
    history = measured["history"]
    assert history["device_traces"] == [[{"action": "alloc", "addr": 4096, "size": 2, "stream": 0}]]
    steps = [step for step, phase, _ in history["marks"] if phase == "forward"]
    assert steps == [1, 2, 3, 4]
    made = [count for _, _, count in history["marks"]]
    assert made == sorted(made)
    json.dumps(measured)


@pytest.mark.parametrize(
    ("at", "step", "phase"), [("build_model", 0, "build"), ("compute_loss", 0, "build"), ("backward", 1, "backward")]
)
def test_running_out_is_a_result_wherever_it_happens(
    at: str, step: int, phase: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def exhausted(*arguments: Any, **keywords: Any) -> Any:
        raise torch.OutOfMemoryError(MESSAGE)

    if at == "backward":
        monkeypatch.setattr(torch.Tensor, "backward", exhausted)
    elif at == "build_model":
        monkeypatch.setattr(cuda, "build_model", exhausted)
    else:
        monkeypatch.setattr(cuda, "make_batch", exhausted)
    config, run = case()
    measured = measure_on_card(config, run, FakeCard())  # type: ignore[arg-type]
    assert measured["outcome"] == "out_of_memory"
    assert (measured["out_of_memory"]["step"], measured["out_of_memory"]["phase"]) == (step, phase)
    assert measured["out_of_memory"]["requested_bytes"] == int(2.5 * GIB)
    assert measured["phases"] == []
    record = make_record(config, run, LOCAL, measured)
    assert read(save(record, tmp_path)) == record


def test_the_kernels_are_unknown_where_no_memory_is_left_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr(cuda, "compute_loss", exhausted)
    measured = measure_on_card(*case(), FakeCard())  # type: ignore[arg-type]
    assert measured["outcome"] == "ran"
    assert measured["sdpa_kernels"] == ["unknown"]


def test_other_errors_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(cuda, "build_model", broken)
    with pytest.raises(RuntimeError, match="no kernel image"):
        measure_on_card(*case(), FakeCard())  # type: ignore[arg-type]


def test_the_figures_of_the_message() -> None:
    assert figures(torch.OutOfMemoryError(MESSAGE)) == {
        "asked_by": "allocator",
        "requested_bytes": int(2.5 * GIB),
        "capacity_bytes": int(79.11 * GIB),
        "free_bytes": int(1.25 * GIB),
        "process_bytes": int(77.85 * GIB),
        "allocated_bytes": 70 * GIB,
        "reserved_but_unallocated_bytes": GIB // 2,
    }


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_what_counts_as_running_out(error: Exception, exhausted: bool) -> None:
    assert is_exhaustion(error) is exhausted
    if exhausted and not isinstance(error, torch.OutOfMemoryError):
        assert figures(error) == {"asked_by": "library"}


@pytest.mark.parametrize("number", [0, 8, 25, 28, 34])
def test_a_model_is_built_in_the_order_of_its_parameters(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config, run = suite("quick", CPU)[number]
    made: list[tuple[int, ...]] = []
    empty = torch.empty

    def recorded(*arguments: Any, **keywords: Any) -> Any:
        if keywords.get("device") == torch.device("cpu"):
            made.append(tuple(arguments[0]))
        return empty(*arguments, **keywords)

    monkeypatch.setattr(torch, "empty", recorded)
    model = build_model(config, run, torch.device("cpu"))
    assert made == [tuple(parameter.shape) for parameter in model.parameters()]
    assert [tuple(p.shape) for p in Transformer(config).parameters()] == made
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert all(parameter.requires_grad and bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_tied_parameters_stay_one_and_have_the_run_s_dtype() -> None:
    config, run = case(precision="bf16")
    model = build_model(config, run, torch.device("cpu"))
    assert model.head.projection.weight is model.token_embedding.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    mixed = build_model(config, replace(run, precision="bf16-mixed"), torch.device("cpu"))
    assert {parameter.dtype for parameter in mixed.parameters()} == {torch.float32}


def test_a_model_with_buffers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from memplan.measure import materialise

    class Buffered(Transformer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.register_buffer("table", torch.ones(3))

    monkeypatch.setattr(materialise, "Transformer", Buffered)
    with pytest.raises(MeasurementError, match="buffers"):
        build_model(*case(), torch.device("cpu"))


def test_a_batch_is_moved_whole() -> None:
    config, run = suite("quick", CPU)[36]  # an encoder-decoder with padding
    batch = make_batch(config, run, torch.device("meta"))
    assert {name for name, tensor in vars(batch).items() if tensor is not None} == {
        "tokens", "labels", "real", "source", "source_real"
    }  # fmt: skip
    assert all(tensor.is_meta for tensor in vars(batch).values() if tensor is not None)


def test_phases_that_come_again_keep_their_highest_peak_and_last_end() -> None:
    peaks = iter([0, 0, 10, 40, 90, 30, 70, 20, 5])
    ends = iter([0, 0, 1, 2, 3, 4, 5, 6, 7])

    def read() -> dict[str, int]:
        peak, end = next(peaks), next(ends)
        bytes_of = {f"{kind}_bytes.all.{when}": size for kind in ("allocated", "requested", "active", "reserved",
                    "inactive_split") for when, size in (("peak", peak), ("current", end))}  # fmt: skip
        return {**bytes_of, "allocation.all.allocated": 3}

    meter = Meter(read, lambda: None)
    for name in ("zero_grad", "forward", "backward", "forward", "backward", "optimizer_step", "end"):
        meter.mark(name)
    meter.stop()
    step = meter.steps[0]
    assert step["forward"]["peak_allocated_bytes"] == 40
    assert step["forward"]["end_allocated_bytes"] == 4
    assert step["backward"]["peak_allocated_bytes"] == 90
    assert step["backward"]["end_allocated_bytes"] == 5
    assert step["optimizer_step"]["end_allocated_bytes"] == 6
    assert meter.peak_allocated == 90
    assert meter.peaks() == [{"peak_allocated_bytes": 90, "peak_reserved_bytes": 90}]


def test_a_build_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(MissingDependencyError, match="built without CUDA"):
        Card(LOCAL)


@pytest.mark.parametrize(
    ("there", "backend", "says"), [(False, "native", "cannot use a card"), (True, "cudaMallocAsync", "cudaMallocAsync")]
)
def test_a_card_that_cannot_be_used_is_told(
    there: bool, backend: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: backend)
    with pytest.raises(MeasurementError, match=says):
        Card(LOCAL)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torch.cuda as a card would answer it; the list has what was called, in order."""
    called: list[str] = []

    class Properties:
        name, major, minor, multi_processor_count, total_memory = "NVIDIA H100 80GB HBM3", 9, 0, 132, 85 * 10**9

    def answer(name: str, value: Any) -> Any:
        def function(*arguments: Any, **keywords: Any) -> Any:
            called.append(name)
            return value

        return function

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    for name, value in {
        "is_available": True, "get_allocator_backend": "native", "synchronize": None, "mem_get_info": (60, 100),
        "memory_reserved": 30, "memory_allocated": 0, "empty_cache": None, "get_device_properties": Properties(),
        "memory_stats": {}, "reset_peak_memory_stats": None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, answer(name, value))
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", answer("clear", None), raising=False)
    monkeypatch.setattr("memplan.measure.card._ask_driver", lambda *arguments: None)
    return called


def test_leftovers_are_given_back_before_they_are_counted(pretended: list[str]) -> None:
    card = Card(LOCAL)
    pretended.clear()
    assert card.clear() == 0
    assert pretended == ["clear", "synchronize", "empty_cache", "memory_allocated"]
    assert card.memory() == {"process_bytes": None, "card_bytes": 40, "reserved_bytes": 30}


def test_the_environment_says_what_bytes_depend_on(pretended: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    environment = Card(LOCAL).environment()
    assert set(ENVIRONMENT) <= set(environment)
    assert environment["card"] == "NVIDIA H100 80GB HBM3"
    assert environment["compute_capability"] == "9.0"
    assert environment["multiprocessors"] == 132
    assert environment["torch"] == torch.__version__
    assert environment["allocator_settings"] == "expandable_segments:True"
    assert environment["mig"] is False
    assert json.loads(json.dumps(environment)) == environment


def test_a_history_that_lost_events_is_refused(pretended: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[Any] = []
    event = {"action": "alloc", "addr": 1, "size": 2, "stream": 0}
    monkeypatch.setattr(
        torch.cuda.memory, "_record_memory_history", lambda *given, **named: settings.append((given, named))
    )
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: {"segments": [], "device_traces": [[event] * 3]})
    card = Card(LOCAL)
    card.start_history()
    assert card.stop_history()["device_traces"] == [[event] * 3]
    assert settings == [(("all",), {"context": None, "max_entries": MOST_EVENTS}), ((None,), {})]
    full = {"segments": [], "device_traces": [[event] * MOST_EVENTS]}
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: full)
    with pytest.raises(MeasurementError, match="not complete"):
        card.stop_history()
