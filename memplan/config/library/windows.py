"""Layers that look at everything before them, and layers that look through a window (sliding_window, layer_types)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memplan.config.fields import Problem
from memplan.config.library.model import LibraryModel, Sound

FULL, SLIDING = "full_attention", "sliding_attention"


def window_problems(model: LibraryModel, sound: Sound) -> Iterator[Problem]:
    """Types of layers that are not as many as there are layers, or that look through no window."""
    config: Any = model
    if not config.layer_types or not sound("layer_types", "num_hidden_layers", "sliding_window"):
        return
    if len(config.layer_types) != config.num_hidden_layers:
        yield "layer_types", f"{len(config.layer_types)} types for {config.num_hidden_layers} layers"
    if SLIDING in config.layer_types and config.sliding_window is None:
        yield "sliding_window", f"must be a whole number where layer_types holds {SLIDING}"


def unmodelled_windows(layer_types: tuple[str, ...]) -> Iterator[str]:
    """Types of layers without a rule."""
    for name in sorted(set(layer_types) - {FULL, SLIDING}):
        yield f'layer type "{name}"'
