"""Mutated files: whatever comes in, a Transformer or a MemplanError comes out, and its message can be printed."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from memplan.config.huggingface import from_config
from memplan.config.library.model import LibraryModel
from memplan.config.load import load_model, load_request
from memplan.config.model import Transformer
from memplan.config.parameters import parameter_count
from memplan.errors import MemplanError

from .configs import BERT, GPT2, LLAMA, T5
from .test_load import GOOD

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 1.5, 0.1, -0.0, 1e308, float("nan"), float("inf"), 2**63 - 1, 2**63, -(2**70),
    10**5000, "", "x", "768", "gelu", "\0", "\ud800", "é" * 500, [], [[]], ["GPT2Model"],
    ["BertForTokenClassification"], ["BertForSequenceClassification"], [None], {}, {"0": "a"}, {"a": {"b": [1]}},
)  # fmt: skip
MORE_KEYS = (
    "head_dim", "num_labels", "id2label", "classifier_dropout", "hidden_dropout", "num_decoder_layers", "n_inner",
    "feed_forward_proj", "quantization_config", "pruned_heads", "mlp_bias", "_name_or_path", "is_decoder",
    "scale_attn_weights", "tie_word_embeddings", "is_encoder_decoder", "relative_attention_max_distance", "", "\ud800",
)  # fmt: skip


def mutant(seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    config = copy.deepcopy(chance.choice((BERT, GPT2, LLAMA, T5)))
    for _ in range(chance.randint(1, 4)):
        key = chance.choice((*config, *MORE_KEYS))
        kind = chance.random()
        if kind < 0.2:
            config.pop(key, None)
        elif kind < 0.3:
            config[key] = config.get(chance.choice(tuple(config) or ("x",)))
        else:
            config[key] = chance.choice(ODD_VALUES)
    return config


def check_message(error: MemplanError) -> None:
    assert str(error).encode()  # can be printed: no lone surrogate came through
    assert len(str(error)) < 5000


@pytest.mark.parametrize("block", range(20))
def test_mutated_configs(block: int) -> None:
    """100 mutants a block, 2,000 in all; the seed of a failure is in its traceback."""
    for seed in range(100 * block, 100 * (block + 1)):
        config = mutant(seed)
        try:
            model = from_config(config, "config.json")
        except MemplanError as error:
            check_message(error)
        else:
            assert isinstance(model, Transformer)
            assert parameter_count(model) > 0


@pytest.mark.parametrize("name", ["config.json", "model.toml"])
@pytest.mark.parametrize("block", range(5))
def test_mutated_bytes(tmp_path: Path, name: str, block: int) -> None:
    """Bytes of a good file cut, doubled and overwritten."""
    good = (json.dumps(BERT) if name.endswith("json") else GOOD).encode()
    path = tmp_path / name
    for seed in range(100 * block, 100 * (block + 1)):
        chance = random.Random(seed)
        content = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            start = chance.randrange(len(content))
            end = min(len(content), start + chance.randint(1, 12))
            content[start:end] = chance.choice(
                (b"", content[start:end] * 2, bytes([chance.randrange(256)]), b'"', b"[", b"]", b"=", b"\n", b"{", b"9")
            )
        path.write_bytes(bytes(content))
        try:
            model = load_model(path) if name.endswith("json") else load_request(path)[0]
        except MemplanError as error:
            check_message(error)
        else:
            assert isinstance(model, (Transformer, LibraryModel))
