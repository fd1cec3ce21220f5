"""A stack of blocks: the encoder, and the decoder with or without a source to look at."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.ops.checkpoint import checkpoint
from memplan.ops.module import Module, repeated
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.transformer.block import Block
from memplan.transformer.cache import Cache
from memplan.transformer.embeddings import InputEmbedding
from memplan.transformer.masks import attention_mask, biased_mask, kept_mask
from memplan.transformer.norm import make_norm
from memplan.transformer.positions import AlibiPositions, RelativePositions, RotaryPositions
from memplan.transformer.sizes import Sizes


class Stack(Module):
    """Embedded tokens in, hidden states out. With recompute = full every `recompute_every`th block, the first
    one among them, keeps only its input.

    Of many equal layers three are traced, unless `every_layer` asks for all of them.
    """

    def __init__(
        self,
        trace: Trace,
        config: Transformer,
        sizes: Sizes,
        layers: int,
        kernel: Kernel,
        recompute: Recompute,
        causal: bool,
        cross: bool,
        every_layer: bool,
        recompute_every: int = 1,
    ) -> None:
        super().__init__(trace)
        self.kernel = kernel
        self.causal = causal
        self.window = config.sliding_window
        self.input = InputEmbedding(trace, config, sizes)
        self.rotary = RotaryPositions(trace, config, sizes) if config.positions == "rotary" else None
        relative = config.positions == "relative"
        self.relative = RelativePositions(trace, config, sizes) if relative else None
        self.alibi = AlibiPositions(trace, sizes, causal) if config.positions == "alibi" else None

        def build(index: int) -> Block:
            return Block(trace, config, sizes, kernel, cross, recompute_of(index, recompute, recompute_every))

        self.layers = repeated(trace, layers, build, every_layer, recompute_every)
        self.norm = make_norm(trace, config, sizes) if config.final_norm else None

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        real: Tensor | None,  # [B, S], False where a token is padding
        token_types: Tensor | None = None,
        memory: Tensor | None = None,  # [B, T, E]
        memory_mask: Tensor | None = None,
        cache: Cache | None = None,
        places: Tensor | int = 0,  # of the first token, or of each, [B, S]
    ) -> Tensor:
        x = self.input(x, token_types, places)
        kernel = "naive" if self.alibi is not None else self.kernel  # with a bias the mask is written out in any case
        span = None if cache is None else cache.extend(x.shape[1])
        if span is None:
            mask = attention_mask(x, real, self.causal, kernel, self.window)
        else:
            mask = kept_mask(x, real, kernel, self.window, span)
        rotary = self.rotary(x, places) if self.rotary is not None else None
        bias = self.relative(x, span) if self.relative is not None else None
        if self.alibi is not None:
            bias = self.alibi(x, span)
            if self.kernel != "naive":
                mask, bias = biased_mask(bias, mask), None
        for number, layer in enumerate(self.layers):
            if layer.recompute == "full":
                x = checkpoint(layer, x, mask, rotary, bias, memory, memory_mask)
            else:
                kept = None if cache is None else cache.layers[number]
                x = layer(x, mask, rotary, bias, memory, memory_mask, kept)
        return x if self.norm is None else self.norm(x)


def recompute_of(layer: int, recompute: Recompute, every: int) -> Recompute:
    """What the layer of this number makes again in the backward pass."""
    return "none" if recompute == "full" and layer % every else recompute
