"""Where a token stands: learned, sinusoidal, rotary and relative positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memplan.config.model import Transformer

BASE = 10_000.0


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype matrix products run in: autocast's where it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def angles(x: Tensor, length: int, width: int) -> Tensor:
    """Position times frequency, [length, width / 2], in fp32 ("Attention Is All You Need", section 3.5)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=x.device) / width
    frequencies = torch.exp(exponents * -math.log(BASE))
    positions = torch.arange(length, dtype=torch.float32, device=x.device)
    return torch.outer(positions, frequencies)


class LearnedPositions(nn.Module):
    """One trained vector for each position."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_positions, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        placed: Tensor = x + self.table(positions)  # [B, S, E] + [S, E]
        return placed


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the position, half of the width each."""

    def forward(self, x: Tensor) -> Tensor:
        phase = angles(x, x.shape[1], x.shape[2])
        table = torch.cat((phase.sin(), phase.cos()), dim=-1)  # [S, E]
        return x + table.to(x.dtype)


class RotaryPositions(nn.Module):
    """Cosines and sines by which queries and keys are rotated (RoFormer, https://arxiv.org/abs/2104.09864)."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.width = config.head_dim

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        phase = angles(x, x.shape[1], self.width)
        phase = torch.cat((phase, phase), dim=-1).unsqueeze(1)  # [S, 1, D]
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

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        positions = torch.arange(length, device=x.device)
        distance = positions.unsqueeze(0) - positions.unsqueeze(1)  # [S, T]: key minus query
        bucket_of_distance = torch.tensor(
            [self.bucket(offset) for offset in range(1 - length, length)], device=x.device
        )
        bias = F.embedding(bucket_of_distance[distance + (length - 1)], self.table.weight)  # [S, T, H]
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
