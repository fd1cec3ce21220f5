"""Multi-head latent attention: keys and values are made from one narrow vector for each token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.reference.attention import Attention
from memplan.reference.cache import Kept
from memplan.reference.positions import rotate


class LatentAttention(Attention):
    """As in DeepSeek-V2 (https://arxiv.org/abs/2405.04434, section 2.1), with nothing absorbed: what is kept
    of earlier tokens is the narrow vector, from which keys and values of all are made again for each new one.

    Of a head's width the last `rope_head_dim` are turned; that part of the key is one for all heads.
    """

    def add_projections(self, config: Transformer) -> None:
        size, rank, latent = config.hidden_size, config.q_lora_rank, config.kv_lora_rank
        self.latent = latent
        self.turned = config.rope_head_dim
        self.plain = config.head_dim - config.rope_head_dim
        self.query_down = nn.Linear(size, rank, bias=False) if rank else None
        self.query_norm = nn.RMSNorm(rank, eps=1e-5) if rank else None
        self.query = nn.Linear(rank or size, self.heads * self.head_dim, bias=False)
        self.down = nn.Linear(size, latent + self.turned, bias=False)
        self.norm = nn.RMSNorm(latent, eps=1e-5)
        self.up = nn.Linear(latent, self.heads * (self.plain + self.value_dim), bias=False)
        self.output = nn.Linear(self.heads * self.value_dim, size, bias=False)

    def project(
        self, x: Tensor, source: Tensor | None, rotary: tuple[Tensor, Tensor] | None, kept: Kept | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, S, head_dim], keys [B, H, T, head_dim], values [B, H, T, value_head_dim]."""
        assert rotary is not None
        batch, length = x.shape[0], x.shape[1]
        narrow = x if self.query_down is None or self.query_norm is None else self.query_norm(self.query_down(x))
        query = self.query(narrow).view(batch, length, self.heads, self.head_dim)
        plain, turned = query.split((self.plain, self.turned), dim=-1)
        query = torch.cat((plain, rotate(turned, rotary)), dim=-1)
        latent, turned = self.down(x).split((self.latent, self.turned), dim=-1)
        if kept is not None:
            narrow, turned = self.norm(latent), rotate(turned.unsqueeze(2), rotary)
            kept_narrow, kept_turned = kept.update(narrow.unsqueeze(1), turned.transpose(1, 2))
            key, value = self.expand(kept_narrow.squeeze(1), kept_turned.transpose(1, 2))
            return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        both = self.up(self.norm(latent)).view(batch, length, self.heads, self.plain + self.value_dim)
        plain, value = both.split((self.plain, self.value_dim), dim=-1)
        turned = rotate(turned.unsqueeze(2), rotary)  # [B, S, 1, rope_head_dim]
        key = torch.cat((plain, turned.expand(batch, length, self.heads, self.turned)), dim=-1)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def expand(self, narrow: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, T, H, head_dim] and values [B, T, H, value_head_dim] of narrow vectors [B, T, kv_lora_rank] and
        turned parts [B, T, 1, rope_head_dim]."""
        batch, length = narrow.shape[0], narrow.shape[1]
        both = self.up(narrow.reshape(batch * length, self.latent))
        both = both.view(batch, length, self.heads, self.plain + self.value_dim)
        plain, value = both.split((self.plain, self.value_dim), dim=-1)
        return torch.cat((plain, turned.expand(batch, length, self.heads, self.turned)), dim=-1), value


def make_attention(config: Transformer, kernel: Kernel, causal: bool, recompute: Recompute = "none") -> Attention:
    """The self-attention of a layer."""
    return (LatentAttention if config.kv_lora_rank else Attention)(config, kernel, causal, recompute)
