"""Which settings of a training run go together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from memplan.config.adapters import refuse_unmodelled_adapters, target_problems
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.fields import Problem
    from memplan.config.models import Model

    Sound = Callable[..., bool]

PAGED = ("paged-adamw", "paged-adamw-8bit")
QUANTISED = ("adamw-8bit", "paged-adamw-8bit")


def weight_dtype(run: TrainingRun) -> str:
    """The dtype the weights are trained in: autocast leaves them in fp32."""
    return run.precision if run.precision in ("bf16", "fp16") else "fp32"


def scales_gradients(run: TrainingRun) -> bool:
    """Whether the loss is scaled by torch.amp.GradScaler."""
    if run.gradient_scaling == "auto":
        return run.precision == "fp16-mixed" or (run.precision == "fp16" and run.master_weights != "none")
    return run.gradient_scaling == "dynamic"


def setup_problems(model: Model, run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    """What contradicts itself in a run, whatever it runs on."""
    if sound("momentum", "optimizer") and run.momentum and run.optimizer != "sgd":
        yield "momentum", f'must be 0: only optimizer = "sgd" has it, not "{run.optimizer}"'
    yield from _precision_problems(run, sound)
    yield from _step_problems(run, sound)
    yield from _graph_problems(model, run, sound)
    yield from _adapter_problems(model, run, sound)


def _precision_problems(run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    if not sound("precision", "gradient_scaling", "master_weights"):
        return
    masters = run.master_weights != "none"
    if masters and run.precision not in ("bf16", "fp16"):
        yield "master_weights", f'must be "none": they go with precision = "bf16" or "fp16", not "{run.precision}"'
    if run.precision == "fp16" and not masters:
        if run.gradient_scaling == "auto":
            yield (
                "gradient_scaling",
                'is missing: torch.amp.GradScaler refuses fp16 gradients, so fp16 weights train unscaled; say "none" '
                'where that is meant, or take precision = "fp16-mixed" or master_weights',
            )
        elif run.gradient_scaling == "dynamic":
            yield (
                "gradient_scaling",
                'must be "none" for fp16 weights without master_weights: torch.amp.GradScaler refuses fp16 gradients',
            )
    elif run.gradient_scaling == "dynamic" and not run.precision.startswith("fp16"):
        yield "gradient_scaling", f'must be left out: only fp16 gradients are scaled, not those of "{run.precision}"'


_IMPLEMENTATIONS = {"adafactor": ("for-loop", "foreach")} | dict.fromkeys(("lion", *PAGED, "adamw-8bit"), ("for-loop",))


def _step_problems(run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    if sound("optimizer", "optimizer_implementation"):
        known = _IMPLEMENTATIONS.get(run.optimizer, (run.optimizer_implementation,))
        if run.optimizer_implementation not in known:
            one = f'must be "{known[0]}"' if len(known) == 1 else f"must be one of {', '.join(known)}"
            how = run.optimizer_implementation
            yield "optimizer_implementation", f'{one}: optimizer = "{run.optimizer}" has none called "{how}"'
    if not sound("optimizer_in_backward") or not run.optimizer_in_backward:
        return
    why = "must be left out with optimizer_in_backward: "
    if sound("gradient_accumulation_steps") and run.gradient_accumulation_steps > 1:
        yield "gradient_accumulation_steps", f"{why}each gradient is used up at once"
    if sound("gradient_clipping") and run.gradient_clipping:
        yield "gradient_clipping", f"{why}the norm of all gradients is never known"
    if sound("precision", "gradient_scaling", "master_weights"):
        if run.master_weights != "none":
            yield "master_weights", f"{why}they are updated all at once"
        elif scales_gradients(run):
            yield "gradient_scaling", 'must be "none" with optimizer_in_backward: whether a step is taken is not known'


def _graph_problems(model: Model, run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    if sound("recompute", "recompute_every") and run.recompute_every > 1 and run.recompute != "full":
        yield "recompute_every", f'must be 1: only recompute = "full" goes by layers, not "{run.recompute}"'
    if sound("loss", "loss_chunks") and run.loss == "whole" and run.loss_chunks != 8:
        yield "loss_chunks", 'must be left out: only loss = "chunked" or "fused" has chunks, not "whole"'
    if sound("loss") and run.loss != "whole" and isinstance(model, Transformer) and model.head != "language_modelling":
        yield "loss", f'must be "whole": the head "{model.head}" has no vocabulary to go through in chunks'
    if sound("frozen_layers") and run.frozen_layers > (layers := _layers(model)):
        yield "frozen_layers", f"must be at most the model's {layers} layers, not {run.frozen_layers}"


def _layers(model: Model) -> int:
    return model.num_layers + (model.num_encoder_layers if model.architecture == "encoder-decoder" else 0)


def _adapter_problems(model: Model, run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    if not sound("lora_rank"):
        return
    if run.lora_rank:
        for name in ("frozen", "frozen_layers"):
            if sound(name) and getattr(run, name):
                yield name, "must be left out with lora_rank: every weight of the model is frozen"
        if sound("lora_targets"):
            yield from target_problems(model, run)
        if sound("double_quantization", "weight_quantization") and run.weight_quantization != "nf4":
            yield from _double_problems(run)
        return
    for name, default in (("lora_targets", ()), ("lora_dropout", 0.0), ("lora_dtype", "fp32")):
        if sound(name) and getattr(run, name) != default:
            yield name, "must be left out: only adapters have it, which need lora_rank"
    if sound("weight_quantization") and run.weight_quantization != "none":
        yield (
            "weight_quantization",
            f"must be left out: {run.weight_quantization} weights cannot be trained; give lora_rank to train adapters "
            "beside them (QLoRA)",
        )


def _double_problems(run: TrainingRun) -> Iterator[Problem]:
    if not run.double_quantization:
        yield (
            "double_quantization",
            f'must be left out: only nf4 has it, not weight_quantization = "{run.weight_quantization}"',
        )


def refuse_unmodelled_setup(model: Model, run: TrainingRun, device: Device) -> None:
    """Raises NotModelledError for a set-up that memplan has no rules for."""
    if run.optimizer in PAGED and device.backend == "cpu":
        raise NotModelledError(
            f"optimizer: {run.optimizer} pages states out of a card's memory, which {device.name} does not have",
            f"use --optimizer {run.optimizer.removeprefix('paged-')} or name a card",
        )
    refuse_unmodelled_adapters(model, run, device)
    _refuse_unmodelled_graph(model, run)


def _refuse_unmodelled_graph(model: Model, run: TrainingRun) -> None:
    if isinstance(model, Transformer):
        if run.loss == "fused" and model.logit_soft_cap:
            raise NotModelledError(
                "loss: fused is not modelled with logit_soft_cap", "use --loss chunked, or --set logit_soft_cap=0"
            )
        return
    if run.recompute == "attention":
        raise NotModelledError(
            f"recompute: {model.implementation} checkpoints whole layers, not attention alone",
            "use --recompute full or --recompute none",
        )
    if run.recompute_every > 1:
        raise NotModelledError(
            f"recompute_every: {model.implementation} checkpoints every layer, not every {run.recompute_every}",
            "leave it out",
        )
    if run.loss != "whole":
        raise NotModelledError(
            f"loss: {model.head_class} of {model.implementation} makes all logits at once, so {run.loss} cannot be had",
            "use --loss whole",
        )
