"""Rotary positions in a config.json: rope_parameters, or rope_scaling of older files (modeling_rope_utils.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

Rope = Literal["default", "linear", "llama3", "yarn", "dynamic", "longrope"]
"""How frequencies are scaled. All but the last two do it once, when the model is built."""

_RENAMED = {"su": "longrope"}


def rope_of(config: Mapping[str, object]) -> dict[str, object]:
    """The fields rope_type and partial_rotary_factor, as far as the nested settings say them."""
    settings = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(settings, Mapping):
        return {}
    found: dict[str, object] = {}
    kind = settings.get("rope_type", settings.get("type"))
    if kind is not None:
        found["rope_type"] = _RENAMED.get(kind, kind) if isinstance(kind, str) else kind
    if "partial_rotary_factor" in settings:
        found["partial_rotary_factor"] = settings["partial_rotary_factor"]
    return found


def unmodelled_ropes(kind: str) -> Iterator[str]:
    """Scalings that make tensors in every step."""
    if kind in ("dynamic", "longrope"):
        yield f'rope_type "{kind}"'
