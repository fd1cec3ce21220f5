"""Positions: the published definitions, written again here."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from memplan.reference.positions import (  # noqa: E402
    AlibiPositions,
    LearnedPositions,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
    rotate,
)

from .small import configuration  # noqa: E402


def t5_bucket(relative_position: Tensor, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """`relative_position` is key minus query.

    https://github.com/tensorflow/mesh/blob/master/mesh_tensorflow/transformer/transformer_layers.py,
    _relative_position_bucket, in fp64: the published code works in fp32, where a logarithm that should be whole may
    fall on either side.
    """
    result = torch.zeros_like(relative_position)
    distance = -relative_position
    if bidirectional:
        num_buckets //= 2
        result = (distance < 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = distance.clamp(min=0)
    max_exact = num_buckets // 2
    large = max_exact + (
        (distance.clamp(min=1).double() / max_exact).log()
        / math.log(max_distance / max_exact)
        * (num_buckets - max_exact)
    ).to(torch.long)
    large = large.clamp(max=num_buckets - 1)
    return result + torch.where(distance < max_exact, distance, large)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [2**-8]),
        (8, [2**-head for head in range(1, 9)]),
        (3, [2**-4, 2**-8, 2**-2]),
        (12, [*(2**-head for head in range(1, 9)), *(2 ** -(head / 2) for head in (1, 3, 5, 7))]),
    ],
)
def test_slopes_are_alibis(heads: int, expected: list[float]) -> None:
    """https://github.com/ofirpress/attention_with_linear_biases, get_slopes."""
    config = configuration(architecture="decoder", positions="alibi")
    assert AlibiPositions(config, causal=True).slopes(heads) == pytest.approx(expected)


def test_the_bias_of_a_decoder_is_that_of_an_encoder_but_for_what_softmax_does_not_see() -> None:
    config = configuration(architecture="decoder", positions="alibi")
    x = torch.zeros(2, 9, 24)
    causal, whole = AlibiPositions(config, True)(x), AlibiPositions(config, False)(x)
    assert (causal.shape, whole.shape) == ((1, 4, 1, 9), (1, 4, 9, 9))
    past = torch.ones(9, 9, dtype=torch.bool).tril()
    weights = [bias.masked_fill(~past, -torch.inf).softmax(-1) for bias in (causal, whole)]
    torch.testing.assert_close(*weights)
    torch.testing.assert_close(whole, whole.transpose(-2, -1))
    assert whole[0, 0, 5].tolist() == [-0.25 * abs(5 - key) for key in range(9)]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (4, 17), (8, 20), (7, 50), (32, 1000)])
def test_relative_buckets_are_t5s(bidirectional: bool, buckets: int, max_distance: int) -> None:
    config = configuration(
        architecture="encoder", positions="relative", relative_buckets=buckets, relative_max_distance=max_distance
    )
    positions = RelativePositions(config, bidirectional)
    distances = torch.arange(-1500, 1501)
    ours = torch.tensor([positions.bucket(int(distance)) for distance in distances])
    assert torch.equal(ours, t5_bucket(distances, bidirectional, buckets, max_distance))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_bias_is_looked_up_by_key_minus_query(bidirectional: bool) -> None:
    config = configuration(architecture="encoder", positions="relative")
    positions = RelativePositions(config, bidirectional)
    length = 40
    bias = positions(torch.zeros(2, length, config.hidden_size))
    assert bias.shape == (1, config.num_attention_heads, length, length)
    steps = torch.arange(length)
    buckets = t5_bucket(steps.unsqueeze(0) - steps.unsqueeze(1), bidirectional, 32, 128)
    assert torch.equal(bias[0], positions.table.weight[buckets].permute(2, 0, 1))


@pytest.mark.parametrize("head_dim", [2, 4, 16])
def test_rotary_scores_depend_on_the_distance_alone(head_dim: int) -> None:
    config = configuration(architecture="decoder", head_dim=head_dim)
    length = 33
    rotary = RotaryPositions(config)(torch.zeros(1, length, config.hidden_size))
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, head_dim), torch.randn(1, 1, 1, head_dim)
    queries = rotate(query.expand(1, length, 1, head_dim), rotary)[0, :, 0]  # the same vector at every position
    keys = rotate(key.expand(1, length, 1, head_dim), rotary)[0, :, 0]
    scores = queries @ keys.T
    for distance in range(-length + 1, length):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert scores[0].std() > 0.05, "and they do depend on it"
    torch.testing.assert_close(queries[0], query[0, 0, 0])  # position 0 is not turned
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(length))  # turning keeps lengths


def test_rotary_turns_pairs_by_position_times_frequency() -> None:
    config = configuration(architecture="decoder", head_dim=6)
    cosine, sine = RotaryPositions(config)(torch.zeros(1, 20, config.hidden_size))
    assert cosine.shape == sine.shape == (20, 1, 6)
    for position in range(20):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            for half in (pair, pair + 3):
                assert cosine[position, 0, half].item() == pytest.approx(math.cos(angle), abs=1e-5)
                assert sine[position, 0, half].item() == pytest.approx(math.sin(angle), abs=1e-5)
    x = torch.randn(1, 20, 2, 6)
    turned = rotate(x, (cosine, sine))
    expected = torch.view_as_complex(torch.stack((x[..., :3], x[..., 3:]), dim=-1)) * torch.complex(
        cosine[..., :3], sine[..., :3]
    )
    torch.testing.assert_close(turned, torch.cat((expected.real, expected.imag), dim=-1))


def test_sinusoids_are_those_of_the_paper() -> None:
    """https://arxiv.org/abs/1706.03762, section 3.5; sines in the first half of the width, cosines in the second."""
    table = SinusoidalPositions()(torch.zeros(1, 30, 8))[0]
    for position in range(30):
        for index in range(4):
            angle = position / 10_000 ** (2 * index / 8)
            assert table[position, index].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, index + 4].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_learned_positions_add_one_row_each() -> None:
    config = configuration(architecture="decoder", positions="learned", max_positions=12)
    positions = LearnedPositions(config)
    x = torch.randn(2, 7, config.hidden_size)
    torch.testing.assert_close(positions(x), x + positions.table.weight[:7])
