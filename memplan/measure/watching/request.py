"""What a run asks for, read off the run itself: its model, what that is called with, and the optimizer.

What cannot be told is refused by name, and nothing is guessed: NotModelledError says what is in the way, and a watch
then goes on without a plan.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from memplan.config.library.model import LibraryModel, library_model_from, read_values
from memplan.config.library.types import library_type
from memplan.config.run import TrainingRun
from memplan.config.validate import run_from
from memplan.errors import NotModelledError
from memplan.huggingface.releases import check_release
from memplan.measure.tracing.call import DTYPE_NAMES
from memplan.measure.watching.place import device_at
from memplan.measure.watching.seams import Input, Observed

if TYPE_CHECKING:
    from memplan.config.device import Device

GIVE = "give model= and run= to plan it all the same"

_ATTENTION = {"eager": "naive", "sdpa": "sdpa"}
_WEIGHTS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_OPTIMIZERS = {
    "torch.optim.adamw.AdamW": "adamw",
    "torch.optim.adam.Adam": "adam",
    "torch.optim.sgd.SGD": "sgd",
    "torch.optim._adafactor.Adafactor": "adafactor",
    "bitsandbytes.optim.adamw.AdamW8bit": "adamw-8bit",
    "bitsandbytes.optim.adamw.PagedAdamW": "paged-adamw",
    "bitsandbytes.optim.adamw.PagedAdamW8bit": "paged-adamw-8bit",
}
_KNOWN_INPUTS = ("input_ids", "labels", "pixel_values", "num_items_in_batch")


def base_of(module: nn.Module) -> nn.Module:
    """The library's own model, in what peft makes of it."""
    inner: nn.Module = module.get_base_model() if hasattr(module, "get_base_model") else module  # type: ignore[operator]
    return inner


def model_of(module: nn.Module) -> LibraryModel:
    """The configuration of a module of transformers."""
    base: Any = base_of(module)
    name = type(base).__name__
    if name == "OptimizedModule":
        raise NotModelledError("a module that torch.compile has made is not modelled", "watch the module in eager mode")
    config: Any = getattr(base, "config", None)
    if not hasattr(config, "to_dict") or not hasattr(config, "model_type"):
        raise NotModelledError(f"{name} is no model of transformers", f"{GIVE}, or see `memplan trace`")
    import transformers

    check_release(transformers.__version__)
    values = {**config.to_dict(), "architectures": [name]}
    kind = library_type(values.get("model_type"), name)
    read, origins = read_values(kind, values, name)
    return library_model_from(kind, read, lambda field: f"{name}: {origins[field]}: " if field in origins else "")


def device_of(module: nn.Module) -> Device:
    """Where the parameters of a module are: the CPU with as many threads as PyTorch uses, or a card of this machine."""
    places = {parameter.device for parameter in module.parameters()}
    if len(places) != 1:
        raise NotModelledError(f"a model on {len(places)} devices is not modelled", "a plan is of one device")
    return device_at(places.pop())


def run_of(module: nn.Module, model: LibraryModel, observed: Observed, changes: Mapping[str, object]) -> TrainingRun:
    """The run of a module of transformers, as it was observed; `changes` are what is known better."""
    base: Any = base_of(module)
    values: dict[str, object] = {
        **_batch(model, observed),
        **_precision(module, observed),
        **_optimizer(observed.optimizers),
        **_adapters(module),
        "attention": _attention(base),
        "recompute": "full" if _checkpoints(base) else "none",
        "gradient_clipping": min(observed.clipped, sys.float_info.max),  # infinite where only the norm is asked for
    }
    return run_from(model, {**values, **changes})


def extra_inputs(model: LibraryModel, run: TrainingRun, inputs: Sequence[Input]) -> tuple[Input, ...]:
    """What the model is called with and the batch of an estimate does not have."""
    known = (*_KNOWN_INPUTS, *(("attention_mask",) if run.padding else ()))
    return tuple(each for each in inputs if each.name not in known)


def notes_of(module: nn.Module, model: LibraryModel, run: TrainingRun, observed: Observed) -> tuple[str, ...]:
    """What the plan of a loop of one's own takes for granted, and what is known not to be so."""
    notes = ["the loop is the run's own, and planned as the one that estimates are made for"]
    extra = [each.name or "an input without a name" for each in extra_inputs(model, run, observed.inputs)]
    if extra:
        notes.append(f"the model is called with {', '.join(extra)} as well, which is not in the plan")
    if getattr(base_of(module).config, "use_cache", False):
        notes.append("the model's configuration has use_cache on, and the plan is made for use_cache=False")
    return tuple(notes)


def _batch(model: LibraryModel, observed: Observed) -> dict[str, object]:
    shapes = {each.name: each.shape for each in observed.inputs}
    for name in ("decoder_input_ids", "inputs_embeds"):
        if name in shapes:
            raise NotModelledError(f"{model.head_class} called with {name} is not modelled", GIVE)
    if "labels" not in shapes:
        raise NotModelledError(
            f"{model.head_class} gets no labels, so the loss is made outside of it, which is not modelled", GIVE
        )
    given: dict[str, object] = {"gradient_accumulation_steps": max(observed.forwards, 1)}
    if model.tokens_of_an_image:
        return {**given, "micro_batch_size": shapes["labels"][0]}
    if "input_ids" not in shapes or len(shapes["input_ids"]) != 2:
        raise NotModelledError(f"{model.head_class} gets no input_ids of two dimensions", GIVE)
    rows, length = shapes["input_ids"]
    given |= {"micro_batch_size": rows, "padding": observed.hiding}
    if model.architecture == "encoder-decoder":
        return {**given, "source_length": length, "target_length": shapes["labels"][1]}
    return {**given, "sequence_length": length}


def _precision(module: nn.Module, observed: Observed) -> dict[str, object]:
    own = [parameter.dtype for name, parameter in module.named_parameters() if "lora_" not in name]
    if len(set(own)) != 1 or own[0] not in _WEIGHTS:
        names = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in own}))
        raise NotModelledError(f"weights in {names} are not modelled", "known are fp32, bf16 and fp16, all alike")
    weights = _WEIGHTS[own[0]]
    if observed.autocast is None:
        return {"precision": weights, **({"gradient_scaling": "none"} if weights == "fp16" else {})}
    cast = _WEIGHTS.get(observed.autocast)
    if weights != "fp32" or cast not in ("bf16", "fp16"):
        raise NotModelledError(f"autocast to {observed.autocast} over {weights} weights is not modelled", GIVE)
    scaled = any(scaler.is_enabled() for scaler in observed.scalers)
    return {
        "precision": f"{cast}-mixed",
        **({"gradient_scaling": "none"} if cast == "fp16" and not scaled else {}),
    }


def _optimizer(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, object]:
    if len(optimizers) != 1:
        many = "no optimizer is known" if not optimizers else f"{len(optimizers)} optimizers are not modelled"
        raise NotModelledError(many, "it is known once it takes a step")
    optimizer = optimizers[0]
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    if kind not in _OPTIMIZERS:
        raise NotModelledError(
            f"the optimizer {kind} is not modelled",
            "known are AdamW, Adam, SGD and Adafactor of torch.optim, and AdamW8bit of bitsandbytes",
        )
    name, groups = _OPTIMIZERS[kind], optimizer.param_groups
    for setting in ("amsgrad", "capturable", "differentiable"):
        if any(group.get(setting) for group in groups):
            raise NotModelledError(f"{type(optimizer).__name__} with {setting} is not modelled", GIVE)
    momenta = {float(group.get("momentum") or 0) for group in groups}
    if len(momenta) > 1:
        raise NotModelledError(f"{type(optimizer).__name__} with several momenta is not modelled", GIVE)
    return {
        "optimizer": name,
        "optimizer_implementation": _implementation(groups),
        **({"momentum": momenta.pop()} if name == "sgd" else {}),
    }


def _implementation(groups: Sequence[Mapping[str, Any]]) -> str:
    """What a step takes of for-loop, foreach and fused. Left open it is foreach on a card and for-loop elsewhere
    (torch/optim/optimizer.py, _default_to_fused_or_foreach)."""
    if any(group.get("fused") for group in groups):
        return "fused"
    chosen = {group.get("foreach") for group in groups}
    if chosen == {True}:
        return "foreach"
    on_card = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return "foreach" if chosen == {None} and on_card and "foreach" in groups[0] else "for-loop"


def _attention(base: Any) -> str:
    asked = getattr(base.config, "_attn_implementation", None)
    if asked not in _ATTENTION:
        raise NotModelledError(f"attention: {asked} is not modelled", f"known are {', '.join(_ATTENTION)}")
    return _ATTENTION[asked]


def _checkpoints(base: Any) -> bool:
    """Whether every layer is checkpointed, as memplan models it."""
    asked = [
        bool(module.gradient_checkpointing) for module in base.modules() if hasattr(module, "gradient_checkpointing")
    ]
    if not any(asked):
        return False
    functions = [getattr(module, "_gradient_checkpointing_func", None) for module in base.modules()]
    keywords = [getattr(function, "keywords", None) or {} for function in functions if function is not None]
    if any(each.get("use_reentrant", True) for each in keywords):
        raise NotModelledError("activation checkpointing with use_reentrant=True is not modelled", "give False")
    if any(
        getattr(function, "func", torch.utils.checkpoint.checkpoint) is not torch.utils.checkpoint.checkpoint
        for function in functions
        if function is not None
    ):
        raise NotModelledError("activation checkpointing that offloads is not modelled", GIVE)
    return True


def _adapters(module: nn.Module) -> dict[str, object]:
    """LoRA as peft has it, or weights that are frozen by name."""
    configs = getattr(module, "peft_config", None)
    if configs is None or not hasattr(module, "get_base_model"):
        frozen = tuple(name for name, parameter in module.named_parameters() if not parameter.requires_grad)
        return {"frozen": frozen} if frozen else {}
    (config,) = configs.values() if len(configs) == 1 else (None,)
    kind = str(getattr(getattr(config, "peft_type", None), "value", None))
    odd = [
        name
        for name in ("use_dora", "modules_to_save", "layers_to_transform", "rank_pattern", "trainable_token_indices")
        if getattr(config, name, None)
    ]
    if kind != "LORA" or odd or getattr(config, "bias", "none") != "none":
        raise NotModelledError(f"adapters of peft ({kind}{', ' if odd else ''}{', '.join(odd)}) are not modelled", GIVE)
    assert config is not None
    dtypes = {parameter.dtype for name, parameter in module.named_parameters() if "lora_" in name}
    return {
        "lora_rank": int(config.r),
        "lora_targets": tuple(sorted(config.target_modules)),
        "lora_dropout": float(config.lora_dropout),
        "lora_dtype": "bf16" if dtypes == {torch.bfloat16} else "fp32",
    }


def dtype_name(dtype: torch.dtype) -> str:
    """memplan's name for a dtype. Raises NotModelledError where it has none."""
    if dtype not in DTYPE_NAMES:
        raise NotModelledError(f"inputs of {dtype} are not modelled", GIVE)
    return DTYPE_NAMES[dtype]
