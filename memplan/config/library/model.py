"""What every model of the library has in common, and how a config.json becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from memplan.config.fields import Problem, check_fields, did_you_mean, lines_of, nowhere, refuse, show
from memplan.config.library.rope import rope_of, unmodelled_ropes
from memplan.config.model import Architecture
from memplan.errors import NotModelledError

Names = tuple[str, ...]
Number = float
Count = int
"""A whole number that may be 0, whatever its default."""

Activation = Literal[
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh"
]
"""The library's names (transformers/activations.py)."""

Sound = Callable[..., bool]
"""Says whether all fields of these names hold by themselves: a rule that joins fields speaks only where they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryModel:
    """One model of the library. Fields have the names that the library's configuration classes give them, and their
    defaults; those that decide most of the memory have none. `head_class` is the class that is trained.

    A field whose 0 (or "") stands for "as the library derives it" is replaced by `resolved`.
    """

    model_type: str
    head_class: str
    implementation: str = "transformers"
    name: str = "custom"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        """The classes of the library that are modelled; the first one is meant where a config names none."""
        raise NotImplementedError

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        """Other names of keys (the library's attribute_map): field -> key."""
        return {}

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        """The config with what is nested in it put under the names of fields."""
        return config

    @property
    def attentions(self) -> tuple[str, ...]:
        """The ways to attend that the library has for this model, by the run's names."""
        return ("naive", "sdpa")

    @classmethod
    def from_other_keys(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        """Fields that a config.json says in another way than by a key of their own, such as a list to be counted."""
        return {}

    @property
    def architecture(self) -> Architecture:
        """Whether it encodes, decodes, or both."""
        return "decoder"

    @property
    def num_layers(self) -> int:
        """Layers of the decoder, or of the encoder where there is no decoder."""
        raise NotImplementedError

    @property
    def num_encoder_layers(self) -> int:
        """The encoder's share of an encoder-decoder."""
        return 0

    @property
    def most_positions(self) -> int:
        """The longest sequence that the model can take; 0 where nothing in it has an end."""
        return 0

    @property
    def keeps_logits(self) -> bool:
        """Whether its class makes the logits of the last tokens alone where it is asked to (logits_to_keep)."""
        return self.architecture == "decoder"

    @property
    def kept_in_fp32(self) -> str:
        """Weights that the library leaves in fp32 where it loads a model in fp16 (_keep_in_fp32_modules)."""
        return ""

    @property
    def pads_static_caches(self) -> bool:
        """Whether its forward pass takes a padding mask of the prompt alone beside a static cache."""
        return True

    @property
    def trains_its_mask(self) -> bool:
        """Whether what is added to the scores is trained."""
        return False

    @property
    def tokens_of_an_image(self) -> int:
        """The sequence length, where it follows from the configuration; 0 where the run says it."""
        return 0

    def problems(self, sound: Sound) -> Iterator[Problem]:
        """What does not fit together."""
        return iter(())

    def unmodelled(self) -> Iterator[str]:
        """Settings without a rule, each as the end of "not modelled: "."""
        return iter(())

    def for_the_library(self) -> Mapping[str, object]:
        """What the library's configuration class has to be told beside the fields: settings that memplan does not
        read, but that could not stand with these sizes at their defaults."""
        return {}

    def resolved(self) -> LibraryModel:
        """The model with every default spelled out."""
        return self


MOST_LAYERS = 10_000
"""Far above any model: layers that are not alike are gone through one by one."""

_OWN = ("implementation", "model_type", "head_class", "name")

# What any config may carry and memplan has no rule for, unless it is absent, null, false, 0 or empty.
_NOT_MODELLED = (
    "quantization_config", "pruned_heads", "add_cross_attention", "cross_attention_hidden_size", "is_decoder",
    "chunk_size_feed_forward", "tie_encoder_decoder", "torchscript",
)  # fmt: skip


def read_values(
    kind: type[LibraryModel], config: Mapping[str, object], where: str
) -> tuple[dict[str, object], dict[str, str]]:
    """The fields of `kind` that a config.json gives, not yet checked, and the key that each was read from.

    Keys that do not change memory are passed over. A null means the default, where a field has one and cannot be null
    itself.
    """
    config = kind.flattened(config)
    found = [key for key in _NOT_MODELLED if config.get(key)]
    if "rope_type" not in kind.__dataclass_fields__:  # else the type says itself which it knows
        found += unmodelled_ropes(str(rope_of(config).get("rope_type")))
    if found:
        raise NotModelledError(f"{where}: not modelled: {', '.join(found)}")
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    aliases = kind.aliases()
    for field in fields(kind):
        if field.name in _OWN:
            continue
        key = next((key for key in (field.name, aliases.get(field.name)) if key in config), None)
        if key is None:
            continue
        value = config[key]
        if value is None and field.default is not MISSING and "None" not in str(field.type):
            continue
        values[field.name] = value
        origins[field.name] = key
    for name, value in kind.from_other_keys(config).items():
        values.setdefault(name, value)
    values["model_type"] = config["model_type"]
    values["head_class"] = _head_class(kind, config, where)
    values["name"] = name_of(config)
    return values, origins


def name_of(config: Mapping[str, object]) -> str:
    """The last part of where the config came from, so that no path of somebody's machine is shown."""
    given = config.get("_name_or_path")
    last = given.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(given, str) else ""
    return last if last and last.isprintable() else str(config.get("model_type"))


def _head_class(kind: type[LibraryModel], config: Mapping[str, object], where: str) -> str:
    """The class that is trained: the first architecture of the config; of a bare model the one with its usual head."""
    known = kind.heads()
    architectures = config.get("architectures")
    if architectures is None or architectures == []:
        return known[0]
    if not isinstance(architectures, list) or not isinstance(architectures[0], str):
        refuse([f"{where}: architectures: must be a list of names, not {show(architectures)}"])
    name = architectures[0]
    if name in known:
        return name
    if name.endswith("Model") and any(head.startswith(name.removesuffix("Model")) for head in known):
        return known[0]
    raise NotModelledError(
        f"{where}: not modelled: architecture {show(name)}{did_you_mean(name, known)}",
        f"known of this model_type: {', '.join(known)}",
    )


def check_library(kind: type[LibraryModel], values: Mapping[str, object]) -> tuple[LibraryModel | None, list[Problem]]:
    """The resolved model and its problems; None where there are some."""
    sound_values, problems = check_fields(kind, values)
    wrong = {name for name, _ in problems}
    # Stand in for required fields that are missing or wrong, so that the rules over the other fields still run.
    stand_ins: dict[str, Any] = {
        field.name: "" if field.type == "str" else 1 for field in fields(kind) if field.default is MISSING
    }
    model = kind(**{**stand_ins, **sound_values})
    problems += model.problems(lambda *names: wrong.isdisjoint(names))
    if not problems and (layers := model.num_layers + model.num_encoder_layers) > MOST_LAYERS:
        problems.append(("num_layers", f"{show(layers)} layers are more than any model has"))
    return (None if problems else model.resolved()), problems


def library_model_from(
    kind: type[LibraryModel], values: Mapping[str, object], locate: Callable[[str], str] = nowhere
) -> LibraryModel:
    """A checked and resolved model of these fields; `locate` says where a field was read, for the message.

    Raises one ConfigurationError that names every field that is wrong, or NotModelledError for settings without a rule.
    """
    model, problems = check_library(kind, values)
    if model is None:
        refuse(lines_of(problems, locate))
    if unmodelled := list(model.unmodelled()):
        raise NotModelledError(f"{model.name}: not modelled: {'; '.join(unmodelled)}")
    return model


def validate_library_model(model: LibraryModel) -> LibraryModel:
    """The same for a model that was made in Python."""
    return library_model_from(type(model), {field.name: getattr(model, field.name) for field in fields(model)})
