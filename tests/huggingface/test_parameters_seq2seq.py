"""Encoder-decoders of the library have as many parameters as their twins on the sizes-only operations, and stacks of
which few layers are traced need what all of them need."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.library.bart import Bart
from memplan.config.library.mbart import MBart
from memplan.config.library.model import LibraryModel, validate_library_model
from memplan.config.library.pegasus import Pegasus
from memplan.config.library.t5 import T5
from memplan.errors import ConfigurationError, NotModelledError
from memplan.estimate import backend_of
from memplan.huggingface.models import build_model
from memplan.huggingface.program import trace_library_training
from memplan.huggingface.settings import Settings
from memplan.ledger import Ledger
from memplan.measure.library import NOT_FOR_THE_LIBRARY
from memplan.ops.backend import CURRENT, Backend
from memplan.ops.trace import Trace

from .small import SMALL, small_run

NAMES = ("t5", "t5-v1.1", "bart", "mbart", "pegasus")

_LARGE: dict[str, Any] = {
    "d_model": 1024,
    "encoder_layers": 12,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_layers": 12,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
}

FULL_SIZE: tuple[LibraryModel, ...] = (
    T5(
        model_type="t5",
        head_class="T5ForConditionalGeneration",
        vocab_size=32128,
        d_model=768,
        d_kv=64,
        d_ff=2048,
        num_hidden_layers=12,
        num_heads=12,
        feed_forward_proj="gated-gelu",
        scale_decoder_outputs=False,
    ),
    Bart(model_type="bart", head_class="BartForConditionalGeneration", vocab_size=50265, **_LARGE),
    MBart(model_type="mbart", head_class="MBartForConditionalGeneration", vocab_size=250027, **_LARGE),
    Pegasus(model_type="pegasus", head_class="PegasusForConditionalGeneration", vocab_size=96103, **_LARGE),
)


def _ours(config: LibraryModel) -> int:
    """Trained parameters, every one of them counted once."""
    model = build_model(Trace(Backend("cpu")), config, Settings("sdpa", "none", True))
    return sum(_elements(parameter.shape) for parameter in model.parameters())


def _elements(shape: tuple[int, ...]) -> int:
    number = 1
    for length in shape:
        number *= length
    return number


def _theirs(config: LibraryModel) -> int:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    for name in NOT_FOR_THE_LIBRARY:
        values.pop(name)
    settings = transformers.AutoConfig.for_model(config.model_type, **values | config.for_the_library())
    with torch.device("meta"):
        model = getattr(transformers, config.head_class)(settings)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("config", [*(SMALL[name] for name in NAMES), *FULL_SIZE], ids=lambda each: each.model_type)
def test_parameters(config: LibraryModel) -> None:
    """Pegasus has two tables of positions besides, which are not trained."""
    config = validate_library_model(config)
    assert _ours(config) == _theirs(config)


@pytest.mark.parametrize("name", ["t5", "t5-dropout", "bart", "mbart", "pegasus"])
@pytest.mark.parametrize("attention", ["naive", "sdpa"])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_few_layers_stand_for_all(name: str, attention: str, recompute: str) -> None:
    config = SMALL[name]
    layers = {"num_hidden_layers": 7, "num_decoder_layers": 6} if name.startswith("t5") else {}
    layers = layers or {"encoder_layers": 7, "decoder_layers": 6}
    config = validate_library_model(replace(config, **layers))
    run = small_run(config, attention=attention, recompute=recompute, padding=True)
    backend = backend_of(load_device("cpu:2"), CURRENT)
    some, every = (trace_library_training(config, run, backend, every_layer=full) for full in (False, True))
    assert _heights(some) == _heights(every)


def _heights(ledger: Ledger) -> dict[str, tuple[int, int]]:
    return {phase: (peak.size, end.size) for phase, (peak, end) in ledger.moments().items()}


def test_dropped_layers_and_separate_tables_are_refused() -> None:
    for change in ({"encoder_layerdrop": 0.1}, {"decoder_layerdrop": 0.1}, {"tie_word_embeddings": False}):
        with pytest.raises(NotModelledError, match=next(iter(change))):
            validate_library_model(replace(SMALL["bart"], **change))


def test_unknown_feed_forwards_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="feed_forward_proj"):
        validate_library_model(replace(SMALL["t5"], feed_forward_proj="gated-mish"))
