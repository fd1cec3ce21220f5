"""The files of safetensors that hold a model's weights.

A model of the library is saved by `save_pretrained`: in one file, or in several with an index once it is larger than
`max_shard_size` (huggingface_hub/serialization/_base.py, split_state_dict_into_shards_factory). The reference
transformer is saved by `safetensors.torch.save_file`, in one file. Tied weights are written once.
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.checkpoint.original_names import Piece, pieces
from memplan.checkpoint.saved import ModelState

SHARD_BYTES = 50 * 10**9
"""The library's own max_shard_size."""

Shards = dict[str, list[Piece]]


def weight_shards(state: ModelState, head_class: str | None, max_shard_bytes: int = SHARD_BYTES) -> Shards:
    """What each file holds, by its name. `head_class` is the library's class, None for the reference transformer."""
    if head_class is None:
        return {"model.safetensors": pieces("", state.distinct)}
    shards = _split(pieces(head_class, state.distinct), max_shard_bytes)
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": shard for number, shard in enumerate(shards, 1)}


def _split(everything: Sequence[Piece], most: int) -> list[list[Piece]]:
    """Shards in order of the state dict. A storage counts as a whole, where its first view stands, and takes its other
    views along; one that is too large by itself gets a shard of its own."""
    views: dict[int, list[Piece]] = {}
    for piece in everything:
        views.setdefault(id(piece.storage), []).append(piece)
    shards: list[list[Piece]] = []
    current: list[Piece] = []
    filled = 0
    for group in views.values():
        size = group[0].storage_bytes
        if size > most:
            shards.append(group)
            continue
        if filled + size > most:
            shards.append(current)
            current, filled = [], 0
        current.extend(group)
        filled += size
    return [*shards, current] if current else shards


def index_size(shards: Shards, state: ModelState) -> int:
    """Bytes of model.safetensors.index.json."""
    import json

    parameters = sum(entry.tensor.numel for entry in state.parameters)
    storages = {id(piece.storage): piece.storage_bytes for shard in shards.values() for piece in shard}
    index = {
        "metadata": {"total_parameters": parameters, "total_size": sum(storages.values())},
        "weight_map": {piece.name: name for name, shard in shards.items() for piece in shard},
    }
    return len(json.dumps(index, indent=2, sort_keys=True)) + 1
