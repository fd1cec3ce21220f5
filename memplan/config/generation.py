"""Whether a model can write as an inference run asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from memplan.config.adapters import refuse_unmodelled_quantization
from memplan.config.fields import Problem, check_fields, lines_of, nowhere, refuse
from memplan.config.inference import InferenceRun
from memplan.config.kernels import kernel_problem, with_kernel
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model

    Sound = Callable[..., bool]

_LENGTHS = ("prompt_length", "source_length")
"""In the dataclass 0 stands for one that was not given."""

_OF_WRITING = ("new_tokens", "cache", "cache_dtype", "cache_block_size", "logits", "sampling")
"""Fields that say nothing of a model that only reads."""


def writes(model: Transformer) -> bool:
    """Whether a model can write: a language model that reads from left to right."""
    return model.architecture != "encoder" and model.head == "language_modelling"


def pads_prompts(model: Transformer, run: InferenceRun) -> bool:
    """Whether there is a padding mask for what is not read by the encoder of an encoder-decoder. A decoder's prompt of
    a single token, as encoder-decoders have it, needs none."""
    return run.padding and (model.architecture != "encoder-decoder" or run.prompt_length > 1)


def validate_inference(model: Model, run: InferenceRun, device: Device) -> InferenceRun:
    """The run, checked against a validated model and a device, its kernel and its prompt resolved.

    Raises one ConfigurationError that names every field that is wrong, or NotModelledError for what has no rule.
    """
    values = {name: getattr(run, name) for name in InferenceRun.__dataclass_fields__}
    checked = inference_from(model, {name: value for name, value in values.items() if value or name not in _LENGTHS})
    if not isinstance(model, Transformer):
        from memplan.config.library.runs import refuse_unmodelled, refuse_unmodelled_generation

        refuse_unmodelled(model, checked, device)
        refuse_unmodelled_generation(model, checked, device)
        return checked
    refuse_unmodelled_quantization(model, checked.weight_quantization, checked.quantization_group_size)
    # evaluation drops nothing out, which is what decides for training
    still = replace(model, attention_dropout=0.0)
    checked = with_kernel(still, checked, device)
    _refuse_unmodelled(still, checked, device)
    return checked


def inference_from(model: Model, values: Mapping[str, object], locate: Callable[[str], str] = nowhere) -> InferenceRun:
    """An InferenceRun of these fields, checked against the model but not yet against a device."""
    problems = check_inference_fields(values)
    wrong = {name for name, _ in problems}
    sound = check_fields(InferenceRun, values)[0]
    run = InferenceRun(**{name: value for name, value in sound.items() if name not in wrong})
    if model.architecture == "encoder-decoder" and not run.prompt_length and "prompt_length" not in wrong:
        run = replace(run, prompt_length=1)
    problems += _problems(model, run, lambda *names: wrong.isdisjoint(names))
    if problems:
        refuse(lines_of(problems, locate))
    return run


def check_inference_fields(values: Mapping[str, object]) -> list[Problem]:
    """The problems of a run's fields by themselves, where a length that is given as 0 is one of them."""
    zeros = [
        (name, "must be at least 1, not 0") for name in _LENGTHS if values.get(name) == 0 and values[name] is not False
    ]
    problems = []
    for name, text in check_fields(InferenceRun, values)[1]:
        if name in TrainingRun.__dataclass_fields__ and name not in InferenceRun.__dataclass_fields__:
            instead = "; say prompt_length and new_tokens" if name == "sequence_length" else ""
            text = f'belongs to mode = "train"{instead}'
        problems.append((name, text))
    return problems + zeros


def _problems(model: Model, run: InferenceRun, sound: Sound) -> Iterator[Problem]:
    yield from _length_problems(model, run, sound)
    for name, default, wants, value in (
        ("cache_block_size", 16, "cache", "paged"),
        ("quantization_group_size", 128, "weight_quantization", "gptq or awq"),
        ("double_quantization", True, "weight_quantization", "nf4"),
    ):
        if sound(name, wants) and getattr(run, name) != default and getattr(run, wants) not in value.split(" or "):
            yield name, f"must be left out: only {wants} = {value} has it, not {getattr(run, wants)}"
    if isinstance(model, Transformer) and not writes(model):
        kind = "an encoder" if model.architecture == "encoder" else f'a model with head = "{model.head}"'
        for name in _OF_WRITING:
            if sound(name) and getattr(run, name) != InferenceRun.__dataclass_fields__[name].default:
                yield name, f"must be left out: {kind} writes nothing"
    elif sound("sampling", "new_tokens") and run.sampling != "greedy" and not run.new_tokens:
        yield "sampling", "must be left out: no token is chosen where new_tokens is 0"


def _length_problems(model: Model, run: InferenceRun, sound: Sound) -> Iterator[Problem]:
    two = model.architecture == "encoder-decoder"
    if sound("source_length"):
        if two and not run.source_length:
            yield "source_length", "is missing: say how many tokens the encoder reads, with --source-length"
        elif run.source_length and not two:
            yield "source_length", "must be left out: only an encoder-decoder has one"
    if sound("prompt_length") and not run.prompt_length:
        yield "prompt_length", "is missing: say how many tokens, with --prompt-length"
    if not isinstance(model, Transformer):
        positions, taken = model.most_positions, 0
    else:
        positions = model.max_positions if model.positions == "learned" else 0
        taken = int(model.head == "classification" and model.pooling == "class_token")
    if not positions:
        return
    if sound("source_length") and run.source_length > positions:
        yield "source_length", f"{run.source_length} tokens are more than the model's {positions} positions"
    if not sound("prompt_length", "new_tokens") or run.prompt_length + run.new_tokens + taken <= positions:
        return
    if run.new_tokens:
        total = f"{run.prompt_length} + {run.new_tokens}"
        yield "new_tokens", f"{total} tokens are more than the model's {positions} positions"
    else:
        beside = " beside the class token" if taken else ""
        yield "prompt_length", f"{run.prompt_length} tokens are more than the model's {positions} positions{beside}"


def _refuse_unmodelled(model: Transformer, run: InferenceRun, device: Device) -> None:
    """Raises NotModelledError for what memplan has no rule for."""
    if run.cache == "paged" and model.sliding_window:
        raise NotModelledError(
            "cache: paged is not modelled with a sliding window, whose blocks an engine gives back",
            "use --cache dynamic or --cache static",
        )
    if model.head_dim == 1 and run.cache_dtype == "int8" and run.attention != "naive":
        raise NotModelledError(
            f"attention: {run.attention} does not take heads of a single element as an int8 cache gives them",
            "use --attention naive or another --cache-dtype",
        )
    if run.padding and model.head == "classification" and model.pooling == "last":
        raise NotModelledError(
            'padding: not modelled with pooling = "last": the last position of a padded sequence is padding',
            "use --no-padding or --set pooling=mean",
        )
    if device.backend == "cuda":
        _refuse_on_a_card(model, run)
    problem = kernel_problem(model, run, device, run.attention)
    if problem is not None:
        raise NotModelledError(f"attention: {run.attention} {problem[0]}", problem[1])


def _refuse_on_a_card(model: Transformer, run: InferenceRun) -> None:
    """Operations whose kernels on CUDA have no rule."""
    if model.num_experts:
        raise NotModelledError(
            f"num_experts = {model.num_experts}: the router's operations are modelled on the CPU only",
            "use --device cpu, or --set num_experts=0 for a dense model",
        )
    if run.sampling == "sampled":
        raise NotModelledError("sampling: sampled is modelled on the CPU only", "use --sampling greedy")
    if pads_prompts(model, run) and writes(model):
        raise NotModelledError(
            "padding: counting the real tokens of a prompt is modelled on the CPU only", "use --no-padding"
        )
