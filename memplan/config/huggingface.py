"""A Hugging Face config.json as a Transformer. Model types that are not known here are refused by name.

What changes memory is read; what does not (tokens, initialisation, rope_scaling) is passed over. A key that a config
leaves out takes the default of its class in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memplan.config.fields import did_you_mean, refuse, show
from memplan.config.model import Transformer
from memplan.config.validate import model_from
from memplan.errors import ConfigurationError, NotModelledError

# A bare model (BertModel, or no architecture at all) is trained with its language-modelling head: for BERT that is
# BertForMaskedLM, also where the config says BertForPreTraining, whose next-sentence head is left out.
_HEADS = {
    "llama": {
        "LlamaForCausalLM": "language_modelling",
        "LlamaModel": "language_modelling",
        "LlamaForTokenClassification": "token_classification",
    },
    "gpt2": {
        "GPT2LMHeadModel": "language_modelling",
        "GPT2Model": "language_modelling",
        "GPT2ForTokenClassification": "token_classification",
    },
    "bert": {
        "BertForMaskedLM": "language_modelling",
        "BertForPreTraining": "language_modelling",
        "BertModel": "language_modelling",
        "BertForSequenceClassification": "classification",
        "BertForTokenClassification": "token_classification",
    },
    "t5": {
        "T5ForConditionalGeneration": "language_modelling",
        "T5Model": "language_modelling",
    },
}

_PLAIN = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"} | dict.fromkeys(
    ("gelu_new", "gelu_pytorch_tanh"), "gelu_tanh"
)
_GATED = {"silu": "swiglu", "swish": "swiglu"} | dict.fromkeys(("gelu", "gelu_new", "gelu_pytorch_tanh"), "geglu")

# What any of the families may carry and memplan has no rule for, unless it is absent, null, false, 0 or empty.
_NOT_MODELLED = (
    "quantization_config", "pruned_heads", "add_cross_attention", "cross_attention_hidden_size", "is_decoder",
    "chunk_size_feed_forward", "tie_encoder_decoder", "torchscript", "reorder_and_upcast_attn",
    "scale_attn_by_inverse_layer_idx", "sliding_window",
)  # fmt: skip

# Sizes for which a Transformer's 0 means "not given": in a config.json a 0 is a mistake.
_NEVER_ZERO = ("num_encoder_layers", "num_key_value_heads", "head_dim", "max_positions", "token_type_vocab_size")


def from_config(config: Mapping[str, object], where: str) -> Transformer:
    """The Transformer that a config.json describes; `where` names the file in messages."""
    values, origins = translate(config, where)
    return model_from(values, locator(where, origins))


def locator(where: str, origins: Mapping[str, str]) -> Callable[[str], str]:
    """Says which key of the config.json a field comes from."""

    def locate(field: str) -> str:
        key = origins.get(field, field)
        return f"{where}: " if key == field else f"{where}: {key}: "

    return locate


def translate(config: Mapping[str, object], where: str) -> tuple[dict[str, object], dict[str, str]]:
    """The fields of a Transformer, not yet validated, and the config.json key that each was read from."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        what = "is missing" if model_type is None else f"must be text, not {show(model_type)}"
        raise ConfigurationError(f"{where}: model_type: {what}; known are {', '.join(_HEADS)}")
    if model_type not in _HEADS:
        close = did_you_mean(model_type, _HEADS)
        known = f"known model types are {', '.join(_HEADS)}"
        raise NotModelledError(f"{where}: model_type {show(model_type)} is not modelled{close}", known)
    reader = _Reader(config)
    reader.refuse_unmodelled()
    reader.set("head", reader.head(model_type))
    {"llama": _llama, "gpt2": _gpt2, "bert": _bert, "t5": _t5}[model_type](reader)
    reader.set("name", _name(config, model_type))
    if reader.problems:
        refuse([f"{where}: {problem}" for problem in reader.problems])
    if reader.unmodelled:
        raise NotModelledError(f"{where}: not modelled: {'; '.join(reader.unmodelled)}")
    return reader.values, reader.origins


class _Reader:
    """Copies keys of a config.json to fields of a Transformer, and gathers what is wrong or not modelled on the way."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.config = config
        self.values: dict[str, object] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []
        self.unmodelled: list[str] = []

    def set(self, field: str, value: object) -> None:
        self.values[field] = value

    def copy(self, field: str, key: str) -> None:
        """A key that must be there."""
        if key not in self.config:
            self.problems.append(f"{key}: is missing")
        else:
            self._take(field, key, self.config[key])

    def copy_or(self, field: str, key: str, default: object, null_is_default: bool = False) -> None:
        """A key that may be left out; some may also be null."""
        value = self.config.get(key, default)
        self._take(field, key, default if value is None and null_is_default else value)

    def _take(self, field: str, key: str, value: object) -> None:
        self.origins[field] = key
        given = self.config.get(key)
        if field in _NEVER_ZERO and given == 0 and not isinstance(given, bool):
            self.problems.append(f"{key}: must be at least 1, not {show(given)}")
        self.values[field] = value

    def flag(self, key: str, default: bool) -> bool:
        value = self.config.get(key, default)
        if isinstance(value, bool):
            return value
        self.problems.append(f"{key}: must be true or false, not {show(value)}")
        return default

    def activation(self, key: str, value: object, known: Mapping[str, str]) -> None:
        self.origins["activation"] = key
        if not isinstance(value, str):
            self.problems.append(f"{key}: must be text, not {show(value)}")
        elif value not in known:
            self.unmodelled.append(f"{key} {show(value)} (known are {', '.join(known)})")
        else:
            self.values["activation"] = known[value]

    def refuse_unmodelled(self) -> None:
        self.unmodelled += [key for key in _NOT_MODELLED if self.config.get(key)]

    def expect_encoder_decoder(self, expected: bool) -> None:
        if self.flag("is_encoder_decoder", expected) != expected:
            self.problems.append(f"is_encoder_decoder: must be {show(expected)} for this model_type")

    def head(self, model_type: str) -> str:
        """The head of the first architecture that the config lists."""
        known = _HEADS[model_type]
        architectures = self.config.get("architectures")
        if architectures is None or architectures == []:
            return "language_modelling"
        if not isinstance(architectures, list) or not isinstance(architectures[0], str):
            self.problems.append(f"architectures: must be a list of names, not {show(architectures)}")
            return "language_modelling"
        if architectures[0] not in known:
            self.unmodelled.append(f"architecture {show(architectures[0])} (known are {', '.join(known)})")
        return known.get(architectures[0], "language_modelling")

    def classifier(self, dropout_keys: tuple[str, ...], default_dropout: object) -> None:
        """Labels, and the dropout before the classifier, which is the residual dropout in a Transformer."""
        labels = self.config.get("id2label")
        if labels is not None and not isinstance(labels, dict):
            self.problems.append(f"id2label: must be an object, not {show(labels)}")
        counted = len(labels) if isinstance(labels, dict) else 2
        self.copy_or("num_labels", "num_labels", counted)
        if isinstance(labels, dict) and self.values["num_labels"] != counted:
            self.problems.append(f"num_labels: does not agree with id2label, which has {counted} labels")
        given = [self.config[key] for key in dropout_keys if self.config.get(key) is not None]
        dropout = given[0] if given else default_dropout
        if dropout != self.values["residual_dropout"]:
            residual = show(self.values["residual_dropout"])
            self.unmodelled.append(f"a classifier dropout of {show(dropout)} beside a residual dropout of {residual}")


def _name(config: Mapping[str, object], model_type: str) -> str:
    """The last part of where the config came from, so that no path of somebody's machine is shown."""
    given = config.get("_name_or_path")
    last = given.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(given, str) else ""
    return last if last and last.isprintable() else model_type


def _llama(reader: _Reader) -> None:
    reader.expect_encoder_decoder(False)
    reader.values.update(architecture="decoder", positions="rotary", norm="rmsnorm", norm_placement="pre")
    reader.copy("vocab_size", "vocab_size")
    reader.copy("hidden_size", "hidden_size")
    reader.copy("num_layers", "num_hidden_layers")
    reader.copy("num_attention_heads", "num_attention_heads")
    reader.copy("intermediate_size", "intermediate_size")
    reader.copy_or("num_key_value_heads", "num_key_value_heads", 0, null_is_default=True)
    reader.copy_or("head_dim", "head_dim", 0, null_is_default=True)
    reader.activation("hidden_act", reader.config.get("hidden_act", "silu"), _GATED)
    reader.copy_or("attention_bias", "attention_bias", False)
    reader.copy_or("feedforward_bias", "mlp_bias", False)
    reader.copy_or("attention_dropout", "attention_dropout", 0.0)
    reader.copy_or("tie_embeddings", "tie_word_embeddings", False)
    reader.set("residual_dropout", 0.0)
    if reader.config.get("pretraining_tp") not in (None, 1):  # slices every projection
        reader.unmodelled.append(f"pretraining_tp {show(reader.config['pretraining_tp'])}")
    if reader.config.get("partial_rotary_factor") not in (None, 1):
        reader.unmodelled.append(f"partial_rotary_factor {show(reader.config['partial_rotary_factor'])}")
    if reader.values["head"] == "token_classification":
        reader.classifier(("classifier_dropout", "hidden_dropout"), 0.1)


def _gpt2(reader: _Reader) -> None:
    reader.expect_encoder_decoder(False)
    reader.values.update(architecture="decoder", positions="learned", norm="layernorm", norm_placement="pre")
    reader.values.update(attention_bias=True, feedforward_bias=True)
    reader.copy("vocab_size", "vocab_size")
    reader.copy("hidden_size", "n_embd")
    reader.copy("num_layers", "n_layer")
    reader.copy("num_attention_heads", "n_head")
    reader.copy("max_positions", "n_positions")
    hidden_size = reader.values.get("hidden_size")
    four_times = 4 * hidden_size if isinstance(hidden_size, int) else 1  # a wrong n_embd has its own message
    reader.copy_or("intermediate_size", "n_inner", four_times, null_is_default=True)
    reader.activation("activation_function", reader.config.get("activation_function", "gelu_new"), _PLAIN)
    reader.copy_or("scale_attention", "scale_attn_weights", True)
    reader.copy_or("embedding_dropout", "embd_pdrop", 0.1)
    reader.copy_or("attention_dropout", "attn_pdrop", 0.1)
    reader.copy_or("residual_dropout", "resid_pdrop", 0.1)
    reader.copy_or("tie_embeddings", "tie_word_embeddings", True)
    if reader.values["head"] == "token_classification":
        reader.classifier(("classifier_dropout", "hidden_dropout"), 0.1)


def _bert(reader: _Reader) -> None:
    reader.expect_encoder_decoder(False)
    reader.values.update(architecture="encoder", positions="learned", norm="layernorm", norm_placement="post")
    reader.values.update(attention_bias=True, feedforward_bias=True, embedding_norm=True)
    reader.copy("vocab_size", "vocab_size")
    reader.copy("hidden_size", "hidden_size")
    reader.copy("num_layers", "num_hidden_layers")
    reader.copy("num_attention_heads", "num_attention_heads")
    reader.copy("intermediate_size", "intermediate_size")
    reader.copy("max_positions", "max_position_embeddings")
    reader.copy_or("token_type_vocab_size", "type_vocab_size", 2)
    reader.activation("hidden_act", reader.config.get("hidden_act", "gelu"), _PLAIN)
    reader.copy_or("embedding_dropout", "hidden_dropout_prob", 0.1)
    reader.copy_or("residual_dropout", "hidden_dropout_prob", 0.1)
    reader.copy_or("attention_dropout", "attention_probs_dropout_prob", 0.1)
    reader.copy_or("tie_embeddings", "tie_word_embeddings", True)
    if reader.config.get("position_embedding_type", "absolute") != "absolute":
        reader.unmodelled.append(f"position_embedding_type {show(reader.config['position_embedding_type'])}")
    if reader.values["head"] == "language_modelling":
        reader.values.update(head_transform=True, head_bias=True)
        return
    reader.classifier(("classifier_dropout",), reader.values["residual_dropout"])
    if reader.values["head"] == "classification":
        reader.values.update(pooling="first", pooler=True)


def _t5(reader: _Reader) -> None:
    reader.expect_encoder_decoder(True)
    reader.values.update(architecture="encoder-decoder", positions="relative", norm="rmsnorm", norm_placement="pre")
    reader.values.update(attention_bias=False, feedforward_bias=False, scale_attention=False)
    reader.copy("vocab_size", "vocab_size")
    reader.copy("hidden_size", "d_model")
    reader.copy("num_encoder_layers", "num_layers")
    reader.copy_or("num_layers", "num_decoder_layers", reader.config.get("num_layers", 1), null_is_default=True)
    reader.copy("num_attention_heads", "num_heads")
    reader.copy("head_dim", "d_kv")
    reader.copy("intermediate_size", "d_ff")
    reader.copy_or("relative_buckets", "relative_attention_num_buckets", 32)
    reader.copy_or("relative_max_distance", "relative_attention_max_distance", 128)
    projection = reader.config.get("feed_forward_proj", "relu")
    gated = isinstance(projection, str) and projection.startswith("gated-")
    known = {f"gated-{name}": mapped for name, mapped in _GATED.items()} if gated else _PLAIN
    reader.activation("feed_forward_proj", projection, known)
    for field in ("embedding_dropout", "attention_dropout", "residual_dropout"):
        reader.copy_or(field, "dropout_rate", 0.1)
    reader.copy_or("tie_embeddings", "tie_word_embeddings", True)
