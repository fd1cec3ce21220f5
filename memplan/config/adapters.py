"""Which linear layers get an adapter (https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from memplan.config.fields import Problem, did_you_mean
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run

DEFAULT_TARGETS = ("query", "value")
"""The paper's (section 4.2)."""

LIBRARY_DEFAULTS: dict[str, tuple[str, ...]] = {
    "bart": ("q_proj", "v_proj"),
    "bert": ("query", "value"),
    "bloom": ("query_key_value",),
    "deberta-v2": ("query_proj", "value_proj"),
    "electra": ("query", "value"),
    "falcon": ("query_key_value",),
    "gemma2": ("q_proj", "v_proj"),
    "gemma3_text": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "mixtral": ("q_proj", "v_proj"),
    "opt": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
    "roberta": ("query", "value"),
    "t5": ("q", "v"),
}
"""By the library's model_type, where peft has targets of its own (peft/utils/constants.py,
TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING)."""


def is_target(path: str, targets: Iterable[str]) -> bool:
    """Whether a module is meant: a target is the end of its dotted path (peft/tuners/tuners_utils.py,
    check_target_module_exists)."""
    return any(path == target or path.endswith(f".{target}") for target in targets)


def linear_paths(model: Transformer) -> tuple[str, ...]:
    """The paths of the linear layers of the reference transformer, with a star for a layer's number."""
    attention = ["query", "key", "value", "output"]
    if model.kv_lora_rank:
        attention = [*(["query_down"] if model.q_lora_rank else []), "query", "down", "up", "output"]
    feedforward = ["router"] if model.num_experts else [*(["gate"] if model.gated else []), "up", "down"]
    stacks = {"encoder": ("encoder",), "decoder": ("decoder",), "encoder-decoder": ("encoder", "decoder")}
    paths = []
    for stack in stacks[model.architecture]:
        layer = [f"attention.{name}" for name in attention]
        if model.architecture == "encoder-decoder" and stack == "decoder":
            layer += [f"cross_attention.{name}" for name in attention]
        layer += [f"feedforward.{name}" for name in feedforward]
        paths += [f"{stack}.layers.*.{name}" for name in layer]
    if model.head == "language_modelling":
        return (*paths, *(["head.transform"] if model.head_transform else []), "head.projection")
    return (*paths, *(["head.pooler"] if model.pooler else []), "head.classifier")


def target_problems(model: Model, run: TrainingRun) -> Iterator[Problem]:
    """What is wrong with `lora_targets`. Names of a library's model are checked where it is built."""
    if not isinstance(model, Transformer):
        if not run.lora_targets and model.model_type not in LIBRARY_DEFAULTS:
            yield (
                "lora_targets",
                f"is missing: peft has no targets of its own for {model.model_type}; name linear layers of the model",
            )
        return
    paths = linear_paths(model)
    if not run.lora_targets and model.kv_lora_rank:
        yield (
            "lora_targets",
            "is missing: latent attention has no value; name some of " + ", ".join(names_of(paths)),
        )
    yield from unknown_targets(paths, run.lora_targets)


def unknown_targets(paths: Iterable[str], targets: Iterable[str]) -> Iterator[Problem]:
    """A problem for every target that is the end of none of these paths."""
    paths = tuple(paths)
    for target in targets:
        if not any(is_target(path, (target,)) for path in paths):
            names = names_of(paths)
            nearest = did_you_mean(target.rpartition(".")[2], names) or f"; there are {', '.join(names)}"
            yield "lora_targets", f'"{target}" is no linear layer of the model{nearest}'


def names_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The last names of these paths, each once."""
    return tuple(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def with_targets(model: Model, run: TrainingRun) -> TrainingRun:
    """The run with the layers named that get adapters, where it has some and left that open."""
    if not run.lora_rank or run.lora_targets:
        return run
    if isinstance(model, Transformer):
        return replace(run, lora_targets=DEFAULT_TARGETS)
    return replace(run, lora_targets=LIBRARY_DEFAULTS[model.model_type])


EXPERT_MODELS = ("deepseek_v2", "deepseek_v3", "qwen3_moe")
EXPERT_TARGETS = ("gate", "gate_proj", "up_proj", "down_proj")
"""Where these names go to the stacked matrices of experts (peft/utils/transformers_weight_conversion.py)."""


QUANTISED = ("bart", "bert", "electra", "gpt2", "llama", "mistral", "t5")
"""The library's model types whose quantised weights have been held against real runs. Experts are no linear layers, and
other types use their layers in ways that have to be looked at first."""


def refuse_unmodelled_adapters(model: Model, run: TrainingRun, device: Device) -> None:
    """Raises NotModelledError for adapters that memplan has no rules for."""
    if isinstance(model, Transformer):
        refuse_unmodelled_quantization(model, run.weight_quantization)
        return
    kind = run.weight_quantization
    if kind != "none" and (device.backend == "cuda" or model.model_type not in QUANTISED):
        where = f"on {device.name}" if device.backend == "cuda" else f"of {model.model_type} models"
        raise NotModelledError(
            f"weight_quantization: bitsandbytes' {kind} weights {where} are not modelled",
            "leave it out, or describe the model as memplan's own",
        )
    if kind == "int8" and run.precision.endswith("-mixed"):
        raise NotModelledError(
            f"weight_quantization: bitsandbytes' int8 weights in {run.precision} are not modelled",
            "use --precision bf16",
        )
    if kind != "none" and run.lora_dtype == "bf16":
        raise NotModelledError(f"lora_dtype: peft has no bf16 adapters over {kind} weights", "use fp32")
    if run.lora_dtype == "bf16" and run.precision != "bf16":
        raise NotModelledError(
            f"lora_dtype: peft has no bf16 adapters over the fp32 weights of {run.precision}",
            "use fp32, or --precision bf16",
        )
    for target in run.lora_targets if model.model_type in EXPERT_MODELS else ():
        if target.rpartition(".")[2] in EXPERT_TARGETS:
            raise NotModelledError(
                f"lora_targets: {target} of {model.model_type} means the experts' matrices as well, whose adapters are "
                "not modelled",
                "name layers of the attention, such as q_proj",
            )


def refuse_unmodelled_quantization(model: Transformer, kind: str, group_size: int = 128) -> None:
    """Raises NotModelledError where the reference transformer's weights do not go into the format `kind`."""
    if kind == "none":
        return
    if model.num_experts:
        raise NotModelledError(
            f"weight_quantization: {kind} experts are not modelled", "leave it out, or use --set num_experts=0"
        )
    if kind not in ("gptq", "awq"):
        return
    for name, (inputs, outputs) in _linear_sizes(model).items():
        if inputs % group_size or inputs % 8 or outputs % 8:
            raise NotModelledError(
                f"weight_quantization: {kind} packs eight weights to an integer, in groups of {group_size} inputs: "
                f"{name} has {inputs} inputs and {outputs} outputs",
                "use --quantization-group-size with a divisor of its inputs, or another format",
            )


def _linear_sizes(model: Transformer) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the linear layers within a layer."""
    hidden, inner, heads = model.hidden_size, model.intermediate_size, model.num_attention_heads
    width = heads * model.head_dim
    sizes = {"up": (hidden, inner), "down": (inner, hidden)}
    if not model.kv_lora_rank:
        groups = model.num_key_value_heads * model.head_dim
        return sizes | {"query": (hidden, width), "key": (hidden, groups), "output": (width, hidden)}
    if model.q_lora_rank:
        sizes["attention.query_down"] = (hidden, model.q_lora_rank)
    value = model.value_head_dim or model.head_dim
    return sizes | {
        "attention.query": (model.q_lora_rank or hidden, width),
        "attention.down": (hidden, model.kv_lora_rank + model.rope_head_dim),
        "attention.up": (model.kv_lora_rank, heads * (model.head_dim - model.rope_head_dim + value)),
        "attention.output": (heads * value, hidden),
    }


FORMATS = {
    "int8": "int8 weights in bitsandbytes' tensors (Int8Params), inputs not quantised: a scale in fp32 for each row",
    "nf4": "nf4 weights in bitsandbytes' tensors (Params4bit): 64 weights share a scale, each layer has its own tables",
    "gptq": "gptq weights in AutoGPTQ's tensors, with the number of each input's group",
    "awq": "awq weights in AutoAWQ's tensors",
    "fp8": "fp8 weights in FBGEMM's tensors: a scale in fp32 for each output",
}


def assumptions(model: Model, run: Run, device: Device) -> tuple[str, ...]:
    """What an estimate with adapters or quantised weights takes for granted."""
    lines = []
    if isinstance(run, TrainingRun) and run.lora_rank:
        peft = "memplan's own adapters, which compute as those of peft 0.21"
        if not isinstance(model, Transformer):
            peft = "adapters as get_peft_model of peft 0.21 puts them there, all else frozen"
            if run.recompute == "full" and not model.tokens_of_an_image:
                peft += "; checkpointing asks for gradients of the embeddings' output"
        lines.append(f"{peft}: rank {run.lora_rank}, {run.lora_dtype}, on {', '.join(run.lora_targets)}")
    if run.weight_quantization != "none":
        lines.append(FORMATS[run.weight_quantization])
        if isinstance(model, Transformer):
            lines.append(
                "quantised are the linear layers within the stacks' layers; a product makes its weight whole in plain "
                "PyTorch first, where the libraries' kernels may take less"
            )
        else:
            lines.append(
                "bitsandbytes 0.50 in training on the CPU, in all linear layers but the output's; the dtype that is "
                "computed in is the run's (bnb_4bit_compute_dtype)"
            )
    if lines and device.backend == "cuda":
        lines.append("adapters and quantised weights have not been held against runs on a card")
    return tuple(lines)
