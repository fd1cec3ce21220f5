"""Where a token stands: learned, sinusoidal, rotary and relative positions, and linear biases (ALiBi)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memplan.config.model import Transformer

BASE = 10_000.0


class Span(NamedTuple):
    """Which tokens look at which where keys are kept: queries from token `start` on, `keys` keys from `first` on."""

    start: int
    first: int
    keys: int


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype matrix products run in: autocast's where it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def angles(x: Tensor, width: int, places: Tensor | int) -> Tensor:
    """Position times frequency, [S, width / 2], in fp32 ("Attention Is All You Need", section 3.5). `places` is where
    the first token stands; or each one, [B, S], and the result [B, S, width / 2]."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=x.device) / width
    frequencies = torch.exp(exponents * -math.log(BASE))
    if isinstance(places, Tensor):
        return places.unsqueeze(-1) * frequencies
    positions = torch.arange(places, places + x.shape[1], dtype=torch.float32, device=x.device)
    return torch.outer(positions, frequencies)


class LearnedPositions(nn.Module):
    """One trained vector for each position."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_positions, config.hidden_size)

    def forward(self, x: Tensor, places: Tensor | int = 0) -> Tensor:
        positions = places
        if isinstance(positions, int):
            positions = torch.arange(positions, positions + x.shape[1], device=x.device)
        placed: Tensor = x + self.table(positions)  # [B, S, E] + [S, E] or [B, S, E]
        return placed


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the position, half of the width each."""

    def forward(self, x: Tensor, places: Tensor | int = 0) -> Tensor:
        phase = angles(x, x.shape[2], places)
        table = torch.cat((phase.sin(), phase.cos()), dim=-1)  # [S, E] or [B, S, E]
        return x + table.to(x.dtype)


class RotaryPositions(nn.Module):
    """Cosines and sines by which queries and keys are rotated (RoFormer, https://arxiv.org/abs/2104.09864)."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.width = config.rope_head_dim or config.head_dim

    def forward(self, x: Tensor, places: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        phase = angles(x, self.width, places)
        phase = torch.cat((phase, phase), dim=-1).unsqueeze(-2)  # [S, 1, D] or [B, S, 1, D]
        dtype = compute_dtype(x)
        return phase.cos().to(dtype), phase.sin().to(dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, S, H, D] turned by its position: pairs are (i, i + D / 2)."""
    cosine, sine = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class RelativePositions(nn.Module):
    """T5's trained bias on the scores, by bucket of distance (https://arxiv.org/abs/1910.10683, section 2.1)."""

    def __init__(self, config: Transformer, bidirectional: bool) -> None:
        super().__init__()
        self.buckets = config.relative_buckets
        self.max_distance = config.relative_max_distance
        self.bidirectional = bidirectional
        self.table = nn.Embedding(config.relative_buckets, config.num_attention_heads)

    def forward(self, x: Tensor, span: Span | None = None) -> Tensor:
        start, first, count = span or Span(0, 0, x.shape[1])
        positions = torch.arange(first, first + count, device=x.device)
        own = positions if span is None else torch.arange(start, start + x.shape[1], device=x.device)
        distance = positions.unsqueeze(0) - own.unsqueeze(1)  # [S, T]: key minus query
        least = first - start - x.shape[1] + 1
        bucket_of_distance = torch.tensor(
            [self.bucket(offset) for offset in range(least, first + count - start)], device=x.device
        )
        bias = F.embedding(bucket_of_distance[distance - least], self.table.weight)  # [S, T, H]
        return bias.permute(2, 0, 1).unsqueeze(0).to(compute_dtype(x))  # [1, H, S, T]

    def bucket(self, distance: int) -> int:
        """Near distances have a bucket each, far ones share logarithmically growing buckets."""
        buckets, first = self.buckets, 0
        if self.bidirectional:
            buckets //= 2
            first = buckets if distance > 0 else 0
            distance = abs(distance)
        else:
            distance = max(-distance, 0)
        exact = buckets // 2
        if distance < exact:
            return first + distance
        share = math.log(distance / exact) / math.log(self.max_distance / exact)
        return first + min(exact + int(share * (buckets - exact)), buckets - 1)


class AlibiPositions(nn.Module):
    """A fixed bias on the scores that falls with the distance, at a slope of its own for each head (ALiBi,
    https://arxiv.org/abs/2108.12409). Where the future is hidden the key's position alone does the same, since softmax
    does not see what all keys of a query have in common."""

    def __init__(self, config: Transformer, causal: bool) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.causal = causal

    def forward(self, x: Tensor, span: Span | None = None) -> Tensor:
        _, first, count = span or Span(0, 0, x.shape[1])
        positions = torch.arange(first, first + count, dtype=torch.float32, device=x.device)
        nearness = positions.unsqueeze(0)  # [1, T]
        if not self.causal:
            nearness = -(nearness - positions.unsqueeze(1)).abs()  # [S, T]
        slopes = torch.tensor(self.slopes(self.heads), device=x.device).view(-1, 1, 1)
        return (slopes * nearness).unsqueeze(0).to(compute_dtype(x))  # [1, H, 1 or S, T]

    def slopes(self, heads: int) -> list[float]:
        """A geometric sequence that ends at 1 / 256; where `heads` is no power of two, every second one of twice as
        many fills up."""
        power = 1 << (heads.bit_length() - 1)
        first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
        return first if power == heads else first + self.slopes(2 * power)[::2][: heads - power]
