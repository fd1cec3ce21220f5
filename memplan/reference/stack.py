"""A stack of blocks: the encoder, and the decoder with or without a source to look at."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.reference.block import Block
from memplan.reference.embeddings import InputEmbedding
from memplan.reference.masks import attention_mask
from memplan.reference.norm import make_norm
from memplan.reference.positions import RelativePositions, RotaryPositions


class Stack(nn.Module):
    """Embedded tokens in, hidden states out. With recompute = full each block keeps only its input."""

    def __init__(
        self, config: Transformer, layers: int, kernel: Kernel, recompute: Recompute, causal: bool, cross: bool
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.recompute = recompute
        self.causal = causal
        self.input = InputEmbedding(config)
        self.rotary = RotaryPositions(config) if config.positions == "rotary" else None
        relative = config.positions == "relative"
        self.relative = RelativePositions(config, bidirectional=not causal) if relative else None
        self.layers = nn.ModuleList(Block(config, kernel, causal, cross) for _ in range(layers))
        self.norm = make_norm(config) if config.final_norm else None

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
                x = checkpoint(layer, x, mask, rotary, bias, memory, memory_mask, use_reentrant=False)
            else:
                x = layer(x, mask, rotary, bias, memory, memory_mask)
        return x if self.norm is None else self.norm(x)
