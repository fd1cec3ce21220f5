"""What a single field may hold: its type, its range, its known words. The same checks serve models and runs.

The rules are read off the dataclasses: the annotation says the type, and a default of 0 says that 0 is allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn, get_args

from memplan.config.model import Activation, Architecture, Head, Norm, NormPlacement, Pooling, Positions
from memplan.config.run import Attention, Optimizer, OptimizerImplementation, Precision, Recompute
from memplan.errors import ConfigurationError, nearest

Problem = tuple[str, str]
"""A field's name, and what is wrong with it together with what would be right."""

LARGEST = 2**63 - 1
"""PyTorch holds sizes as signed 64-bit integers."""

# Annotations are strings here (`from __future__ import annotations`), so a choice is found by the name of its alias.
_CHOICES: dict[str, tuple[str, ...]] = {
    "Architecture": get_args(Architecture),
    "Positions": get_args(Positions),
    "Norm": get_args(Norm),
    "NormPlacement": get_args(NormPlacement),
    "Activation": get_args(Activation),
    "Head": get_args(Head),
    "Pooling": get_args(Pooling),
    "Attention": get_args(Attention),
    "Precision": get_args(Precision),
    "Optimizer": get_args(Optimizer),
    "OptimizerImplementation": get_args(OptimizerImplementation),
    "Recompute": get_args(Recompute),
}

# What other tools call our fields (DESIGN.md, section 4): too far off in spelling for `nearest` to find.
_OTHERS_SAY = {
    "d_model": "hidden_size", "n_embd": "hidden_size", "embed_dim": "hidden_size",
    "n_layer": "num_layers", "n_layers": "num_layers", "num_hidden_layers": "num_layers",
    "n_head": "num_attention_heads", "n_heads": "num_attention_heads", "num_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "num_kv_heads": "num_key_value_heads", "d_kv": "head_dim",
    "d_ff": "intermediate_size", "n_inner": "intermediate_size", "ffn_hidden_size": "intermediate_size",
    "n_positions": "max_positions", "max_position_embeddings": "max_positions", "block_size": "max_positions",
    "hidden_act": "activation", "type_vocab_size": "token_type_vocab_size", "tie_word_embeddings": "tie_embeddings",
    "batch": "micro_batch_size", "batch_size": "micro_batch_size", "per_device_train_batch_size": "micro_batch_size",
    "seq_len": "sequence_length", "max_length": "sequence_length", "gradient_checkpointing": "recompute",
    "dtype": "precision", "torch_dtype": "precision", "use_parallel_residual": "parallel_blocks",
    "parallel_attn": "parallel_blocks", "qk_rope_head_dim": "rope_head_dim", "v_head_dim": "value_head_dim",
    "num_local_experts": "num_experts", "num_experts_per_tok": "num_experts_per_token",
    "attn_logit_softcapping": "attention_soft_cap", "final_logit_softcapping": "logit_soft_cap",
}  # fmt: skip


def show(value: object) -> str:
    """`value` as a reader can take it in: short, printable, and safe for integers of any size."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        digits = int(value.bit_length() * 0.30103)  # log10(2); str() itself refuses more than 4,300 digits
        return str(int(value)) if digits < 40 else f"a whole number of about {digits} digits"
    if isinstance(value, float) or value is None:
        return repr(value)
    if isinstance(value, str):
        return ascii(value) if len(value) <= 60 else f"{value[:57]!a}..."
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` where a known name is near, else nothing."""
    names = list(known)
    close = _OTHERS_SAY.get(word)
    if close not in names:
        close = nearest(word, names)
    return f'; did you mean "{close}"?' if close else ""


def check_fields(kind: type, values: Mapping[str, object]) -> tuple[dict[str, Any], list[Problem]]:
    """Check each of `values` against the field of `kind` (a dataclass) that bears its name.

    Returns the values that hold, ready for `kind(**sound)`, and a problem for each that does not or that is missing.
    """
    sound: dict[str, Any] = {}
    problems: list[Problem] = []
    known = {field.name: field for field in fields(kind)}
    for name, value in values.items():
        if name not in known:
            problems.append((str(name), "is not a known key" + did_you_mean(str(name), known)))
        elif (problem := _problem(kind, known[name], value)) is not None:
            problems.append((name, problem))
        else:
            sound[name] = _as_typed(value, known[name].type)
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            problems.append((name, "is missing, and it has no default"))
    return sound, problems


def _as_typed(value: object, kind: object) -> object:
    """A sound value as its field holds it."""
    if kind in ("float", "Number") and isinstance(value, int):
        return float(value)
    return tuple(value) if kind in ("Names", "Indices") and isinstance(value, list) else value


def _problem(kind: type, field: Field[Any], value: object) -> str | None:
    if value is None and str(field.type).endswith(" | None"):
        return None
    if field.type == "int | None":
        return _whole_number_problem(value, smallest=1)
    if field.type in ("Number", "Number | None"):
        sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
        or_null = " or null" if field.type == "Number | None" else ""
        return None if sound else f"must be a number of at least 0{or_null}, not {show(value)}"
    if field.type == "Names":
        sound = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        return None if sound else f"must be a list of names, not {show(value)}"
    if field.type == "Indices":
        sound = isinstance(value, (list, tuple)) and all(type(item) is int and item >= 0 for item in value)
        return None if sound else f"must be a list of whole numbers of at least 0, not {show(value)}"
    if field.type == "Count":
        return _whole_number_problem(value, smallest=0)
    if field.type == "int":
        return _whole_number_problem(value, smallest=0 if field.default == 0 else 1)
    if field.type == "float":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # every float of a model or a run is a share: a dropout probability, a momentum (NaN fails both comparisons)
        share = isinstance(value, (int, float)) and 0 <= value < 1
        return None if number and share else f"must be a number from 0 up to, not including, 1, not {show(value)}"
    if field.type == "bool":
        return None if isinstance(value, bool) else f"must be true or false, not {show(value)}"
    if field.type == "str":
        if not isinstance(value, str):
            return f"must be text, not {show(value)}"
        return None if value.isprintable() and value else f"must be printable text, not {show(value)}"
    choices = _choices(kind, str(field.type))
    if isinstance(value, str) and value in choices:
        return None
    suggestion = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"must be one of {', '.join(choices)}, not {show(value)}{suggestion}"


def choices_of(kind: type, name: str) -> tuple[str, ...]:
    """The words that a field of `kind` may hold; none where it holds no words of a list."""
    alias = str(kind.__dataclass_fields__[name].type)  # type: ignore[attr-defined]
    plain = ("int", "float", "bool", "str", "Number", "Names", "Indices", "Count")
    return () if alias.split(" ")[0] in plain else _choices(kind, alias)


def _choices(kind: type, alias: str) -> tuple[str, ...]:
    """The words of an alias: of the one beside the dataclass or one it is derived from, else of one of those above."""
    homes = (sys.modules[each.__module__] for each in kind.__mro__)
    words = next((get_args(getattr(home, alias)) for home in homes if hasattr(home, alias)), ())
    return words or _CHOICES[alias]


def _whole_number_problem(value: object, smallest: int) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"must be a whole number, not {show(value)}"
    if value < smallest:
        return f"must be at least {smallest}, not {show(value)}"
    if value > LARGEST:
        return f"{show(value)} is larger than PyTorch's 2**63 - 1"
    return None


def nowhere(_field: str) -> str:
    """The place of a field that was given in Python or on the command line: none to tell."""
    return ""


def lines_of(problems: Iterable[Problem], locate: Callable[[str], str] = nowhere) -> list[str]:
    """One line for each problem: `where: field: what is wrong and what would be right`."""
    return [f"{locate(field)}{field if field.isprintable() else ascii(field)}: {text}" for field, text in problems]


def refuse(lines: list[str]) -> NoReturn:
    """Raise one ConfigurationError that says every line."""
    if len(lines) == 1:
        raise ConfigurationError(lines[0])
    raise ConfigurationError("\n  ".join([f"{len(lines)} problems in the configuration:", *lines]))
