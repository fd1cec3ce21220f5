"""What the hidden states are for: the next word, one label for the input, or one label for each token."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.ops.activation import tanh
from memplan.ops.elementwise import div, mean, mul, to, total
from memplan.ops.loss import cross_entropy
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import select, unsqueeze
from memplan.transformer.attention import soft_cap
from memplan.transformer.feedforward import activation_function
from memplan.transformer.layers import Dropout, Linear
from memplan.transformer.norm import make_norm
from memplan.transformer.sizes import Sizes


class LanguageModellingHead(Module):
    """Logits over the vocabulary for each position; BERT transforms the hidden states first."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.transform = Linear(trace, sizes.hidden, sizes.hidden) if config.head_transform else None
        self.activation = activation_function(config.activation)
        self.norm = make_norm(trace, config, sizes) if config.head_transform else None
        self.projection = Linear(trace, sizes.hidden, sizes.vocabulary, config.head_bias)
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
        return cross_entropy(to(logits, "fp32"), labels)


class TokenClassificationHead(Module):
    """Logits over the labels for each position."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.dropout = Dropout(trace, config.residual_dropout)
        self.classifier = Linear(trace, sizes.hidden, sizes.labels)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(x))  # [B, S, labels]
        return logits


class ClassificationHead(Module):
    """Logits over the labels for the whole input, seen through one vector."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.pooling = config.pooling
        self.pooler = Linear(trace, sizes.hidden, sizes.hidden) if config.pooler else None
        self.dropout = Dropout(trace, config.residual_dropout)
        self.classifier = Linear(trace, sizes.hidden, sizes.labels)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        pooled = self.pool(x, real)  # [B, E]
        if self.pooler is not None:
            pooled = tanh(self.pooler(pooled))
        logits: Tensor = self.classifier(self.dropout(pooled))  # [B, labels]
        return logits

    def pool(self, x: Tensor, real: Tensor | None) -> Tensor:
        """The first position (a class token stands there), the last one, or the mean of the real ones."""
        if self.pooling in ("class_token", "first", "last"):
            return select(x, 1)
        if real is None:
            return mean(x, 1)
        weights = unsqueeze(to(real, x.dtype), -1)  # [B, S, 1]
        return div(total(mul(x, weights), 1), total(weights, 1))


def make_head(trace: Trace, config: Transformer, sizes: Sizes) -> Module:
    """The head the configuration asks for."""
    if config.head == "language_modelling":
        return LanguageModellingHead(trace, config, sizes)
    kind = TokenClassificationHead if config.head == "token_classification" else ClassificationHead
    return kind(trace, config, sizes)
