"""Loops of one's own round a model of transformers: the request is read off the run, and what differs is named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memplan.errors import ConfigurationError  # noqa: E402
from memplan.measure.watching import DriftError, Finding, MemoryWarning, watch  # noqa: E402
from memplan.profiles import read  # noqa: E402

from .cases import LENGTH, ROWS, batch, library_model, off  # noqa: E402


class Loop:
    """A loop that does as estimates have it: gradients dropped first, a function that holds what the model returns."""

    def __init__(self, kind: str = "llama", optimizer: type[Any] = torch.optim.AdamW, **settings: Any) -> None:
        self.model = library_model(kind)
        self.optimizer = optimizer(self.model.parameters(), **{"lr": 1e-4, **settings})

    def step(self, given: dict[str, Any], autocast: torch.dtype | None = None, clip: float = 0.0) -> Any:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            outputs = self.model(**given)
        outputs.loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        return outputs


CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {}, {"optimizer": "adamw", "sequence_length": LENGTH, "micro_batch_size": ROWS}),
    ("gpt2", {"fused": True}, {}, {"optimizer_implementation": "fused"}),
    ("bert", {"foreach": True}, {}, {"optimizer_implementation": "foreach"}),
    ("llama", {"optimizer": torch.optim.SGD, "momentum": 0.5}, {}, {"optimizer": "sgd", "momentum": 0.5}),
    ("llama", {}, {"autocast": torch.bfloat16}, {"precision": "bf16-mixed"}),
    ("llama", {}, {"clip": 2.0}, {"gradient_clipping": 2.0}),
    ("t5", {}, {}, {"source_length": LENGTH, "target_length": LENGTH}),
]


@pytest.mark.parametrize(("kind", "made", "stepped", "expected"), CASES)
@pytest.mark.usefixtures("onednn_off")
def test_the_request_is_read_off_the_run(
    kind: str, made: dict[str, Any], stepped: dict[str, Any], expected: dict[str, Any]
) -> None:
    loop, given = Loop(kind, **made), batch()
    with watch(loop.model) as watched:
        for _ in range(2):
            loop.step(given, **stepped)
            watched.step()
    assert off(watched) == {}
    assert watched.plan is not None
    run = watched.plan.estimate.run
    assert {name: getattr(run, name) for name in expected} == expected


@pytest.mark.usefixtures("onednn_off")
def test_checkpointing_and_frozen_weights_are_seen() -> None:
    loop, given = Loop(), batch()
    loop.model.activation_checkpointing_enable({"use_reentrant": False})
    loop.model.model.embed_tokens.requires_grad_(False)
    loop.optimizer = torch.optim.AdamW([each for each in loop.model.parameters() if each.requires_grad])
    with watch(loop.model) as watched:
        for _ in range(2):
            loop.step(given)
            watched.step()
    assert watched.plan is not None
    assert watched.plan.estimate.run.recompute == "full"
    assert watched.plan.estimate.run.frozen == ("model.embed_tokens.weight",)


@pytest.mark.usefixtures("onednn_off")
def test_the_recorded_step_is_planned_with_its_own_batch() -> None:
    loop = Loop()
    with watch(loop.model) as watched:
        for rows in (2, 7):
            loop.step(batch(rows))
            watched.step()
    assert watched.plan is not None
    assert watched.plan.estimate.run.micro_batch_size == 7
    assert off(watched) == {}


@pytest.mark.usefixtures("onednn_off")
def test_any_step_can_be_recorded_and_all_others_are_left_alone() -> None:
    loop, given = Loop(), batch()
    with watch(loop.model, recorded_step=5) as watched:
        for number in range(1, 7):
            loop.step(given)
            assert watched._window.is_open == (number in (4, 5))
            watched.step()
    assert watched.recorded is not None
    assert watched.recorded.step == 5
    assert off(watched) == {}


@pytest.mark.usefixtures("onednn_off")
def test_what_a_loop_holds_on_to_is_told_by_name() -> None:
    loop, given = Loop(), batch()
    gradients = sum(each.numel() * 4 for each in loop.model.parameters())
    logits = 4 * ROWS * LENGTH * 500
    outputs = None
    with (
        pytest.warns(MemoryWarning, match="of the step before, which optimizer.zero_grad") as told,
        watch(loop.model) as watched,
    ):
        for _ in range(2):
            outputs = loop.model(**given)  # while the one before is still held, and so are its gradients
            loop.optimizer.zero_grad()
            outputs.loss.backward()
            loop.optimizer.step()
            watched.step()
    assert outputs is not None
    assert off(watched)["forward: peak"] == -(gradients + logits + 4)
    assert watched._kept.carried == {"gradients": gradients, "other": logits + 4}
    message = str(told[0].message)
    assert "step 2: allocated memory peaks in loss at" in message
    assert f"1 more of {logits:,} bytes" in message
    assert told[0].filename == __file__
    assert "forward: gradients at the peak" in watched._kept.residuals


@pytest.mark.usefixtures("onednn_off")
def test_what_a_step_leaves_behind_is_recorded(tmp_path: Path) -> None:
    loop, given, left = Loop(), batch(), []
    file = tmp_path / "run.json"
    with watch(loop.model, record=file, warn=0.5) as watched:
        for _ in range(2):
            left.append(loop.step(given).logits.detach())
            watched.step()
    size = left[0].numel() * 4
    told = read(file)["watched"]["left_by_recorded_step"]
    assert told["bytes"] == size
    assert {"bytes": size, "operation": "aten::mm", "phase": "forward"} in told["blocks"]


def test_drift_can_raise_and_the_record_stays(tmp_path: Path) -> None:
    loop, given = Loop(), batch()
    file = tmp_path / "run.json"
    with (
        pytest.raises(DriftError, match="more than the") as raised,
        watch(loop.model, record=file, on_drift="raise") as watched,
    ):
        for _ in range(3):
            outputs = loop.model(**given)
            loop.optimizer.zero_grad()
            outputs.loss.backward()
            loop.optimizer.step()
            watched.step()
    assert raised.value.finding.kind == "drift"
    record = read(file)
    assert record["outcome"] == "failed"
    assert record["error"].startswith("DriftError: step 2: allocated memory peaks in loss")
    assert record["watched"]["steps"] == 2
    assert len(record["phases"]) == 4


def test_drift_can_be_handed_to_a_function() -> None:
    loop, given = Loop(), batch()
    found: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with watch(loop.model, on_drift=found.append, warn=0.0001) as watched:
            for _ in range(4):
                outputs = loop.model(**given)
                loop.optimizer.zero_grad()
                outputs.loss.backward()
                loop.optimizer.step()
                watched.step()
    assert [each.kind for each in found] == ["drift"]
    assert watched.findings == tuple(found)
    assert found[0].estimated_bytes is not None and found[0].measured_bytes is not None
    assert found[0].measured_bytes > found[0].estimated_bytes


@pytest.mark.usefixtures("onednn_off")
def test_steps_counts_the_batches_behind_which_an_optimizer_stepped() -> None:
    loop = Loop()
    with watch(loop.model) as watched:
        for number, given in enumerate(watched.steps(batch() for _ in range(6)), 1):
            outputs = loop.model(**given)
            (outputs.loss / 2).backward()
            del outputs
            if number % 2 == 0:
                loop.optimizer.step()
                loop.optimizer.zero_grad()
    assert watched._kept.steps == 3
    assert watched.plan is not None
    assert watched.plan.estimate.run.gradient_accumulation_steps == 2


def test_a_run_that_raises_keeps_what_was_seen(tmp_path: Path) -> None:
    loop, given = Loop(), batch()
    file = tmp_path / "run.json"
    with pytest.raises(ZeroDivisionError), watch(loop.model, record=file) as watched:
        for number in range(4):
            loop.step(given)
            watched.step()
            1 / (2 - number)
    record = read(file)
    assert record["outcome"] == "failed"
    assert record["error"] == "ZeroDivisionError: division by zero"
    assert [phase["name"] for phase in record["phases"]] == ["forward", "loss", "backward", "optimizer_step"]
    assert record["watched"]["steps"] == 3


ENDINGS: list[tuple[BaseException, dict[str, Any]]] = [
    (KeyboardInterrupt(), {"outcome": "killed", "signal": 2}),
    (SystemExit(3), {"outcome": "killed", "exit_code": 3}),
    (MemoryError(), {"outcome": "out_of_memory", "out_of_memory": {"step": 2}}),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), {"outcome": "out_of_memory"}),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't"), {"outcome": "out_of_memory"}),
]


@pytest.mark.parametrize(("error", "expected"), ENDINGS, ids=lambda value: type(value).__name__)
def test_how_it_ended_is_recorded(error: BaseException, expected: dict[str, Any], tmp_path: Path) -> None:
    loop, given = Loop(), batch()
    file = tmp_path / "run.json"
    with pytest.raises(type(error)), watch(loop.model, record=file) as watched:
        loop.step(given)
        watched.step()
        raise error
    record = read(file)
    assert {name: record[name] for name in expected} == expected
    assert record["watched"]["finished"] is True


def test_a_run_that_dies_without_a_word_counts_as_killed(tmp_path: Path) -> None:
    loop, given = Loop(), batch()
    file = tmp_path / "run.json"
    with watch(loop.model, record=file) as watched:
        for _ in range(2):
            loop.step(given)
            watched.step()
        record = read(file)  # as it would be found
    assert record["outcome"] == "killed"
    assert record["watched"]["finished"] is False
    assert record["watched"]["recorded_step"] == 2
    assert len(record["phases"]) == 4
    assert read(file)["outcome"] == "ran"


def test_what_cannot_be_planned_is_one_warning_and_stops_nothing(tmp_path: Path) -> None:
    class Mine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).sum()

    model = Mine()
    optimizer = torch.optim.SGD(model.parameters())
    with (
        pytest.warns(MemoryWarning) as told,
        watch(model, record=tmp_path / "run.json", on_drift="raise") as watched,
    ):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(2, 8)).backward()
            optimizer.step()
            watched.step()
    (one,) = told
    assert str(one.message).startswith("Mine is watched without a plan: Mine is no model of transformers (give model=")
    assert watched.recorded is not None
    assert {phase["name"] for phase in watched.recorded.phases} == {"forward", "backward", "optimizer_step"}
    assert watched.summary().splitlines()[1] == "no plan: Mine is no model of transformers"


REFUSED: list[tuple[Any, str]] = [
    (lambda model: torch.optim.RMSprop(model.parameters()), "optimizer torch.optim.rmsprop.RMSprop is not modelled"),
    (lambda model: torch.optim.AdamW(model.parameters(), amsgrad=True), "AdamW with amsgrad is not modelled"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_what_is_not_modelled_is_named(make: Any, why: str) -> None:
    loop, given = Loop(), batch()
    loop.optimizer = make(loop.model)
    with pytest.warns(MemoryWarning, match=why), watch(loop.model) as watched:
        loop.step(given)
        watched.step()
    assert watched.plan is None


def test_settings_that_are_known_better_win() -> None:
    loop, given = Loop(), batch()
    with watch(loop.model, {"gradient_clipping": 3.0}) as watched:
        for _ in range(2):
            loop.step(given)
            watched.step()
    assert watched.plan is not None
    assert watched.plan.estimate.run.gradient_clipping == 3.0
    with pytest.raises(ConfigurationError, match="run: 'clipping' is no setting of a run"):
        watch(loop.model, {"clipping": 3.0})


def test_without_an_optimizer_that_steps_nothing_is_recorded() -> None:
    loop, given = Loop(), batch()
    with (
        pytest.warns(MemoryWarning, match="no optimizer of torch.optim took its step twice in a row"),
        watch(loop.model) as watched,
    ):
        for _ in range(3):
            loop.model(**given).loss.backward()
            watched.step()
    assert watched.recorded is None


def test_another_profiler_is_left_alone() -> None:
    loop, given = Loop(), batch()
    with (
        torch.autograd.profiler.profile(use_kineto=True),
        pytest.warns(MemoryWarning, match="another profiler is running"),
        watch(loop.model) as watched,
    ):
        loop.step(given)
        watched.step()
    assert watched.recorded is None


def test_what_is_known_not_to_be_in_the_plan_is_told() -> None:
    loop = Loop()
    loop.model.config.use_cache = True
    given = {**batch(), "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.long)}
    with watch(loop.model) as watched:
        for _ in range(2):
            loop.step(given)
            watched.step()
    assert watched.plan is not None
    assert watched.plan.estimate.run.padding is False
    assert watched.plan.assumptions[:3] == (
        "the loop is the run's own, and planned as the one that estimates are made for",
        "the model is called with attention_mask as well, which is not in the plan",
        "the model's configuration has use_cache on, and the plan is made for use_cache=False",
    )


@pytest.mark.usefixtures("onednn_off")
def test_the_norm_alone_counts_as_clipping() -> None:
    loop, given = Loop(), batch()
    with watch(loop.model) as watched:
        for _ in range(2):
            loop.step(given, clip=float("inf"))
            watched.step()
    assert off(watched) == {}
