"""The encoders' parameters: as many as the library's own classes have, of small models and of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memplan.config.library.bert import Bert
from memplan.config.library.distilbert import DistilBert
from memplan.config.library.electra import Electra
from memplan.config.library.model import validate_library_model
from memplan.config.library.modernbert import ModernBert
from memplan.config.library.roberta import Roberta
from memplan.config.library.vit import ViT
from memplan.huggingface.models import build_model
from memplan.huggingface.settings import Settings
from memplan.ops.backend import Backend
from memplan.ops.size import product
from memplan.ops.trace import Trace

from .small import SMALL

if TYPE_CHECKING:
    from memplan.config.library.model import LibraryModel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TYPES = ("bert", "roberta", "distilbert", "electra", "vit", "modernbert")
_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}

REAL: tuple[LibraryModel, ...] = (
    Bert(model_type="bert", head_class="BertForMaskedLM", vocab_size=30522, **_BASE),
    Bert(model_type="bert", head_class="BertForMaskedLM", vocab_size=30522, **_BASE, tie_word_embeddings=False),
    Roberta(
        model_type="roberta",
        head_class="RobertaForMaskedLM",
        vocab_size=50265,
        **_BASE,
        max_position_embeddings=514,
        type_vocab_size=1,
    ),
    DistilBert(
        model_type="distilbert",
        head_class="DistilBertForMaskedLM",
        vocab_size=30522,
        dim=768,
        n_layers=6,
        n_heads=12,
        hidden_dim=3072,
    ),
    Electra(
        model_type="electra",
        head_class="ElectraForMaskedLM",
        vocab_size=30522,
        embedding_size=128,
        hidden_size=256,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=1024,
    ),
    ViT(
        model_type="vit",
        head_class="ViTForImageClassification",
        **_BASE,
        image_size=224,
        patch_size=16,
        num_labels=1000,
    ),
    ModernBert(
        model_type="modernbert",
        head_class="ModernBertForMaskedLM",
        vocab_size=50368,
        hidden_size=768,
        intermediate_size=1152,
        num_hidden_layers=22,
        num_attention_heads=12,
    ),
)


def _ours(config: LibraryModel) -> int:
    trace = Trace(Backend("cpu"))
    model = build_model(trace, config, Settings("sdpa", "none", every_layer=True))
    return sum(int(product(parameter.shape)) for parameter in model.parameters())


def _theirs(config: LibraryModel) -> int:
    values = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
    for name in ("model_type", "head_class", "implementation", "name"):
        values.pop(name)
    values |= config.for_the_library()
    settings = transformers.AutoConfig.for_model(config.model_type, **values)
    with torch.device("meta"):
        model = getattr(transformers, config.head_class)(settings)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in SMALL if name.partition("-")[0] in TYPES])
def test_small_models(name: str) -> None:
    config = validate_library_model(SMALL[name])
    assert _ours(config) == _theirs(config)


@pytest.mark.parametrize("model", REAL, ids=lambda model: model.model_type)
def test_models_as_they_are_used(model: LibraryModel) -> None:
    config = validate_library_model(model)
    assert _ours(config) == _theirs(config)
