"""Where a token stands: learned, sinusoidal, rotary and relative positions."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.ops.elementwise import add, arange, div, function, mul, neg, pointwise, subtract, to
from memplan.ops.embedding import embedding
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import cat, chunk, permute, unsqueeze
from memplan.transformer.layers import Embedding
from memplan.transformer.sizes import Sizes


def compute_dtype(x: Tensor) -> str:
    """The dtype matrix products run in: autocast's where it is on, else that of x."""
    return x.trace.autocast_dtype or x.dtype


def angles(x: Tensor, length: int, width: int) -> Tensor:
    """Position times frequency, [length, width / 2], in fp32."""
    exponents = div(arange(x, width // 2, "fp32"), float(width))
    frequencies = function("aten::exp", mul(exponents, -1.0))
    positions = arange(x, length, "fp32")
    return pointwise("aten::mul", (unsqueeze(positions, 1), frequencies))


class LearnedPositions(Module):
    """One trained vector for each position."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.table = Embedding(trace, sizes.max_positions, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        positions = arange(x, x.shape[1])
        placed: Tensor = add(x, self.table(positions))  # [B, S, E] + [S, E]
        return placed


class SinusoidalPositions(Module):
    """Sines and cosines of the position, half of the width each."""

    def forward(self, x: Tensor) -> Tensor:
        phase = angles(x, x.shape[1], x.shape[2])
        table = cat((function("aten::sin", phase), function("aten::cos", phase)), -1)  # [S, E]
        return add(x, to(table, x.dtype))


class RotaryPositions(Module):
    """Cosines and sines by which queries and keys are rotated."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.width = sizes.head_dim

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        phase = angles(x, x.shape[1], self.width)
        phase = unsqueeze(cat((phase, phase), -1), 1)  # [S, 1, D]
        dtype = compute_dtype(x)
        return to(function("aten::cos", phase), dtype), to(function("aten::sin", phase), dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, S, H, D] turned by its position: pairs are (i, i + D / 2)."""
    cosine, sine = rotary
    first, second = chunk(x, -1)
    return add(mul(x, cosine), mul(cat((neg(second), first), -1), sine))


class RelativePositions(Module):
    """T5's trained bias on the scores, by bucket of distance."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.table = Embedding(trace, sizes.relative_buckets, sizes.heads)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        positions = arange(x, length)
        distance = subtract(unsqueeze(positions, 0), unsqueeze(positions, 1))  # [S, T]: key minus query
        bucket_of_distance = arange(x, 2 * length - 1)
        bias = embedding(_look_up(bucket_of_distance, add(distance, length - 1)), self.table.weight)  # [S, T, H]
        return to(unsqueeze(permute(bias, (2, 0, 1)), 0), compute_dtype(x))  # [1, H, S, T]


def _look_up(table: Tensor, indices: Tensor) -> Tensor:
    """table[indices]."""
    return empty(table.trace, indices.shape, table.dtype, "aten::index")
