"""The rules that DeepSeek's attention and router need, against the PyTorch operations they stand for."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memplan.ops import complex, elementwise, groups, views  # noqa: E402
from memplan.ops.assign import assign  # noqa: E402
from memplan.ops.attention import masked_fill  # noqa: E402
from memplan.ops.tensor import Tensor, empty  # noqa: E402

from .harness import Input, assert_same_curve  # noqa: E402

EXAMPLES = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
FLOATS = st.sampled_from(("fp32", "bf16"))
SIZES = st.sampled_from((1, 2, 3, 8, 17, 33))


@EXAMPLES
@given(rows=SIZES, columns=SIZES, dtype=FLOATS, data=st.data())
def test_gather(rows: int, columns: int, dtype: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, columns))
    inputs = [Input((rows, columns), dtype), Input((rows, number), "int64", high=columns)]
    assert_same_curve(lambda x, places: x.gather(1, places), groups.gather, inputs)


@EXAMPLES
@given(rows=SIZES, number=SIZES, each=SIZES, dtype=FLOATS)
def test_a_mask_of_groups(rows: int, number: int, each: int, dtype: str) -> None:
    def real(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        score_mask = mask.unsqueeze(-1).expand(-1, number, each).reshape(-1, number * each)
        return x.masked_fill(~score_mask.bool(), 0.0)

    def sizes_only(x: Tensor, mask: Tensor) -> Tensor:
        score_mask = groups.members(mask, each)
        return masked_fill(x, groups.without(score_mask))

    inputs = [Input((rows, number * each), dtype), Input((rows, number), trained=False)]
    assert_same_curve(real, sizes_only, inputs)


@EXAMPLES
@given(batch=SIZES, heads=SIZES, length=SIZES, first=SIZES, second=SIZES, dtype=FLOATS, wide=st.booleans())
def test_a_tensor_written_in_two_parts(
    batch: int, heads: int, length: int, first: int, second: int, dtype: str, wide: bool
) -> None:
    """The second part is one for all heads, and may be of another dtype."""

    def real(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        written = x.new_empty(batch, heads, length, first + second)
        written[..., :first].copy_(x)
        written[..., first:].copy_(y.expand(-1, heads, -1, -1))
        return written

    def sizes_only(x: Tensor, y: Tensor) -> Tensor:
        written = empty(x.trace, (batch, heads, length, first + second), x.dtype, "aten::new_empty")
        written = assign(written, first, x)
        return assign(written, second, views.expand(y, (batch, heads, length, second)))

    inputs = [Input((batch, heads, length, first), dtype), Input((batch, 1, length, second), "fp32" if wide else dtype)]
    assert_same_curve(real, sizes_only, inputs)


@EXAMPLES
@given(batch=SIZES, heads=SIZES, length=SIZES, half=SIZES, dtype=FLOATS)
def test_turned_as_complex_numbers(batch: int, heads: int, length: int, half: int, dtype: str) -> None:
    def real(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
        pairs = torch.view_as_complex(x.transpose(1, 2).float().reshape(batch, heads, length, -1, 2))
        return torch.view_as_real(pairs * turns).flatten(3).type_as(x)

    def sizes_only(x: Tensor, angles: Tensor) -> Tensor:
        ones = empty(x.trace, angles.shape, "fp32", "aten::ones_like")
        turns = views.unsqueeze(complex.polar(ones, angles), 1)
        del ones
        wide = elementwise.to(views.transpose(x, 1, 2), "fp32")
        pairs = complex.view_as_complex(views.reshape(wide, (batch, heads, length, half, 2)))
        del wide
        flat = views.reshape(complex.view_as_real(complex.turn(pairs, turns)), (batch, heads, length, 2 * half))
        return elementwise.to(flat, x.dtype)

    inputs = [Input((batch, length, heads, 2 * half), dtype), Input((1, length, half), trained=False)]
    assert_same_curve(real, sizes_only, inputs)
