"""What the configuration tests share: models and runs to change one field of, and a way to read an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from memplan.config.model import Transformer
from memplan.errors import ConfigurationError

SMALL: dict[str, Any] = {
    "architecture": "decoder",
    "vocab_size": 100,
    "hidden_size": 24,
    "num_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "positions": "rotary",
}


@pytest.fixture
def small() -> Callable[..., Transformer]:
    """A small decoder with fields changed; nothing is checked."""

    def build(**changes: Any) -> Transformer:
        return Transformer(**{**SMALL, **changes})

    return build


@contextmanager
def refused(*parts: str, error: type[Exception] = ConfigurationError) -> Iterator[None]:
    """The block raises `error`, and its text has every one of `parts`."""
    with pytest.raises(error) as caught:
        yield
    for part in parts:
        assert part in str(caught.value)
