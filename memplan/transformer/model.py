"""The whole transformer: token vectors, encoder, decoder, head."""

from __future__ import annotations

from collections.abc import Callable

from memplan.config.model import Transformer as Configuration
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import cat
from memplan.transformer.heads import LanguageModellingHead, make_head
from memplan.transformer.layers import Embedding
from memplan.transformer.masks import attention_mask
from memplan.transformer.sizes import Sizes
from memplan.transformer.stack import Stack


class Batch:
    """One micro-batch. Teacher forcing: `labels` are the tokens the decoder should say next at every position."""

    def __init__(
        self,
        tokens: Tensor,  # [B, S]
        labels: Tensor,  # [B, S], or [B] where the whole input has one label
        real: Tensor | None = None,  # [B, S], False where a token is padding
        token_types: Tensor | None = None,  # [B, S]
        source: Tensor | None = None,  # [B, T], encoder-decoder only
        source_real: Tensor | None = None,  # [B, T]
    ) -> None:
        self.tokens = tokens
        self.labels = labels
        self.real = real
        self.token_types = token_types
        self.source = source
        self.source_real = source_real


class Prompt:
    """What a model reads before it writes: the decoder's prompts, padded on the left where they differ in length, and
    the encoder's source. An encoder alone reads, padded on the right."""

    def __init__(
        self,
        tokens: Tensor,  # [B, S]
        real: Tensor | None = None,  # [B, S], False where a token is padding
        token_types: Tensor | None = None,  # [B, S]
        source: Tensor | None = None,  # [B, T], encoder-decoder only
        source_real: Tensor | None = None,  # [B, T]
    ) -> None:
        self.tokens = tokens
        self.real = real
        self.token_types = token_types
        self.source = source
        self.source_real = source_real


class Transformer(Module):
    """Encoder-only, decoder-only, or encoder-decoder with cross-attention."""

    def __init__(
        self,
        trace: Trace,
        config: Configuration,
        sizes: Sizes,
        kernel: Kernel = "flash",
        recompute: Recompute = "none",
        every_layer: bool = False,
        recompute_every: int = 1,
    ) -> None:
        super().__init__(trace)
        self.kernel = kernel
        self.class_token = config.head == "classification" and config.pooling == "class_token"
        self.token_embedding = Embedding(trace, sizes.vocabulary, sizes.hidden)
        self.encoder: Stack | None = None
        self.decoder: Stack | None = None
        if config.architecture != "decoder":
            layers = config.num_layers if config.architecture == "encoder" else config.num_encoder_layers
            self.encoder = Stack(
                trace, config, sizes, layers, kernel, recompute, False, False, every_layer, recompute_every
            )
        if config.architecture != "encoder":
            cross = config.architecture == "encoder-decoder"
            layers = config.num_layers
            self.decoder = Stack(
                trace, config, sizes, layers, kernel, recompute, True, cross, every_layer, recompute_every
            )
        self.head = make_head(trace, config, sizes)
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
            memory_mask = attention_mask(memory, batch.source_real, False, self.kernel)
            x = self.decoder(self.token_embedding(batch.tokens), batch.real, None, memory, memory_mask)
            made = head(x, batch.real)
        return made

    def with_class_token(self, real: Tensor | None) -> Tensor | None:
        """The class token in front is always real."""
        if real is None or not self.class_token:
            return real
        return cat((empty(real.trace, (real.shape[0], 1), "bool", "aten::new_ones"), real), 1)
