"""transformers' Trainer, watched by a callback: what it holds itself is in the plan, to the byte."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from memplan.errors import ConfigurationError  # noqa: E402
from memplan.measure.watching import DriftError, MemoryWarning, transformers_callback, watch  # noqa: E402
from memplan.profiles import read  # noqa: E402

from .cases import LENGTH, ROWS, example, library_model, off  # noqa: E402


def trainer(
    folder: Path,
    kind: str = "llama",
    *,
    callbacks: list[Any] | None = None,
    count: int = 40,
    model: dict[str, Any] | None = None,
    mask: int = 0,
    kept: Any = None,
    **arguments: Any,
) -> Any:
    """A Trainer of a small model. With `mask` every sequence has so many tokens that are real."""
    examples = [example(LENGTH // 2 if kind == "t5" else LENGTH) for _ in range(count)]
    for each in examples if mask else ():
        each["attention_mask"] = (torch.arange(LENGTH) < mask).long()
    settings = {
        "output_dir": str(folder / "trainer"), "use_cpu": True, "per_device_train_batch_size": ROWS, "max_steps": 3,
        "report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no",
    }  # fmt: skip
    return transformers.Trainer(
        model=library_model(kind, **(model or {})) if kept is None else kept,
        args=transformers.TrainingArguments(**{**settings, **arguments}),
        train_dataset=examples,
        callbacks=callbacks,
    )


CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("gpt2", {"optim": "adamw_torch", "model": {"attn_pdrop": 0.1, "attention": "eager"}}),
    ("bert", {"mask": LENGTH}),
    ("t5", {}),
    ("llama", {"mask": LENGTH // 2, "max_grad_norm": 0.0}),
    ("llama", {"gradient_accumulation_steps": 3, "average_tokens_across_devices": False}),
    ("llama", {"activation_checkpointing": True}),
    ("llama", {"bf16": True}),
    ("gpt2", {"optim": "sgd"}),
    ("llama", {"count": 2 * ROWS}),  # the recorded step has the last batch of the epoch, and none is fetched ahead
]


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=str)
@pytest.mark.usefixtures("onednn_off")
def test_every_figure_is_as_planned(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    callback = transformers_callback(record=file)
    trainer(tmp_path, kind, callbacks=[callback], **changes).train()
    assert off(callback.watch) == {}
    assert callback.watch.findings == ()
    record = read(file)
    assert record["outcome"] == "ran"
    assert record["watched"]["loop"] == record["watched"]["plan"]["loop"] == "transformers.Trainer"
    assert record["watched"]["steps"] == 3
    assert record["watched"]["graded"] is False


@pytest.mark.usefixtures("onednn_off")
def test_what_the_trainer_does_otherwise_than_an_estimate_has_it(tmp_path: Path) -> None:
    """Logits are gone before the backward pass, two batches are in memory, and a few scalars."""
    callback = transformers_callback()
    trainer(tmp_path, callbacks=[callback]).train()
    from memplan.estimate import estimate

    planned = callback.watch.plan.estimate
    plain = estimate(planned.model, planned.run, planned.device)
    logits, batch = ROWS * LENGTH * 500 * 4, 2 * ROWS * LENGTH * 8
    less = plain.peak.peak_allocated_bytes - planned.peak.peak_allocated_bytes
    assert logits - batch - 64 <= less <= logits - batch
    assert planned.phases[0].peak_allocated_bytes - plain.phases[0].peak_allocated_bytes == batch + 4 + 2 * 4


def test_with_a_trainer_every_exception_is_seen(tmp_path: Path) -> None:
    class Stops(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if state.global_step == 2:
                raise ValueError("stopped")

    file = tmp_path / "run.json"
    watched = trainer(tmp_path, callbacks=[Stops()])
    with pytest.raises(ValueError, match="stopped"), watch(watched, record=file) as watching:
        watched.train()
    record = read(file)
    assert (record["outcome"], record["error"]) == ("failed", "ValueError: stopped")
    assert record["watched"]["steps"] == 2
    assert len(record["phases"]) == 4
    assert watching.recorded is not None
    assert not any(type(each).__name__ == "WatchCallback" for each in watched.callback_handler.callbacks)


def test_an_exception_that_nobody_catches_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stops(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            raise ValueError("stopped")

    told: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: told.append(error))
    file = tmp_path / "run.json"
    callback = transformers_callback(record=file)
    try:
        trainer(tmp_path, callbacks=[callback, Stops()]).train()
    except ValueError as error:
        assert read(file)["watched"]["finished"] is False
        sys.excepthook(ValueError, error, None)  # as the interpreter does
    assert [str(error) for error in told] == ["stopped"]
    assert read(file)["error"] == "ValueError: stopped"
    assert callback.watch._state == "ended"


def test_another_training_ends_what_was_not_told_to_have_ended(tmp_path: Path) -> None:
    class Stops(transformers.TrainerCallback):  # type: ignore[misc]
        trainings = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            self.trainings += 1

        def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if self.trainings == 1:
                raise ValueError("stopped")

    callback = transformers_callback(record=tmp_path / "run.json")
    training = trainer(tmp_path, callbacks=[callback, Stops()])
    with pytest.raises(ValueError, match="stopped"):
        training.train()
    first = callback.watch
    assert first.is_running
    training.train()
    assert (first._kept.ending.outcome, callback.watch._kept.ending.outcome) == ("failed", "ran")
    assert callback.watch is not first
    assert off(callback.watch) == {}


def test_drift_that_raises_ends_the_training_and_the_record(tmp_path: Path) -> None:
    class Holds(transformers.TrainerCallback):  # type: ignore[misc]
        kept: Any = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            self.kept = torch.empty(1_000_000)

    file = tmp_path / "run.json"
    callback = transformers_callback(record=file, on_drift="raise")
    with pytest.raises(DriftError, match="1 more of 4,000,000 bytes"):
        trainer(tmp_path, callbacks=[Holds(), callback]).train()
    assert read(file)["error"].startswith("DriftError: step 2")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"optim": "adafactor"}, "optimizer transformers.optimization.Adafactor is not modelled"),
    ({"label_smoothing_factor": 0.1}, "label smoothing .label_smoothing_factor. is not modelled"),
    ({"neftune_noise_alpha": 5.0}, "NEFTune"),
]


@pytest.mark.parametrize(("arguments", "why"), REFUSED)
def test_what_is_not_modelled_is_named_and_the_training_goes_on(
    arguments: dict[str, Any], why: str, tmp_path: Path
) -> None:
    callback = transformers_callback(record=tmp_path / "run.json")
    with pytest.warns(MemoryWarning, match=why):
        trainer(tmp_path, callbacks=[callback], **arguments).train()
    assert callback.watch._kept.steps == 3
    assert callback.watch.plan is None
    assert callback.watch.recorded is not None


def test_a_watch_round_a_watched_trainer_is_refused(tmp_path: Path) -> None:
    callback = transformers_callback()
    training = trainer(tmp_path, callbacks=[callback])
    with (
        watch(training.model),
        pytest.raises(ConfigurationError, match="LlamaForCausalLM is watched already: a process has one watch"),
    ):
        training.train()


def test_what_a_trainer_has_itself_is_not_given_again(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    with pytest.raises(ConfigurationError, match="a Trainer has a run of its own"):
        watch(training, {"gradient_clipping": 1.0})
    with watch(training):
        pass  # nothing was trained
    assert training.callback_handler.callbacks


@pytest.mark.usefixtures("onednn_off")
def test_adapters_of_peft(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(library_model(), config)
    callback = transformers_callback()
    trainer(tmp_path, callbacks=[callback], kept=model).train()
    assert callback.watch.plan.estimate.run.lora_rank == 4
    assert off(callback.watch) == {}


def test_each_training_within_has_its_own_watch(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    training = trainer(tmp_path)
    with watch(training, record=file) as first:
        training.train()
        training.train()
    assert first._kept.ending.outcome == "ran"
    assert off(first) == {}
    assert read(file)["outcome"] == "ran"
    with watch(training.model):
        pass
