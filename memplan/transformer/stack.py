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
from memplan.transformer.embeddings import InputEmbedding
from memplan.transformer.masks import attention_mask
from memplan.transformer.norm import make_norm
from memplan.transformer.positions import RelativePositions, RotaryPositions
from memplan.transformer.sizes import Sizes


class Stack(Module):
    """Embedded tokens in, hidden states out. With recompute = full each block keeps only its input.

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
    ) -> None:
        super().__init__(trace)
        self.kernel = kernel
        self.recompute = recompute
        self.causal = causal
        self.input = InputEmbedding(trace, config, sizes)
        self.rotary = RotaryPositions(trace, config, sizes) if config.positions == "rotary" else None
        relative = config.positions == "relative"
        self.relative = RelativePositions(trace, config, sizes) if relative else None
        self.layers = repeated(trace, layers, lambda: Block(trace, config, sizes, kernel, cross), every_layer)
        self.norm = make_norm(trace, config, sizes) if config.final_norm else None

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        real: Tensor | None,  # [B, S], False where a token is padding
        token_types: Tensor | None = None,
        memory: Tensor | None = None,  # [B, T, E]
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        x = self.input(x, token_types)
        mask = attention_mask(x, real, self.causal, self.kernel)
        rotary = self.rotary(x) if self.rotary is not None else None
        bias = self.relative(x) if self.relative is not None else None
        for layer in self.layers:
            if self.recompute == "full":
                x = checkpoint(layer, x, mask, rotary, bias, memory, memory_mask)
            else:
                x = layer(x, mask, rotary, bias, memory, memory_mask)
        return x if self.norm is None else self.norm(x)
