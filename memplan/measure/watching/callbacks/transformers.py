"""A watch as a callback of transformers' Trainer (transformers/trainer_callback.py)."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback

from memplan.config.library.model import LibraryModel
from memplan.config.run import TrainingRun
from memplan.measure.watching.callbacks.uncaught import Uncaught
from memplan.measure.watching.loops import TRAINER, Loop
from memplan.measure.watching.request import dtype_name, extra_inputs
from memplan.measure.watching.settings import Settings
from memplan.measure.watching.subject import Subject
from memplan.measure.watching.watcher import Watch

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.measure.watching.seams import Observed


class WatchCallback(TrainerCallback):
    """Watches every training of its Trainer, one after another. `watch` is the latest.

    The Trainer does not tell its callbacks of an exception: one that nobody catches is seen, and so is that another
    training begins. `with memplan.watch(trainer):` sees every one.
    """

    def __init__(self, settings: Settings, watch: Watch | None = None, device: Device | None = None) -> None:
        self.settings = settings
        self.watch = watch
        self.device = device
        self._given = watch
        self._uncaught = Uncaught(self.end)

    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        subject = subject_of(args, known, self.device, self.settings.recorded_step)
        if self._given is not None:
            self.watch, self._given = self._given, None
            self.watch.take(subject)
        else:
            self.watch = Watch(subject, self.settings)
            self.watch.hears_of_end = False
            self._uncaught.listen()
        self.watch.begin()

    def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        if self.watch is not None:
            self.watch.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        if self.watch is None or not self.watch.is_running:
            return
        try:
            self.watch.step()
        except Exception as error:  # what is raised here ends the training, and nobody would tell
            self.end(error)
            raise

    def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        self.end(None)

    def end(self, error: BaseException | None) -> None:
        """The training is over, or `error` was raised in it."""
        self._uncaught.leave()
        if self.watch is not None:
            self.watch.end(error)


class WatchedTrainer(Watch):
    """A watch of the training that a Trainer does within it."""

    def __init__(self, trainer: Any, device: Device | None, settings: Settings) -> None:
        super().__init__(Subject(module=trainer.model, device=device, loop_name=TRAINER), settings)
        self._trainer = trainer
        self._callback = WatchCallback(settings, self, device)

    def __enter__(self) -> WatchedTrainer:
        self.check_new()
        self._trainer.add_callback(self._callback)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._trainer.remove_callback(self._callback)
        self._callback.end(error)
        self.end(error)


def subject_of(args: Any, known: dict[str, Any], device: Device | None, recorded_step: int) -> Subject:
    """What a Trainer's arguments say of a run, and what it gives its callbacks."""
    optimizer = known.get("optimizer")
    while type(optimizer).__name__ == "AcceleratedOptimizer":
        optimizer = optimizer.optimizer  # type: ignore[union-attr]
    model: nn.Module | None = known.get("model")
    mixed = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    count = int(args.gradient_accumulation_steps)
    ahead = _fetches_ahead(known.get("train_dataloader"), recorded_step * count)

    def make_loop(config: LibraryModel, run: TrainingRun, observed: Observed, place: Device) -> Loop:
        counted = any(each.name == "num_items_in_batch" for each in observed.inputs)
        extra = extra_inputs(config, run, observed.inputs)
        notes = []
        if args.dataloader_num_workers:
            notes.append("worker processes send no batch before it is asked for")
        if place.backend == "cuda":
            notes.append("held against PyTorch's CUDA build on a simulated card alone, with attention written out")
            if run.optimizer_implementation == "foreach":
                notes.append("one group of parameters: the Trainer's two need smaller temporaries")
        return Loop(
            name=TRAINER,
            extra_inputs=tuple((each.shape, dtype_name(each.dtype)) for each in extra),
            batches=count + int(ahead and place.backend == "cpu"),  # it goes to a card when its turn comes
            notes=tuple(notes),
            counted_items=counted,
            scaled_by_ranks=counted and bool(args.average_tokens_across_devices),
            converts_outputs=observed.autocast is not None,
        )

    return Subject(
        module=model,
        device=device,
        changes={
            "gradient_accumulation_steps": count,
            "gradient_clipping": float(args.max_grad_norm or 0.0),
            **({"gradient_scaling": "auto"} if args.fp16 else {}),
        },
        optimizers=[] if optimizer is None else [optimizer],
        autocast=mixed,
        loop_name=TRAINER,
        make_loop=make_loop,
        known_at_call=True,
        refusal=_refusal(args, optimizer),
    )


def _fetches_ahead(loader: Any, batches: int) -> bool:
    """Whether there is a batch behind so many, which accelerate's loader has fetched by then."""
    try:
        return batches % len(loader) != 0
    except TypeError:  # it has no length
        return True


_OTHERS = {
    "deepspeed": "DeepSpeed",
    "torch_compile": "torch.compile",
    "label_smoothing_factor": "label smoothing",
    "neftune_noise_alpha": "NEFTune",
    "use_liger_kernel": "Liger's kernels",
    "fsdp": "FSDP",
}


def _refusal(args: Any, optimizer: Any) -> str:
    """What of a Trainer is not modelled; "" where all is."""
    for name, what in _OTHERS.items():
        if getattr(args, name, None):
            return f"{what} ({name}) is not modelled"
    if args.world_size > 1 or args.n_gpu > 1:
        return f"training on {max(args.world_size, args.n_gpu)} devices is not modelled"
    if type(optimizer).__module__.partition(".")[0] == "bitsandbytes":
        return f"{type(optimizer).__name__} as Trainer uses it, with embeddings in 32 bits, is not modelled"
    return ""
