"""A watch as a callback of Lightning's Trainer (lightning/pytorch/callbacks/callback.py)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from memplan.config.library.model import LibraryModel
from memplan.config.run import TrainingRun
from memplan.errors import MissingDependencyError, NotModelledError
from memplan.measure.watching.loops import LIGHTNING, Loop
from memplan.measure.watching.request import dtype_name, extra_inputs
from memplan.measure.watching.settings import Settings
from memplan.measure.watching.subject import Subject
from memplan.measure.watching.watcher import Watch

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.measure.watching.seams import Observed


def make_callback(settings: Settings) -> Any:
    """The callback. Raises MissingDependencyError where Lightning is not installed, by neither of its names."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            base = import_module(name).Callback
        except ImportError:
            continue
        return type("WatchCallback", (LightningHooks, base), {})(settings)
    raise MissingDependencyError("lightning_callback: Lightning is not installed", "pip install lightning")


class LightningHooks:
    """Watches every training of its Trainer, one after another. `watch` is the latest."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.watch: Watch | None = None
        self._steps = 0  # that the optimizer had taken
        self._between = True  # the next batch begins a step

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when the first batch is about to be fetched."""
        self.watch = Watch(subject_of(trainer, pl_module), self.settings)
        self.watch.hears_of_end = False
        self._steps, self._between = int(trainer.global_step), True
        self.watch.begin()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Called before training_step."""
        if self.watch is not None and self._between:
            self.watch.begin_step()
        self._between = False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Called behind the optimizer's step, where the batch ends an accumulation."""
        steps = int(trainer.global_step)
        if self.watch is not None and self.watch.is_running and steps > self._steps:
            self._steps, self._between = steps, True
            self.watch.step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Called where the training ends well."""
        if self.watch is not None:
            self.watch.end(None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Called where it does not."""
        if self.watch is not None:
            self.watch.end(exception)


def subject_of(trainer: Any, pl_module: nn.Module) -> Subject:
    """What a Trainer and its module say of a run."""
    models = _models_in(pl_module)
    module = models[0] if len(models) == 1 else None
    clip = float(trainer.gradient_clip_val or 0.0)

    def make_loop(config: LibraryModel, run: TrainingRun, observed: Observed, place: Device) -> Loop:
        if place.backend != "cpu":
            raise NotModelledError(
                f"Lightning's loop, whose steps begin with gradients, is not modelled on {place.name}",
                "memplan.watch(model, run, ...) round your own loop is",
            )
        extra = extra_inputs(config, run, observed.inputs)
        return Loop(LIGHTNING, tuple((each.shape, dtype_name(each.dtype)) for each in extra))

    return Subject(
        module=module if module is not None else pl_module,
        changes={
            "gradient_accumulation_steps": int(trainer.accumulate_grad_batches),
            "gradient_clipping": clip,
            **({"gradient_scaling": "auto"} if str(trainer.precision) == "16-mixed" else {}),
        },
        optimizers=list(trainer.optimizers),
        loop_name=LIGHTNING,
        make_loop=make_loop,
        known_at_call=True,
        refusal=_refusal(trainer, pl_module, len(models)),
    )


def _models_in(module: nn.Module) -> list[nn.Module]:
    """The models of transformers in a module, those of peft round them included, outermost first."""
    found: list[nn.Module] = []
    inner: set[int] = set()
    for each in module.modules():
        if id(each) not in inner and hasattr(getattr(each, "config", None), "model_type"):
            found.append(each)
            inner |= {id(part) for part in each.modules()}
    return found


def _refusal(trainer: Any, pl_module: Any, models: int) -> str:
    """What of a Trainer is not modelled; "" where all is."""
    if models != 1:
        many = "no model" if not models else f"{models} models"
        return f"{type(pl_module).__name__} holds {many} of transformers, and plans are of one"
    if not pl_module.automatic_optimization:
        return "manual optimization is not modelled"
    if trainer.world_size > 1:
        return f"training on {trainer.world_size} devices is not modelled"
    if trainer.gradient_clip_val and str(trainer.gradient_clip_algorithm or "norm") not in (
        "norm",
        "GradClipAlgorithmType.NORM",
    ):
        return f"clipping by {trainer.gradient_clip_algorithm} is not modelled"
    return ""
