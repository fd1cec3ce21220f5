"""From token vectors to the input of a stack: scale, class token, positions, segments, norm, dropout."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.ops.elementwise import add, mul
from memplan.ops.module import Module, parameter
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, expand
from memplan.transformer.layers import Dropout, Embedding
from memplan.transformer.norm import make_norm
from memplan.transformer.positions import LearnedPositions, SinusoidalPositions
from memplan.transformer.sizes import Sizes


class InputEmbedding(Module):
    """What is added to the token vectors before the first block."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.scaled = config.scale_embeddings and config.hidden_size != 1
        with_class_token = config.head == "classification" and config.pooling == "class_token"
        self.class_token = parameter(trace, 1, 1, sizes.hidden) if with_class_token else None
        self.positions: Module | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(trace, config, sizes)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(trace)
        types = config.token_type_vocab_size
        self.token_types = Embedding(trace, sizes.token_types, sizes.hidden) if types else None
        self.norm = make_norm(trace, config, sizes) if config.embedding_norm else None
        self.dropout = Dropout(trace, config.embedding_dropout)

    def forward(self, x: Tensor, token_types: Tensor | None, places: Tensor | int = 0) -> Tensor:
        if self.scaled:
            x = mul(x, 1.0)
        if self.token_types is not None:
            x = add(x, self.token_types(token_types))
        if self.class_token is not None:
            x = cat((expand(self.class_token, (x.shape[0], 1, x.shape[2])), x), 1)  # [B, 1 + S, E]
        if self.positions is not None:
            x = self.positions(x, places)
        if self.norm is not None:
            x = self.norm(x)
        embedded: Tensor = self.dropout(x)  # [B, S, E]
        return embedded
