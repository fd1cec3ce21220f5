"""Multi-head attention, and the two ways to compute it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.reference.positions import rotate


def _groups_heads_in_flash(query: Tensor) -> bool:
    """Whether the flash kernel takes fewer key-value heads than query heads: on the CPU since PyTorch 2.9."""
    major, minor = torch.__version__.split(".")[:2]
    return query.device.type != "cpu" or (int(major), int(minor)) >= (2, 9)


class Attention(nn.Module):
    """Queries of x look at keys and values of `source` (x itself, or the encoder's output)."""

    def __init__(self, config: Transformer, kernel: Kernel, causal: bool) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.key_value_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = 1 / math.sqrt(config.head_dim) if config.scale_attention else 1.0
        self.dropout = config.attention_dropout
        self.kernel = kernel
        self.causal = causal
        width = config.num_attention_heads * config.head_dim
        key_value_width = config.num_key_value_heads * config.head_dim
        self.query = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.key = nn.Linear(config.hidden_size, key_value_width, bias=config.attention_bias)
        self.value = nn.Linear(config.hidden_size, key_value_width, bias=config.attention_bias)
        self.output = nn.Linear(width, config.hidden_size, bias=config.attention_bias)

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        source: Tensor,  # [B, T, E]
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        batch, length, source_length = x.shape[0], x.shape[1], source.shape[1]
        query = self.query(x).view(batch, length, self.heads, self.head_dim)
        key = self.key(source).view(batch, source_length, self.key_value_heads, self.head_dim)
        value = self.value(source).view(batch, source_length, self.key_value_heads, self.head_dim)
        if rotary is not None:
            query = rotate(query, rotary)
            key = rotate(key, rotary)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if self.kernel == "naive":
            mixed = self.naive(query, key, value, mask, bias)
        else:
            mixed = self.flash(query, key, value, mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim)
        output: Tensor = self.output(mixed)  # [B, S, E]
        return output

    def naive(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, bias: Tensor | None) -> Tensor:
        """Scores written out in full, [B, H, S, T]. `hidden` is True where a query must not look."""
        if self.key_value_heads != self.heads:
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        scores = query @ key.transpose(-2, -1)
        if self.scale != 1.0:
            scores = scores * self.scale
        if bias is not None:
            scores = scores + bias
        if hidden is not None:
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        scores = torch.softmax(scores, dim=-1)
        scores = F.dropout(scores, self.dropout, self.training)
        return scores @ value

    def flash(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Block by block, never all scores at once (https://arxiv.org/abs/2205.14135). Fails where PyTorch would
        quietly take another kernel."""
        if self.key_value_heads != self.heads and not _groups_heads_in_flash(query):
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=visible,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=self.causal and visible is None,
                scale=self.scale,
                enable_gqa=key.shape[1] != query.shape[1],
            )

    def repeat_heads(self, x: Tensor) -> Tensor:
        """[B, K, T, D] -> [B, H, T, D]: each key-value head serves a group of H / K query heads."""
        batch, heads, length, width = x.shape
        group = self.heads // heads
        return x.unsqueeze(2).expand(batch, heads, group, length, width).reshape(batch, self.heads, length, width)
