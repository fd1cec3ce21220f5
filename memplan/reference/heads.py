"""What the hidden states are for: the next word, one label for the input, or one label for each token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memplan.config.model import Transformer
from memplan.reference.attention import soft_cap
from memplan.reference.feedforward import activation_function
from memplan.reference.norm import make_norm


class LanguageModellingHead(nn.Module):
    """Logits over the vocabulary for each position; BERT transforms the hidden states first."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size) if config.head_transform else None
        self.activation = activation_function(config.activation)
        self.norm = make_norm(config) if config.head_transform else None
        self.projection = nn.Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
        self.soft_cap = config.logit_soft_cap

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        return self.logits(self.transformed(x, real))

    def transformed(self, x: Tensor, real: Tensor | None) -> Tensor:
        """What the logits are made from, [B, S, E]."""
        if self.transform is not None and self.norm is not None:
            x = self.norm(self.activation(self.transform(x)))
        return x

    def logits(self, x: Tensor) -> Tensor:
        """[..., E] -> [..., V]."""
        logits: Tensor = self.projection(x)
        return soft_cap(logits, self.soft_cap) if self.soft_cap else logits

    def chunk_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of x [C, E] against labels [C], in fp32 and summed."""
        logits = self.logits(x)
        return F.cross_entropy(logits.float(), labels, reduction="sum")


class TokenClassificationHead(nn.Module):
    """Logits over the labels for each position."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.residual_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(x))  # [B, S, labels]
        return logits


class ClassificationHead(nn.Module):
    """Logits over the labels for the whole input, seen through one vector."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if config.pooler else None
        self.dropout = nn.Dropout(config.residual_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        pooled = self.pool(x, real)  # [B, E]
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        logits: Tensor = self.classifier(self.dropout(pooled))  # [B, labels]
        return logits

    def pool(self, x: Tensor, real: Tensor | None) -> Tensor:
        """The first position (a class token stands there), the last one, or the mean of the real ones."""
        if self.pooling in ("class_token", "first"):
            return x.select(1, 0)  # x[:, 0] without the slice that older PyTorch makes of the colon
        if self.pooling == "last":
            return x.select(1, -1)
        if real is None:
            return x.mean(dim=1)
        weights = real.to(x.dtype).unsqueeze(-1)  # [B, S, 1]
        return (x * weights).sum(dim=1) / weights.sum(dim=1)


def make_head(config: Transformer) -> nn.Module:
    """The head the configuration asks for."""
    if config.head == "language_modelling":
        return LanguageModellingHead(config)
    return TokenClassificationHead(config) if config.head == "token_classification" else ClassificationHead(config)
