"""Multi-head latent attention: keys and values are made from one narrow vector for each token."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, expand, reshape, split, squeeze, transpose, unsqueeze
from memplan.transformer.attention import Attention
from memplan.transformer.cache import Kept
from memplan.transformer.layers import Linear, RMSNorm
from memplan.transformer.positions import rotate
from memplan.transformer.sizes import Sizes


class LatentAttention(Attention):
    """As in DeepSeek-V2, with nothing absorbed: what is kept of earlier tokens is the narrow vector, from which keys
    and values of all are made again for each new one.

    Of a head's width the last `rope_head_dim` are turned; that part of the key is one for all heads.
    """

    def add_projections(self, config: Transformer, sizes: Sizes) -> None:
        trace, size, rank, latent = self.trace, sizes.hidden, sizes.query_rank, sizes.latent
        self.latent = latent
        self.turned = sizes.turned
        self.plain = Size(sizes.head_dim - sizes.turned, "(head_dim - rope_head_dim)")
        self.query_down = Linear(trace, size, rank, False) if rank else None
        self.query_norm = RMSNorm(trace, rank) if rank else None
        self.query = Linear(trace, rank or size, sizes.width, False)
        self.down = Linear(trace, size, Size(latent + self.turned, "(kv_lora_rank + rope_head_dim)"), False)
        self.norm = RMSNorm(trace, latent)
        both = Size(self.plain + self.value_dim, "(head_dim - rope_head_dim + value_head_dim)")
        self.up = Linear(trace, latent, Size(self.heads * both, f"num_attention_heads * {both.name}"), False)
        self.output = Linear(trace, sizes.value_width, size, False)

    def project(
        self, x: Tensor, source: Tensor | None, rotary: tuple[Tensor, Tensor] | None, kept: Kept | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, S, head_dim], keys [B, H, T, head_dim], values [B, H, T, value_head_dim]."""
        assert rotary is not None
        batch, length = x.shape[0], x.shape[1]
        narrow = x if self.query_down is None or self.query_norm is None else self.query_norm(self.query_down(x))
        query = reshape(self.query(narrow), (batch, length, self.heads, self.head_dim))
        plain, turned = split(query, (self.plain, self.turned), -1)
        query = cat((plain, rotate(turned, rotary)), -1)
        latent, turned = split(self.down(x), (self.latent, self.turned), -1)
        if kept is not None:
            narrow, turned = self.norm(latent), rotate(unsqueeze(turned, 2), rotary)
            kept_narrow, kept_turned = kept.update(unsqueeze(narrow, 1), transpose(turned, 1, 2))
            key, value = self.expand(squeeze(kept_narrow, 1), transpose(kept_turned, 1, 2))
            return transpose(query, 1, 2), transpose(key, 1, 2), transpose(value, 1, 2)
        both = reshape(self.up(self.norm(latent)), (batch, length, self.heads, self.plain + self.value_dim))
        plain, value = split(both, (self.plain, self.value_dim), -1)
        turned = rotate(unsqueeze(turned, 2), rotary)  # [B, S, 1, rope_head_dim]
        key = cat((plain, expand(turned, (batch, length, self.heads, self.turned))), -1)
        return transpose(query, 1, 2), transpose(key, 1, 2), transpose(value, 1, 2)

    def expand(self, narrow: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, T, H, head_dim] and values [B, T, H, value_head_dim] of narrow vectors [B, T, kv_lora_rank] and
        turned parts [B, T, 1, rope_head_dim]."""
        batch, length = narrow.shape[0], narrow.shape[1]
        both = self.up(reshape(narrow, (product((batch, length)), self.latent)))
        both = reshape(both, (batch, length, self.heads, self.plain + self.value_dim))
        plain, value = split(both, (self.plain, self.value_dim), -1)
        return cat((plain, expand(turned, (batch, length, self.heads, self.turned))), -1), value


def make_attention(
    trace: Trace, config: Transformer, sizes: Sizes, kernel: Kernel, recompute: Recompute = "none"
) -> Attention:
    """The self-attention of a layer."""
    return (LatentAttention if config.kv_lora_rank else Attention)(trace, config, sizes, kernel, recompute)
