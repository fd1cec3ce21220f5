"""Whether a model and a run make sense: every problem at once, every default resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from memplan.config.adapters import with_targets
from memplan.config.device import Device
from memplan.config.fields import Problem, check_fields, lines_of, nowhere, refuse, show
from memplan.config.kernels import kernel_problem, with_kernel
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.setups import refuse_unmodelled_setup, setup_problems
from memplan.errors import ConfigurationError, NotModelledError

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

ModelT = TypeVar("ModelT", bound="Model")
RunT = TypeVar("RunT", bound="Run")

Sound = Callable[..., bool]
"""Says whether all fields of these names hold by themselves: a rule that joins fields speaks only where they do."""

# They stand in for required fields that are missing or wrong, so that the rules over the other fields still run.
_STAND_INS: dict[str, Any] = {
    "architecture": "decoder", "vocab_size": 1, "hidden_size": 1, "num_layers": 1, "num_attention_heads": 1,
    "intermediate_size": 1,
}  # fmt: skip

_LENGTHS = ("sequence_length", "source_length", "target_length")


def validate_model(model: ModelT) -> ModelT:
    """The model with every default resolved. Raises one ConfigurationError that names every field that is wrong."""
    if isinstance(model, Transformer):
        return cast(ModelT, model_from(_values(model)))
    from memplan.config.library.model import LibraryModel, validate_library_model

    if not isinstance(model, LibraryModel):
        raise ConfigurationError(f"model: must be a Transformer or a model of a library, not {show(model)}")
    return cast(ModelT, validate_library_model(model))


def validate_run(model: Model, run: RunT, device: Device) -> RunT:
    """The run, checked against a validated model and a device.

    Raises one ConfigurationError that names every field that is wrong, or NotModelledError for a combination that
    PyTorch runs in a way memplan has no rule for.
    """
    if not isinstance(device, Device):
        raise ConfigurationError(f"device: must be a Device, not {show(device)}")
    if isinstance(run, TrainingRun):
        return cast(RunT, _validate_training(model, run, device))
    from memplan.config.inference import InferenceRun

    if not isinstance(run, InferenceRun):
        raise ConfigurationError(f"run: must be a TrainingRun or an InferenceRun, not {show(run)}")
    from memplan.config.generation import validate_inference

    return cast(RunT, validate_inference(model, run, device))


def _validate_training(model: Model, run: TrainingRun, device: Device) -> TrainingRun:
    # a length of 0 in the dataclass is one that was not given
    given = {name: value for name, value in _values(run).items() if name not in _LENGTHS or not _is_zero(value)}
    checked = with_targets(model, run_from(model, given))
    refuse_unmodelled_setup(model, checked, device)
    if not isinstance(model, Transformer):
        from memplan.config.library.runs import refuse_unmodelled

        refuse_unmodelled(model, checked, device)
        return checked
    checked = with_kernel(model, checked, device)
    _refuse_unmodelled(model, checked, device)
    return checked


def model_from(values: Mapping[str, object], locate: Callable[[str], str] = nowhere) -> Transformer:
    """A validated Transformer of these fields; `locate` says where a field was read, for the message."""
    model, problems = check_model(values)
    if problems:
        refuse(lines_of(problems, locate))
    return model


def run_from(model: Model, values: Mapping[str, object], locate: Callable[[str], str] = nowhere) -> TrainingRun:
    """A TrainingRun of these fields, checked against the model but not yet against a device."""
    problems = check_run_fields(values)
    wrong = {name for name, _ in problems}
    run = TrainingRun(
        **{name: value for name, value in check_fields(TrainingRun, values)[0].items() if name not in wrong}
    )
    problems += _run_problems(model, run, lambda *names: wrong.isdisjoint(names))
    if problems:
        refuse(lines_of(problems, locate))
    return run


def check_model(values: Mapping[str, object]) -> tuple[Transformer, list[Problem]]:
    """The resolved model and its problems; the model means something only where there are none."""
    sound_values, problems = check_fields(Transformer, values)
    model = Transformer(**{**_STAND_INS, **sound_values})
    wrong = {name for name, _ in problems}

    def sound(*names: str) -> bool:
        return wrong.isdisjoint(names)

    for rules in (
        _head_count_problems,
        _position_problems,
        _architecture_problems,
        _block_problems,
        _expert_problems,
        _latent_problems,
        _output_problems,
    ):
        problems += rules(model, sound)
    return (model if problems else _resolved(model)), problems


def check_run_fields(values: Mapping[str, object]) -> list[Problem]:
    """The problems of a run's fields by themselves, where a length that is given as 0 is one of them."""
    zero_lengths = [(name, "must be at least 1, not 0") for name in _LENGTHS if _is_zero(values.get(name))]
    return check_fields(TrainingRun, values)[1] + zero_lengths


def _is_zero(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _values(settings: Model | TrainingRun) -> dict[str, object]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _resolved(model: Transformer) -> Transformer:
    encoder_layers = model.num_encoder_layers or model.num_layers
    return replace(
        model,
        num_encoder_layers=encoder_layers if model.architecture == "encoder-decoder" else 0,
        num_key_value_heads=model.num_key_value_heads or model.num_attention_heads,
        head_dim=model.head_dim or model.hidden_size // model.num_attention_heads,
    )


def _head_count_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    heads, groups = model.num_attention_heads, model.num_key_value_heads
    if sound("num_attention_heads", "num_key_value_heads") and groups and heads % groups:
        yield "num_key_value_heads", f"{heads} attention heads are not divisible by {groups}{_divisor(heads, groups)}"
    if not sound("hidden_size", "num_attention_heads", "head_dim"):
        return
    if not model.head_dim and model.hidden_size % heads:
        why = f"hidden_size {model.hidden_size} is not divisible by {heads} heads"
        yield "num_attention_heads", f"{why}{_divisor(model.hidden_size, heads)}, or give head_dim"
    elif sound("positions", "kv_lora_rank") and model.positions == "rotary" and not model.kv_lora_rank:
        odd = model.head_dim or model.hidden_size // heads
        if odd % 2:
            yield "head_dim", f"rotary positions turn pairs, so head_dim must be even, not {odd}"


def _divisor(number: int, wanted: int) -> str:
    """A divisor of `number` near `wanted`, as the end of a message."""
    for distance in range(1, 65):  # near enough to be of use, and quick for numbers of any size
        for candidate in (wanted - distance, wanted + distance):
            if candidate > 0 and number % candidate == 0:
                return f"; {candidate} would do"
    return f"; it must divide {number}"


def _position_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    if not sound("positions"):
        return
    if sound("hidden_size") and model.positions == "sinusoidal" and model.hidden_size % 2:
        yield "hidden_size", f"sinusoidal positions pair sine and cosine: it must be even, not {model.hidden_size}"
    if sound("max_positions"):
        if model.positions == "learned" and not model.max_positions:
            yield "max_positions", "is missing: learned positions need the rows of their table, such as 1024"
        if model.positions != "learned" and model.max_positions:
            yield "max_positions", f"must be left out (0): {model.positions} positions have no table of learned rows"
    if not sound("relative_buckets", "relative_max_distance"):
        return
    if model.positions == "relative":
        # T5 splits its buckets in two halves, by direction and again by exact and logarithmic distances
        if model.relative_buckets < 4:
            yield "relative_buckets", f"must be at least 4, not {model.relative_buckets}"
        elif model.relative_max_distance <= model.relative_buckets // 2:
            yield "relative_max_distance", f"must be more than half of the {model.relative_buckets} relative_buckets"
    else:
        for name, default in (("relative_buckets", 32), ("relative_max_distance", 128)):
            if getattr(model, name) != default:
                yield name, f'only positions = "relative" has it, not "{model.positions}"; leave it out'


def _architecture_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    if not sound("architecture"):
        return
    if sound("num_encoder_layers") and model.num_encoder_layers and model.architecture != "encoder-decoder":
        yield "num_encoder_layers", f"only an encoder-decoder has it; {_a(model.architecture)} has num_layers alone"
    if sound("token_type_vocab_size") and model.token_type_vocab_size and model.architecture != "encoder":
        yield "token_type_vocab_size", f'only architecture = "encoder" has token types, not "{model.architecture}"'
    if sound("head") and model.head != "language_modelling" and model.architecture == "encoder-decoder":
        yield "head", f'must be "language_modelling" on an encoder-decoder, not "{model.head}"'
    elif sound("pooling") and model.pooling == "class_token" and model.architecture != "encoder":
        why = "cannot see the tokens after it" if model.architecture == "decoder" else "needs an encoder alone"
        yield "pooling", f"a class token on {_a(model.architecture)} {why}; use first, last or mean"


def _block_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    if sound("parallel_blocks") and model.parallel_blocks:
        if sound("norm_placement") and model.norm_placement != "pre":
            yield "parallel_blocks", 'needs norm_placement = "pre": both parts read the same normed input'
        if sound("architecture") and model.architecture == "encoder-decoder":
            yield (
                "parallel_blocks",
                "must be false on an encoder-decoder: cross-attention reads what self-attention made",
            )


def _expert_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    if not sound("num_experts", "num_experts_per_token"):
        return
    experts, chosen = model.num_experts, model.num_experts_per_token
    if chosen > experts:
        what = f"at most the {experts} of num_experts" if experts else "left out: num_experts is 0"
        yield "num_experts_per_token", f"must be {what}, not {chosen}"
    elif experts and not chosen:
        yield "num_experts_per_token", "is missing: say to how many experts a token goes, such as 2"
    if experts and sound("feedforward_bias") and model.feedforward_bias:
        yield "feedforward_bias", "must be false with num_experts: experts have no biases"


_LATENT = ("q_lora_rank", "rope_head_dim", "value_head_dim")


def _latent_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    """Multi-head latent attention: with kv_lora_rank, and then all of it."""
    if not sound("kv_lora_rank", *_LATENT):
        return
    if not model.kv_lora_rank:
        for name in _LATENT:
            if getattr(model, name):
                yield name, "must be left out (0): only latent attention has it, which needs kv_lora_rank"
        return
    for name in ("rope_head_dim", "value_head_dim", "head_dim"):
        if sound(name) and not getattr(model, name):
            yield name, "is missing: latent attention (kv_lora_rank) needs it"
    if model.rope_head_dim % 2:
        yield "rope_head_dim", f"rotary positions turn pairs, so it must be even, not {model.rope_head_dim}"
    elif sound("head_dim") and model.head_dim and model.rope_head_dim >= model.head_dim:
        yield "rope_head_dim", f"is a part of head_dim {model.head_dim}: it must be smaller, not {model.rope_head_dim}"
    if sound("positions") and model.positions != "rotary":
        yield "kv_lora_rank", f'latent attention needs positions = "rotary", not "{model.positions}"'
    if sound("architecture") and model.architecture == "encoder-decoder":
        yield "kv_lora_rank", "must be left out (0) on an encoder-decoder: cross-attention has no latent form"
    if sound("attention_bias") and model.attention_bias:
        yield "attention_bias", "must be false with kv_lora_rank: latent attention has no biases"
    groups = model.num_key_value_heads
    if sound("num_attention_heads", "num_key_value_heads") and groups not in (0, model.num_attention_heads):
        yield "num_key_value_heads", "must be left out with kv_lora_rank: every head has keys and values of its own"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _output_problems(model: Transformer, sound: Sound) -> Iterator[Problem]:
    if not sound("head"):
        return
    if model.head != "language_modelling":
        for name in ("head_transform", "head_bias", "logit_soft_cap"):
            if sound(name) and getattr(model, name):
                none = "0" if name == "logit_soft_cap" else "false"
                yield name, f'must be {none}: only head = "language_modelling" has it, not "{model.head}"'
    if model.head != "classification":
        if sound("pooler") and model.pooler:
            yield "pooler", f'must be false: only head = "classification" has it, not "{model.head}"'
        if sound("pooling", "architecture") and model.pooling == "class_token" and model.architecture == "encoder":
            yield "pooling", f'a class token needs head = "classification", not "{model.head}"'


def _run_problems(model: Model, run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    yield from _length_problems(model, run, sound)
    yield from setup_problems(model, run, sound)


def _length_problems(model: Model, run: TrainingRun, sound: Sound) -> Iterator[Problem]:
    """Lengths of 0 are lengths that were not given."""
    if not isinstance(model, Transformer) and model.tokens_of_an_image:
        for name in _LENGTHS:
            if sound(name) and getattr(run, name):
                yield name, f"must be left out: an image makes {model.tokens_of_an_image} tokens"
        return
    two_lengths = model.architecture == "encoder-decoder"
    needed = ("source_length", "target_length") if two_lengths else ("sequence_length",)
    options = " and ".join(f"--{name.replace('_', '-')}" for name in needed)
    extra = [name for name in _LENGTHS if name not in needed and sound(name) and getattr(run, name)]
    for name in extra:
        yield name, f"{_a(model.architecture)} takes {' and '.join(needed)} instead ({options})"
    for name in needed:
        if not sound(name):
            continue
        length = getattr(run, name)
        if not length and not extra:  # the line above has already said what to give
            yield name, f"is missing: say how many tokens, with --{name.replace('_', '-')}"
        positions, class_token = _positions(model)
        if positions and length + class_token > positions:
            room = f"the model's {positions} learned positions hold at most {positions - class_token}"
            yield name, f"{length} tokens are too many: {room}{' beside the class token' if class_token else ''}"


def _positions(model: Model) -> tuple[int, int]:
    """How many positions the model can take (0: any number), and how many of them its class token needs."""
    if not isinstance(model, Transformer):
        return model.most_positions, 0
    class_token = int(model.head == "classification" and model.pooling == "class_token")
    return (model.max_positions if model.positions == "learned" else 0), class_token


def _refuse_unmodelled(model: Transformer, run: TrainingRun, device: Device) -> None:
    if run.padding and model.head == "classification" and model.pooling == "last":
        raise NotModelledError(
            'padding: not modelled with pooling = "last": the last position of a padded sequence is padding',
            "use --no-padding or --set pooling=mean",
        )
    if model.num_experts and device.backend == "cuda":
        raise NotModelledError(
            f"num_experts = {model.num_experts}: the router's operations are modelled on the CPU only",
            "use --device cpu, or --set num_experts=0 for a dense model",
        )
    problem = kernel_problem(model, run, device, run.attention)
    if problem is not None:
        raise NotModelledError(f"attention: {run.attention} {problem[0]}", problem[1])
