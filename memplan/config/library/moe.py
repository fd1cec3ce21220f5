"""What configurations of models with experts have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from memplan.config.fields import Problem
from memplan.config.library.llama import Llama, head_problems, with_heads
from memplan.config.library.model import LibraryModel, Sound

Indices = tuple[int, ...]
"""Of layers, counted from 0."""


def shared_heads_problems(model: LibraryModel, sound: Sound) -> Iterator[Problem]:
    """Llama's rules for heads, of a class with fields of the same names."""
    yield from head_problems(cast(Llama, model), sound)


def with_shared_heads(model: LibraryModel) -> LibraryModel:
    """Llama's defaults for heads, of a class with fields of the same names."""
    return with_heads(cast(Llama, model))


def experts_problems(model: LibraryModel, sound: Sound, experts: str, chosen: str, *widths: str) -> Iterator[Problem]:
    """More experts chosen than there are, and widths that PyTorch's grouped product refuses in every precision.
    The other arguments name fields."""
    if sound(experts, chosen) and getattr(model, chosen) > getattr(model, experts):
        yield chosen, f"{getattr(model, chosen)} for a token are more than the {getattr(model, experts)} {experts}"
    for width in widths:
        if sound(width) and getattr(model, width) % 4:
            yield width, f"must be a multiple of 4 for PyTorch's grouped product, not {getattr(model, width)}"


def unmodelled_experts(implementation: str, output_router_logits: bool = False) -> Iterator[str]:
    """The other implementations of experts (integrations/moe.py), and the loss that balances them."""
    if implementation != "grouped_mm":
        yield f"experts_implementation {implementation!a} (grouped_mm is, the library's default)"
    if output_router_logits:
        yield "output_router_logits (the loss that balances the experts)"
