"""One layer: attention, cross-attention where there is a source, feed-forward, each with its residual and norm."""

from __future__ import annotations

from torch import Tensor, nn

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.reference.attention import Attention
from memplan.reference.cache import KeptLayer
from memplan.reference.experts import make_feedforward
from memplan.reference.latent import make_attention
from memplan.reference.norm import make_norm


class Block(nn.Module):
    """Pre-norm: x + f(norm(x)). Post-norm: norm(x + f(x)). Parallel, as in GPT-J: x + f(norm(x)) + g(norm(x))."""

    def __init__(
        self, config: Transformer, kernel: Kernel, causal: bool, cross: bool, recompute: Recompute = "none"
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.pre_norm = config.norm_placement == "pre"
        self.attention_norm = make_norm(config)
        self.attention = make_attention(config, kernel, causal, recompute)
        self.cross_norm = make_norm(config) if cross else None
        self.cross_attention = Attention(config, kernel, causal=False, recompute=recompute) if cross else None
        self.feedforward_norm = None if config.parallel_blocks else make_norm(config)
        self.feedforward = make_feedforward(config)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        memory: Tensor | None = None,  # [B, T, E], the encoder's output; None once it is kept
        memory_mask: Tensor | None = None,
        kept: KeptLayer | None = None,
    ) -> Tensor:
        own, other = (None, None) if kept is None else kept
        if self.feedforward_norm is None:
            normed = self.attention_norm(x)
            x = x + self.dropout(self.attention(normed, normed, mask, rotary, bias, own))
            x = x + self.dropout(self.feedforward(normed))
        elif self.pre_norm:
            normed = self.attention_norm(x)
            x = x + self.dropout(self.attention(normed, normed, mask, rotary, bias, own))
            if self.cross_attention is not None and self.cross_norm is not None:
                normed = self.cross_norm(x)
                x = x + self.dropout(self.cross_attention(normed, memory, memory_mask, None, None, other))
            normed = self.feedforward_norm(x)
            x = x + self.dropout(self.feedforward(normed))
        else:
            x = self.attention_norm(x + self.dropout(self.attention(x, x, mask, rotary, bias, own)))
            if self.cross_attention is not None and self.cross_norm is not None:
                x = self.cross_norm(x + self.dropout(self.cross_attention(x, memory, memory_mask, None, None, other)))
            x = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return x
