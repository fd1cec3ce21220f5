"""The names under which `save_pretrained` keeps weights that the library holds in another form
(transformers/conversion_mapping.py, `revert_weight_conversion` of core_model_loading.py).

Fused experts come apart into one matrix for each; the names of some models are those of older files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from memplan.checkpoint.saved import Entry, SavedTensor
from memplan.units import ITEM_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor as it is written. Those of one `storage` (by identity, `storage_bytes` long) are views of it."""

    name: str
    tensor: SavedTensor
    storage: object
    storage_bytes: int


Convert = Callable[[Entry], Iterator[Piece]]


def pieces(head_class: str, entries: list[Entry]) -> list[Piece]:
    """What is written of a model, in the order it is written. `entries` have each storage once."""
    convert = _CONVERSIONS.get(head_class)
    if convert is None:
        return [piece for entry in entries for piece in _as_it_is(entry)]
    return [piece for entry in sorted(entries, key=lambda each: _natural(each.name)) for piece in convert(entry)]


def _natural(name: str) -> list[tuple[int, int] | tuple[int, str] | tuple[int, str, int]]:
    """Numbers by their value, before words (core_model_loading.py, dot_natural_key)."""
    parts: list[tuple[int, int] | tuple[int, str] | tuple[int, str, int]] = []
    for part in name.split("."):
        word = part.rstrip("0123456789")
        if not word:
            parts.append((0, int(part)))
        elif word == part:
            parts.append((1, part))
        else:
            parts.append((1, word, int(part[len(word) :])))
    return parts


def _as_it_is(entry: Entry, name: str = "") -> Iterator[Piece]:
    yield Piece(name or entry.name, entry.tensor, entry.tensor.storage, entry.tensor.nbytes)


def _split_experts(entry: Entry, fused: tuple[str, str], down: str) -> Iterator[Piece]:
    """`gate_up_proj` [experts, 2 * inner, hidden] as `fused`, `down_proj` [experts, hidden, inner] as `down`; anything
    else as it is. Each half is a new storage of all experts; the way down is cut without copying."""
    prefix, _, last = entry.name.rpartition(".")
    if not prefix.endswith(".experts") or last not in ("gate_up_proj", "down_proj"):
        yield from _as_it_is(entry)
        return
    experts, rows, columns = entry.tensor.shape
    names, rows = (fused, rows // 2) if last == "gate_up_proj" else ((down,), rows)
    for name in names:
        storage = object()
        size = experts * rows * columns * ITEM_BYTES[entry.tensor.dtype]
        for expert in range(experts):
            tensor = SavedTensor((rows, columns), entry.tensor.dtype)
            yield Piece(f"{prefix}.{expert}.{name}.weight", tensor, storage, size)


def _experts(entry: Entry) -> Iterator[Piece]:
    return _split_experts(entry, ("gate_proj", "up_proj"), "down_proj")


def _mixtral(entry: Entry) -> Iterator[Piece]:
    for piece in _split_experts(entry, ("w1", "w3"), "w2"):
        name = piece.name.replace(".mlp.", ".block_sparse_moe.")
        yield Piece(name, piece.tensor, piece.storage, piece.storage_bytes)


def _gpt_neox(entry: Entry) -> Iterator[Piece]:
    return _as_it_is(entry, re.sub(r"^lm_head\.", "embed_out.", entry.name))


_VIT = (
    ("mlp.fc2", "output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("attention.o_proj", "attention.output.dense"),
    ("v_proj", "attention.value"),
    ("k_proj", "attention.key"),
    ("q_proj", "attention.query"),
    ("vit.layers.", "vit.encoder.layer."),
)


def _vit(entry: Entry) -> Iterator[Piece]:
    name = entry.name
    for here, there in _VIT:
        name = name.replace(here, there)
    return _as_it_is(entry, name)


_CONVERSIONS: dict[str, Convert] = {
    "DeepseekV2ForCausalLM": _experts,
    "DeepseekV3ForCausalLM": _experts,
    "GPTNeoXForCausalLM": _gpt_neox,
    "MixtralForCausalLM": _mixtral,
    "Qwen3MoeForCausalLM": _experts,
    "ViTForImageClassification": _vit,
}
