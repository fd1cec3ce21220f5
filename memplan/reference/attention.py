"""Multi-head attention, written out or in one of PyTorch's fused kernels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.reference.cache import Kept
from memplan.reference.positions import rotate

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}


def _groups_heads(query: Tensor, kernel: Kernel) -> bool:
    """Whether the kernel takes fewer key-value than query heads: flash does, on the CPU since PyTorch 2.9."""
    major, minor = torch.__version__.split(".")[:2]
    return kernel == "flash" and (query.device.type != "cpu" or (int(major), int(minor)) >= (2, 9))


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """x bent so that it stays within -cap and cap (Gemma 2, https://arxiv.org/abs/2408.00118, section 2)."""
    return torch.tanh(x / cap) * cap


class Attention(nn.Module):
    """Queries of x look at keys and values of `source` (x itself, or the encoder's output). With recompute = attention
    what lies between them and the mixed values is made again in the backward pass."""

    def __init__(self, config: Transformer, kernel: Kernel, causal: bool, recompute: Recompute = "none") -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.key_value_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = 1 / math.sqrt(config.head_dim) if config.scale_attention else 1.0
        self.soft_cap = config.attention_soft_cap
        self.dropout = config.attention_dropout
        self.kernel = kernel
        self.causal = causal
        self.recompute = recompute
        self.value_dim = config.value_head_dim or config.head_dim
        self.add_projections(config)

    def add_projections(self, config: Transformer) -> None:
        """The matrices that make queries, keys and values, and the one that joins the heads."""
        width = config.num_attention_heads * config.head_dim
        key_value_width = config.num_key_value_heads * config.head_dim
        self.query = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.key = nn.Linear(config.hidden_size, key_value_width, bias=config.attention_bias)
        self.value = nn.Linear(config.hidden_size, key_value_width, bias=config.attention_bias)
        self.output = nn.Linear(width, config.hidden_size, bias=config.attention_bias)

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        source: Tensor | None,  # [B, T, E]; None: what `kept` holds
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        kept: Kept | None = None,  # keys and values of earlier tokens
    ) -> Tensor:
        query, key, value = self.project(x, source, rotary, kept)
        attend, others = (self.naive, (mask, bias)) if self.kernel == "naive" else (self.fused, (mask,))
        if self.recompute == "attention":
            mixed = checkpoint(attend, query, key, value, *others, use_reentrant=False)
        else:
            mixed = attend(query, key, value, *others)
        mixed = mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * self.value_dim)
        output: Tensor = self.output(mixed)  # [B, S, E]
        return output

    def project(
        self, x: Tensor, source: Tensor | None, rotary: tuple[Tensor, Tensor] | None, kept: Kept | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, S, D], keys and values [B, K, T, D], with those of earlier tokens."""
        batch, length = x.shape[0], x.shape[1]
        query = self.query(x).view(batch, length, self.heads, self.head_dim)
        if source is None:
            assert kept is not None
            return (query.transpose(1, 2), *kept.read())
        source_length = source.shape[1]
        key = self.key(source).view(batch, source_length, self.key_value_heads, self.head_dim)
        value = self.value(source).view(batch, source_length, self.key_value_heads, self.head_dim)
        if rotary is not None:
            query = rotate(query, rotary)
            key = rotate(key, rotary)
        if kept is not None:
            return (query.transpose(1, 2), *kept.update(key.transpose(1, 2), value.transpose(1, 2)))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def naive(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, bias: Tensor | None) -> Tensor:
        """Scores written out in full, [B, H, S, T]. `hidden` is True where a query must not look."""
        if self.key_value_heads != self.heads:
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        scores = query @ key.transpose(-2, -1)
        if self.scale != 1.0:
            scores = scores * self.scale
        if self.soft_cap:
            scores = soft_cap(scores, self.soft_cap)
        if bias is not None:
            scores = scores + bias
        if hidden is not None:
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        scores = torch.softmax(scores, dim=-1)
        scores = F.dropout(scores, self.dropout, self.training)
        return scores @ value

    def fused(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Block by block, never all scores at once: flash (https://arxiv.org/abs/2205.14135) or memory-efficient
        attention (https://arxiv.org/abs/2112.05682). Fails where PyTorch would quietly take another kernel."""
        if self.key_value_heads != self.heads and not _groups_heads(query, self.kernel):
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        with sdpa_kernel(BACKENDS[self.kernel]):
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=visible,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=self.causal and visible is None and query.shape[2] == key.shape[2],
                scale=self.scale,
                enable_gqa=key.shape[1] != query.shape[1],
            )

    def repeat_heads(self, x: Tensor) -> Tensor:
        """[B, K, T, D] -> [B, H, T, D]: each key-value head serves a group of H / K query heads."""
        batch, heads, length, width = x.shape
        group = self.heads // heads
        return x.unsqueeze(2).expand(batch, heads, group, length, width).reshape(batch, self.heads, length, width)
