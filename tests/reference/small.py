"""Small reference transformers and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memplan.config.model import Transformer as Configuration
from memplan.config.run import Attention, Recompute
from memplan.config.validate import validate_model
from memplan.reference.model import Batch, Transformer

SMALL: dict[str, Any] = {
    "vocab_size": 29, "hidden_size": 24, "num_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "positions": "rotary", "tie_embeddings": False,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "norm": "rmsnorm", "activation": "swiglu", "num_key_value_heads": 2, "attention_bias": False,
    "feedforward_bias": False,
}  # fmt: skip
BERT: dict[str, Any] = {
    "positions": "learned", "max_positions": 40, "token_type_vocab_size": 2, "embedding_norm": True,
    "norm_placement": "post", "head_transform": True, "head_bias": True,
}  # fmt: skip
ORIGINAL: dict[str, Any] = {
    "positions": "sinusoidal", "norm_placement": "post", "activation": "relu", "scale_embeddings": True,
    "num_encoder_layers": 3,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "kv_lora_rank": 9, "q_lora_rank": 7, "rope_head_dim": 4, "head_dim": 10, "value_head_dim": 10,
    "attention_bias": False,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "decoder": {"architecture": "decoder"},
    "llama-like decoder": {"architecture": "decoder", **LLAMA},
    "multi-query decoder": {"architecture": "decoder", "num_key_value_heads": 1, "activation": "geglu"},
    "parallel decoder": {"architecture": "decoder", "parallel_blocks": True, "num_key_value_heads": 1},
    "alibi decoder": {"architecture": "decoder", "positions": "alibi"},
    "latent decoder": {"architecture": "decoder", **LATENT},
    "capped decoder": {"architecture": "decoder", "logit_soft_cap": 2},
    "encoder": {"architecture": "encoder", "activation": "silu"},
    "alibi encoder": {"architecture": "encoder", "positions": "alibi"},
    "bert-like encoder": {"architecture": "encoder", **BERT},
    "encoder-decoder": {"architecture": "encoder-decoder", **ORIGINAL},
    "llama-like encoder-decoder": {"architecture": "encoder-decoder", **LLAMA},
}
BATCH, LENGTH, SOURCE = 3, 11, 9
REAL = (11, 6, 3)  # real tokens of each sequence of a padded batch
SOURCE_REAL = (4, 9, 1)


def configuration(**changes: Any) -> Configuration:
    """A small validated configuration."""
    return validate_model(Configuration(**{**SMALL, **changes}))


def build(
    config: Configuration, kernel: Attention = "naive", recompute: Recompute = "none", seed: int = 0
) -> Transformer:
    """The model, with the same weights for the same seed. Norms, biases and class token are random too."""
    torch.manual_seed(seed)
    model = Transformer(config, kernel, recompute)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.shape[0] == 1:
                parameter.normal_(0.5, 0.5)
    return model


def mask(lengths: tuple[int, ...], longest: int) -> Tensor:
    """True for the first tokens of each sequence."""
    return torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)


def make_batch(config: Configuration, padding: bool = False, seed: int = 1) -> Batch:
    """Random tokens and labels."""
    torch.manual_seed(seed)
    classes = config.vocab_size if config.head == "language_modelling" else config.num_labels
    labels = (BATCH,) if config.head == "classification" else (BATCH, LENGTH)
    batch = Batch(torch.randint(0, config.vocab_size, (BATCH, LENGTH)), torch.randint(0, classes, labels))
    if padding:
        batch.real = mask(REAL, LENGTH)
    if config.token_type_vocab_size:
        batch.token_types = torch.randint(0, config.token_type_vocab_size, (BATCH, LENGTH))
    if config.architecture == "encoder-decoder":
        batch.source = torch.randint(0, config.vocab_size, (BATCH, SOURCE))
        batch.source_real = mask(SOURCE_REAL, SOURCE) if padding else None
    return batch


def with_token(tokens: Tensor, sequence: int, position: int, vocabulary: int) -> Tensor:
    """The same tokens but for one, which becomes another word."""
    changed = tokens.clone()
    changed[sequence, position] = (changed[sequence, position] + 1) % vocabulary
    return changed
