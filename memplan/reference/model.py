"""The whole transformer: token vectors, encoder, decoder, head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memplan.config.model import Transformer as Configuration
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.reference.heads import LanguageModellingHead, make_head
from memplan.reference.masks import attention_mask
from memplan.reference.stack import Stack


@dataclass
class Batch:
    """One micro-batch. Teacher forcing: `labels` are the tokens the decoder should say next at every position."""

    tokens: Tensor  # [B, S]
    labels: Tensor  # [B, S], or [B] where the whole input has one label
    real: Tensor | None = None  # [B, S], False where a token is padding
    token_types: Tensor | None = None  # [B, S]
    source: Tensor | None = None  # [B, T], encoder-decoder only
    source_real: Tensor | None = None  # [B, T]


@dataclass
class Prompt:
    """What a model reads before it writes: the decoder's prompts, padded on the left where they differ in length, and
    the encoder's source. An encoder alone reads, padded on the right."""

    tokens: Tensor  # [B, S]
    real: Tensor | None = None  # [B, S], False where a token is padding
    token_types: Tensor | None = None  # [B, S]
    source: Tensor | None = None  # [B, T], encoder-decoder only
    source_real: Tensor | None = None  # [B, T]


class Transformer(nn.Module):
    """Encoder-only, decoder-only, or encoder-decoder with cross-attention."""

    def __init__(
        self,
        config: Configuration,
        kernel: Kernel = "flash",
        recompute: Recompute = "none",
        recompute_every: int = 1,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.class_token = config.head == "classification" and config.pooling == "class_token"
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder: Stack | None = None
        self.decoder: Stack | None = None
        if config.architecture != "decoder":
            layers = config.num_layers if config.architecture == "encoder" else config.num_encoder_layers
            self.encoder = Stack(config, layers, kernel, recompute, False, False, recompute_every)
        if config.architecture != "encoder":
            cross = config.architecture == "encoder-decoder"
            self.decoder = Stack(config, config.num_layers, kernel, recompute, True, cross, recompute_every)
        self.head = make_head(config)
        if config.tie_embeddings and isinstance(self.head, LanguageModellingHead):
            self.head.projection.weight = self.token_embedding.weight

    def forward(self, batch: Batch | Prompt) -> Tensor:
        return self.read(batch, self.head)

    def read(self, batch: Batch | Prompt, head: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        """What `head` makes of the hidden states [B, S, E] and of which tokens are real."""
        if self.decoder is None:
            assert self.encoder is not None
            real = self.with_class_token(batch.real)
            made = head(self.encoder(self.token_embedding(batch.tokens), real, batch.token_types), real)
        elif self.encoder is None:
            made = head(self.decoder(self.token_embedding(batch.tokens), batch.real), batch.real)
        else:
            memory = self.encoder(self.token_embedding(batch.source), batch.source_real)
            memory_mask = attention_mask(memory, batch.source_real, causal=False, kernel=self.kernel)
            x = self.decoder(self.token_embedding(batch.tokens), batch.real, None, memory, memory_mask)
            made = head(x, batch.real)
        return made

    def with_class_token(self, real: Tensor | None) -> Tensor | None:
        """The class token in front is always real."""
        if real is None or not self.class_token:
            return real
        return torch.cat((real.new_ones(real.shape[0], 1), real), dim=1)
