"""From token vectors to the input of a stack: scale, class token, positions, segments, norm, dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from memplan.config.model import Transformer
from memplan.reference.norm import make_norm
from memplan.reference.positions import LearnedPositions, SinusoidalPositions


class InputEmbedding(nn.Module):
    """What is added to the token vectors before the first block."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.scale = math.sqrt(config.hidden_size) if config.scale_embeddings else 1.0
        with_class_token = config.head == "classification" and config.pooling == "class_token"
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if with_class_token else None
        self.positions: nn.Module | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(config)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions()
        types = config.token_type_vocab_size
        self.token_types = nn.Embedding(types, config.hidden_size) if types else None
        self.norm = make_norm(config) if config.embedding_norm else None
        self.dropout = nn.Dropout(config.embedding_dropout)

    def forward(self, x: Tensor, token_types: Tensor | None, places: Tensor | int = 0) -> Tensor:
        if self.scale != 1.0:
            x = x * self.scale
        if self.token_types is not None:
            x = x + self.token_types(token_types)
        if self.class_token is not None:
            x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), x), dim=1)  # [B, 1 + S, E]
        if self.positions is not None:
            x = self.positions(x, places)
        if self.norm is not None:
            x = self.norm(x)
        embedded: Tensor = self.dropout(x)  # [B, S, E]
        return embedded
