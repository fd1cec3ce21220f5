"""Where a token stands: learned, sinusoidal, rotary and relative positions, and linear biases (ALiBi)."""

from __future__ import annotations

from typing import NamedTuple

from memplan.config.model import Transformer
from memplan.ops.elementwise import add, arange, div, function, mul, neg, pointwise, subtract, to
from memplan.ops.embedding import embedding
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import cat, chunk, permute, unsqueeze
from memplan.transformer.layers import Embedding
from memplan.transformer.sizes import Sizes


class Span(NamedTuple):
    """Which tokens look at which where keys are kept: queries from token `start` on, `keys` keys from `first` on."""

    start: int
    first: int
    keys: int


def compute_dtype(x: Tensor) -> str:
    """The dtype matrix products run in: autocast's where it is on, else that of x."""
    return x.trace.autocast_dtype or x.dtype


def angles(x: Tensor, width: int, places: Tensor | int) -> Tensor:
    """Position times frequency, [S, width / 2], in fp32; where `places` says where each token stands, [B, S], the
    result is [B, S, width / 2]."""
    exponents = div(arange(x, width // 2, "fp32"), float(width))
    frequencies = function("aten::exp", mul(exponents, -1.0))
    if isinstance(places, Tensor):
        return pointwise("aten::mul", (unsqueeze(places, -1), frequencies))
    positions = arange(x, x.shape[1], "fp32")
    return pointwise("aten::mul", (unsqueeze(positions, 1), frequencies))


class LearnedPositions(Module):
    """One trained vector for each position."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.table = Embedding(trace, sizes.max_positions, sizes.hidden)

    def forward(self, x: Tensor, places: Tensor | int = 0) -> Tensor:
        positions = places
        if isinstance(positions, int):
            positions = arange(x, x.shape[1])
        placed: Tensor = add(x, self.table(positions))  # [B, S, E] + [S, E] or [B, S, E]
        return placed


class SinusoidalPositions(Module):
    """Sines and cosines of the position, half of the width each."""

    def forward(self, x: Tensor, places: Tensor | int = 0) -> Tensor:
        phase = angles(x, x.shape[2], places)
        table = cat((function("aten::sin", phase), function("aten::cos", phase)), -1)  # [S, E] or [B, S, E]
        return add(x, to(table, x.dtype))


class RotaryPositions(Module):
    """Cosines and sines by which queries and keys are rotated."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        self.width = sizes.turned

    def forward(self, x: Tensor, places: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        phase = angles(x, self.width, places)
        phase = unsqueeze(cat((phase, phase), -1), -2)  # [S, 1, D] or [B, S, 1, D]
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

    def forward(self, x: Tensor, span: Span | None = None) -> Tensor:
        length = x.shape[1]
        count = length if span is None else span.keys
        positions = arange(x, count)
        own = positions if span is None else arange(x, length)
        distance = subtract(unsqueeze(positions, 0), unsqueeze(own, 1))  # [S, T]: key minus query
        bucket_of_distance = arange(x, count + length - 1)
        bias = embedding(_look_up(bucket_of_distance, subtract(distance, 0)), self.table.weight)  # [S, T, H]
        return to(unsqueeze(permute(bias, (2, 0, 1)), 0), compute_dtype(x))  # [1, H, S, T]


class AlibiPositions(Module):
    """A fixed bias on the scores that falls with the distance, at a slope of its own for each head."""

    def __init__(self, trace: Trace, sizes: Sizes, causal: bool) -> None:
        super().__init__(trace)
        self.heads = sizes.heads
        self.causal = causal

    def forward(self, x: Tensor, span: Span | None = None) -> Tensor:
        positions = arange(x, x.shape[1] if span is None else span.keys, "fp32")
        nearness = unsqueeze(positions, 0)  # [1, T]
        if not self.causal:
            nearness = function(
                "aten::neg", function("aten::abs", subtract(nearness, unsqueeze(positions, 1)))
            )  # [S, T]
        slopes = empty(x.trace, (self.heads, 1, 1), "fp32", "torch.tensor")
        return to(unsqueeze(pointwise("aten::mul", (slopes, nearness)), 0), compute_dtype(x))  # [1, H, 1 or S, T]


def _look_up(table: Tensor, indices: Tensor) -> Tensor:
    """table[indices]."""
    return empty(table.trace, indices.shape, table.dtype, "aten::index")
