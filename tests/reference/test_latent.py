"""Latent attention against its definition (DeepSeek-V2, equations 9 to 19), head by head."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from memplan.reference.latent import LatentAttention  # noqa: E402
from memplan.reference.positions import RotaryPositions, rotate  # noqa: E402

from .small import LATENT, configuration  # noqa: E402


@pytest.mark.parametrize("rank", [0, 7])
@pytest.mark.parametrize("value_dim", [6, 10])
def test_latent_attention_is_as_defined(rank: int, value_dim: int) -> None:
    torch.manual_seed(0)
    config = configuration(architecture="decoder", **{**LATENT, "q_lora_rank": rank, "value_head_dim": value_dim})
    attention = LatentAttention(config, "naive", True)
    x = torch.randn(2, 5, 24)
    rotary = RotaryPositions(config)(x)
    hidden = ~torch.ones(5, 5, dtype=torch.bool).tril()
    narrow = x
    if rank:
        assert attention.query_norm is not None
        assert attention.query_down is not None
        narrow = attention.query_norm(attention.query_down(x))
    queries = attention.query(narrow).unflatten(-1, (4, 10))
    down = attention.down(x)
    both = attention.up(attention.norm(down[..., :9])).unflatten(-1, (4, 6 + value_dim))
    turned_key = rotate(down[..., None, 9:], rotary)[:, :, 0]  # one for all heads
    turned_queries = rotate(queries[..., 6:], rotary)
    heads = []
    for head in range(4):
        scores = queries[:, :, head, :6] @ both[:, :, head, :6].mT + turned_queries[:, :, head] @ turned_key.mT
        weights = (scores / math.sqrt(10)).masked_fill(hidden, -torch.inf).softmax(-1)
        heads.append(weights @ both[:, :, head, 6:])
    expected = attention.output(torch.cat(heads, -1))
    torch.testing.assert_close(attention(x, x, hidden, rotary), expected, rtol=1e-4, atol=1e-5)
