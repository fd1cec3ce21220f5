"""Lightning, watched by a callback: for real where it is installed, and in the order in which it calls its hooks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memplan.errors import MissingDependencyError  # noqa: E402
from memplan.measure.watching import MemoryWarning, lightning_callback  # noqa: E402
from memplan.measure.watching.callbacks.lightning import LightningHooks  # noqa: E402
from memplan.measure.watching.settings import checked  # noqa: E402
from memplan.profiles import read  # noqa: E402

from .cases import batch, example, library_model, off  # noqa: E402


class LikeLightning:
    """What of Lightning's Trainer a callback can see, and its loop in automatic optimization, written after what its
    documentation says of hooks and of the closure: training_step, zero_grad and backward run within optimizer.step().
    The real one is held against the same expectations below."""

    def __init__(self, module: torch.nn.Module, callback: LightningHooks, accumulate: int = 1) -> None:
        self.module = module
        self.callback = callback
        self.accumulate_grad_batches = accumulate
        self.optimizers = [torch.optim.AdamW(module.parameters(), lr=1e-4)]
        self.gradient_clip_val = self.gradient_clip_algorithm = None
        self.world_size, self.precision, self.global_step = 1, "32-true", 0

    def fit(self, batches: Iterable[dict[str, Any]]) -> None:
        self.callback.on_train_start(self, self.module)
        try:
            for index, given in enumerate(batches):
                self.callback.on_train_batch_start(self, self.module, given, index)
                self.batch(given, index)
                self.callback.on_train_batch_end(self, self.module, None, given, index)
        except Exception as error:
            self.callback.on_exception(self, self.module, error)
            raise
        self.callback.on_train_end(self, self.module)

    def batch(self, given: dict[str, Any], index: int) -> None:
        kept: list[Any] = []

        def closure() -> Any:
            loss = self.module.training_step(given, index)  # type: ignore[operator]
            scaled = loss / self.accumulate_grad_batches
            kept.extend((scaled, loss.detach().clone()))
            del loss
            if index % self.accumulate_grad_batches == 0:
                self.optimizers[0].zero_grad()
            scaled.backward()
            return scaled

        if (index + 1) % self.accumulate_grad_batches:
            closure()
            return
        self.optimizers[0].step(closure)
        self.global_step += 1


class Plain(torch.nn.Module):
    """A module as Lightning has it."""

    automatic_optimization = True

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in (parts or {"inner": library_model()}).items():
            setattr(self, name, part)

    def training_step(self, given: dict[str, Any], index: int) -> Any:
        return self.inner(**given).loss


def hooks(**settings: Any) -> LightningHooks:
    """The callback without Lightning's own class beneath it."""
    return LightningHooks(checked(settings))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.usefixtures("onednn_off")
def test_every_figure_is_as_planned(accumulate: int, tmp_path: Path) -> None:
    callback = hooks(record=tmp_path / "run.json")
    LikeLightning(Plain(), callback, accumulate).fit(batch() for _ in range(3 * accumulate))
    assert callback.watch is not None
    assert off(callback.watch) == {}
    record = read(tmp_path / "run.json")
    assert record["watched"]["loop"] == "lightning.Trainer"
    assert record["watched"]["steps"] == 3
    forward = record["phases"][0]["at_peak"]
    assert forward["gradients"] == sum(4 * each.numel() for each in library_model().parameters())


def test_an_exception_is_recorded(tmp_path: Path) -> None:
    callback = hooks(record=tmp_path / "run.json")
    batches = [batch(), batch(), {}]
    with pytest.raises(ValueError, match="specify exactly one of"):
        LikeLightning(Plain(), callback).fit(batches)
    record = read(tmp_path / "run.json")
    assert record["outcome"] == "failed"
    assert record["watched"]["steps"] == 2
    assert len(record["phases"]) == 4


def test_what_is_not_modelled_is_named() -> None:
    two = Plain(inner=library_model(), other=library_model())
    callback = hooks()
    with pytest.warns(MemoryWarning, match="Plain holds 2 models of transformers, and plans are of one"):
        LikeLightning(two, callback).fit([batch(), batch()])
    manual = Plain()
    manual.automatic_optimization = False
    with pytest.warns(MemoryWarning, match="manual optimization is not modelled"):
        LikeLightning(manual, hooks()).fit([batch()])
    many = LikeLightning(Plain(), hooks())
    many.world_size = 4
    with pytest.warns(MemoryWarning, match="training on 4 devices is not modelled"):
        many.fit([batch()])


def test_without_lightning_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lightning.pytorch", None)
    monkeypatch.setitem(__import__("sys").modules, "pytorch_lightning", None)
    with pytest.raises(MissingDependencyError, match="Lightning is not installed") as raised:
        lightning_callback()
    assert raised.value.hint == "pip install lightning"


REAL: list[dict[str, Any]] = [
    {},
    {"accumulate_grad_batches": 2},
    {"gradient_clip_val": 1.0},
    {"precision": "bf16-mixed"},
]


@pytest.mark.parametrize("arguments", REAL, ids=str)
@pytest.mark.usefixtures("onednn_off")
def test_the_real_one(arguments: dict[str, Any], tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    inner = library_model()

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def training_step(self, given: Any, index: int) -> Any:
            return self.inner(**given).loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

    callback = lightning_callback(record=tmp_path / "run.json")
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    training = lightning.Trainer(accelerator="cpu", max_steps=3, callbacks=[callback], **quiet, **arguments)
    examples = [example() for _ in range(40)]
    training.fit(Module(), torch.utils.data.DataLoader(examples, batch_size=4))
    assert off(callback.watch) == {}
    assert read(tmp_path / "run.json")["outcome"] == "ran"


def test_on_a_card_its_loop_is_refused() -> None:
    from memplan.config.devices import load_device
    from memplan.measure.watching.callbacks.lightning import subject_of

    training = LikeLightning(Plain(), hooks())
    subject = subject_of(training, training.module)
    assert subject.make_loop is not None
    from memplan.errors import NotModelledError

    with pytest.raises(NotModelledError, match="whose steps begin with gradients, is not modelled on t4"):
        subject.make_loop(SimpleNamespace(), SimpleNamespace(), SimpleNamespace(), load_device("t4"))  # type: ignore[arg-type]
