"""Each rule of the sizes-only engine against the PyTorch operation it stands for, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor as Real  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from memplan.ops import activation, elementwise, views  # noqa: E402
from memplan.ops.attention import fused_attention, masked_fill  # noqa: E402
from memplan.ops.dropout import dropout  # noqa: E402
from memplan.ops.embedding import embedding  # noqa: E402
from memplan.ops.linear import linear  # noqa: E402
from memplan.ops.loss import cross_entropy  # noqa: E402
from memplan.ops.matmul import matmul  # noqa: E402
from memplan.ops.norm import layer_norm, rms_norm  # noqa: E402
from memplan.ops.tensor import Tensor  # noqa: E402

from .harness import Input, assert_same_curve  # noqa: E402

EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
FLOATS = st.sampled_from(("fp32", "bf16"))
SIZES = st.sampled_from((1, 2, 3, 8, 13, 33))
THREADS = st.integers(1, 3)
SHAPES = st.lists(SIZES, min_size=2, max_size=4).map(tuple)


@EXAMPLES
@given(
    lead=st.lists(SIZES, min_size=1, max_size=2).map(tuple), inner=SIZES, outer=SIZES, bias=st.booleans(), dtype=FLOATS,
    trained=st.booleans(),
)  # fmt: skip
def test_linear(lead: tuple[int, ...], inner: int, outer: int, bias: bool, dtype: str, trained: bool) -> None:
    inputs = [Input((*lead, inner), dtype, trained), Input((outer, inner), dtype)]
    assert_same_curve(F.linear, linear, inputs + [Input((outer,), dtype)] * bias)


@EXAMPLES
@given(
    lead=st.lists(SIZES, min_size=1, max_size=2).map(tuple), inner=SIZES, outer=SIZES, bias=st.booleans(), dtype=FLOATS,
)  # fmt: skip
def test_linear_under_autocast(lead: tuple[int, ...], inner: int, outer: int, bias: bool, dtype: str) -> None:
    """Weights are fp32; the input may be either."""
    inputs = [Input((*lead, inner), dtype), Input((outer, inner))] + [Input((outer,))] * bias
    assert_same_curve(F.linear, linear, inputs, autocast=True)


@EXAMPLES
@given(
    lead=st.lists(SIZES, min_size=1, max_size=2).map(tuple), inner=SIZES, outer=SIZES, bias=st.booleans(), dtype=FLOATS,
    autocast=st.booleans(),
)  # fmt: skip
def test_weights_used_twice(
    lead: tuple[int, ...], inner: int, outer: int, bias: bool, dtype: str, autocast: bool
) -> None:
    """Autocast casts a weight once, and an input that is no leaf each time; gradients are added up.

    Left out: a product of one row and one column, whose gradients PyTorch takes for transposed ones. No layer of the
    transformer uses a weight twice, so nothing rests on the order in which those are dropped.
    """
    assume(inner > 1)

    def twice(function: Callable[..., Any], add: Callable[..., Any], mul: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Any, *weights: Any) -> Any:
            x = mul(x, 2.0)
            return add(function(x, *weights), function(x, *weights))

        return run

    weights = "fp32" if autocast else dtype
    assert_same_curve(
        twice(F.linear, torch.add, torch.mul),
        twice(linear, elementwise.add, elementwise.mul),
        [Input((*lead, inner), dtype), Input((outer, inner), weights)] + [Input((outer,), weights)] * bias,
        autocast=autocast,
    )


@EXAMPLES
@given(shape=SHAPES, dtype=FLOATS, weight=FLOATS, threads=THREADS)
def test_layer_norm(shape: tuple[int, ...], dtype: str, weight: str, threads: int) -> None:
    """Also of bf16 inputs with fp32 weights, as autocast has it."""
    weight = "fp32" if dtype == "fp32" else weight
    inputs = [Input(shape, dtype), Input(shape[-1:], weight), Input(shape[-1:], weight)]
    assert_same_curve(lambda x, w, b: F.layer_norm(x, w.shape, w, b), layer_norm, inputs, threads)


@EXAMPLES
@given(shape=SHAPES, dtype=FLOATS, weight=FLOATS)
def test_rms_norm(shape: tuple[int, ...], dtype: str, weight: str) -> None:
    weight = "fp32" if dtype == "fp32" else weight
    inputs = [Input(shape, dtype), Input(shape[-1:], weight)]
    assert_same_curve(lambda x, w: F.rms_norm(x, w.shape, w, 1e-5), rms_norm, inputs)


POINTWISE: dict[str, tuple[Callable[..., Real], Callable[..., Tensor]]] = {
    "gelu": (F.gelu, activation.gelu),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), activation.gelu),
    "relu": (F.relu, activation.relu),
    "silu": (F.silu, activation.silu),
    "tanh": (torch.tanh, activation.tanh),
    "softmax": (lambda x: torch.softmax(x, -1), activation.softmax),
    "dropout": (lambda x: F.dropout(x, 0.1), lambda x: dropout(x, 0.1)),
    "no dropout": (lambda x: F.dropout(x, 0.0) * 2.0, lambda x: elementwise.mul(dropout(x, 0.0), 2.0)),
    "neg": (torch.neg, elementwise.neg),
    "square": (lambda x: x.pow(2), elementwise.square),
    "add a number": (lambda x: x + 2.0, lambda x: elementwise.add(x, 2.0)),
    "mul by a number": (lambda x: x * 2.0, lambda x: elementwise.mul(x, 2.0)),
    "div by a number": (lambda x: x / 2.0, lambda x: elementwise.div(x, 2.0)),
    "to fp32 and back": (lambda x: x.float().to(x.dtype) * 2.0,
                         lambda x: elementwise.mul(elementwise.to(elementwise.to(x, "fp32"), x.dtype), 2.0)),
    "sum": (lambda x: x.sum(dim=1), lambda x: elementwise.total(x, 1)),
    "mean": (lambda x: x.mean(dim=1), lambda x: elementwise.mean(x, 1)),
    "mean of squares": (
        lambda x: x.pow(2).mean(-1, keepdim=True), lambda x: elementwise.mean(elementwise.square(x), -1, keepdim=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTWISE)
@EXAMPLES
@given(shape=SHAPES, dtype=FLOATS)
def test_of_one_tensor(name: str, shape: tuple[int, ...], dtype: str) -> None:
    real, sizes_only = POINTWISE[name]
    if dtype == "bf16" and "mean" in name:
        dtype = "fp32"  # means are taken in fp32 in the models; the rule says so for bf16 too, see below
    assert_same_curve(real, sizes_only, [Input(shape, dtype)])


@pytest.mark.parametrize("name", [name for name in POINTWISE if "mean" not in name and "sum" not in name])
@EXAMPLES
@given(shape=st.lists(SIZES, min_size=3, max_size=4).map(tuple), dtype=FLOATS)
def test_of_a_transposed_tensor(name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Outputs keep the layout of their input; copies are made where an operation needs rows."""
    real, sizes_only = POINTWISE[name]
    if name == "softmax":
        return  # it has its own layout rule and is never applied to a transposed tensor here
    assert_same_curve(
        lambda x: real(x.transpose(1, 2)).transpose(1, 2).reshape(shape),
        lambda x: views.reshape(views.transpose(sizes_only(views.transpose(x, 1, 2)), 1, 2), shape),
        [Input(shape, dtype)],
    )


@EXAMPLES
@given(
    shape=SHAPES, left=FLOATS, right=FLOATS, shorter=st.integers(0, 2), ones=st.integers(0, 3),
    operation=st.sampled_from(("add", "mul")), trained=st.booleans(),
)  # fmt: skip
def test_of_two_tensors(
    shape: tuple[int, ...], left: str, right: str, shorter: int, ones: int, operation: str, trained: bool
) -> None:
    """In one dtype or in two, the second one broadcast along leading dimensions, as biases and norms' weights are.

    The sum over two dimensions that are apart has no rule: in half precision PyTorch takes it in fp32.
    """
    other = tuple(1 if axis < ones else size for axis, size in enumerate(shape))[shorter:]
    if not other:
        return
    inputs = [Input(shape, left), Input(other, right, trained)]
    assert_same_curve(getattr(torch, operation), getattr(elementwise, operation), inputs)


@EXAMPLES
@given(shape=SHAPES, left=FLOATS, right=FLOATS, squeezed=st.integers(0, 15), operation=st.sampled_from(("add", "mul")))
def test_of_a_tensor_and_a_constant(
    shape: tuple[int, ...], left: str, right: str, squeezed: int, operation: str
) -> None:
    """The constant is broadcast along any dimensions, as masks, cosines and sines are."""
    other = tuple(1 if squeezed >> axis & 1 else size for axis, size in enumerate(shape))
    inputs = [Input(shape, left), Input(other, right, trained=False)]
    assert_same_curve(getattr(torch, operation), getattr(elementwise, operation), inputs)


@EXAMPLES
@given(shape=SHAPES, dtype=FLOATS)
def test_div_by_a_tensor(shape: tuple[int, ...], dtype: str) -> None:
    inputs = [Input(shape, dtype), Input((*shape[:-1], 1), dtype, trained=False)]
    assert_same_curve(torch.div, elementwise.div, inputs)


@EXAMPLES
@given(rows=SIZES, classes=st.sampled_from((1, 2, 7, 100)), dtype=FLOATS, autocast=st.booleans())
def test_cross_entropy(rows: int, classes: int, dtype: str, autocast: bool) -> None:
    """In fp32, as the training step has it."""
    inputs = [Input((rows, classes), dtype), Input((rows,), "int64", high=classes)]
    assert_same_curve(
        lambda x, y: F.cross_entropy(x.float(), y),
        lambda x, y: cross_entropy(elementwise.to(x, "fp32"), y),
        inputs,
        autocast=autocast,
    )


@EXAMPLES
@given(shape=st.lists(SIZES, min_size=1, max_size=2).map(tuple), rows=SIZES, width=SIZES, dtype=FLOATS)
def test_embedding(shape: tuple[int, ...], rows: int, width: int, dtype: str) -> None:
    inputs = [Input(shape, "int64", high=rows), Input((rows, width), dtype)]
    assert_same_curve(F.embedding, embedding, inputs)
    if len(shape) == 2:  # the gradient comes back with its rows apart
        assert_same_curve(
            lambda i, w: F.embedding(i, w).permute(2, 0, 1) * 2.0,
            lambda i, w: elementwise.mul(views.permute(embedding(i, w), (2, 0, 1)), 2.0),
            inputs,
        )


# --- attention -----------------------------------------------------------------------------------------------------

HEADS = st.sampled_from((1, 2, 3, 4))
LENGTHS = st.sampled_from((1, 2, 5, 16, 33))


@EXAMPLES
@given(
    batch=st.integers(1, 3), heads=HEADS, queries=LENGTHS, keys=LENGTHS, head_dim=st.sampled_from((1, 2, 7, 8)),
    dtype=FLOATS, autocast=st.booleans(),
)  # fmt: skip
def test_products_of_permuted_tensors(
    batch: int, heads: int, queries: int, keys: int, head_dim: int, dtype: str, autocast: bool
) -> None:
    """Naive attention's two products. [B, S, H, D] seen as [B, H, S, D] is copied, unless a size of 1 spares it."""

    def real(query: Real, key: Real, value: Real) -> Real:
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        mixed = (query @ key.transpose(-2, -1)) @ value
        return mixed.transpose(1, 2).reshape(batch, queries, heads * head_dim)

    def sizes_only(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (views.transpose(tensor, 1, 2) for tensor in (query, key, value))
        mixed = matmul(matmul(query, views.transpose(key, -2, -1)), value)
        return views.reshape(views.transpose(mixed, 1, 2), (batch, queries, heads * head_dim))

    key = Input((batch, keys, heads, head_dim), dtype)
    inputs = [Input((batch, queries, heads, head_dim), dtype), key, key]
    assert_same_curve(real, sizes_only, inputs, autocast=autocast)


@EXAMPLES
@given(
    batch=st.integers(1, 3), heads=HEADS, queries=LENGTHS, keys=LENGTHS, dtype=FLOATS,
    mask=st.sampled_from(("keys", "pairs", "both")),
)  # fmt: skip
def test_masked_fill(batch: int, heads: int, queries: int, keys: int, dtype: str, mask: str) -> None:
    shapes = {"keys": (batch, 1, 1, keys), "pairs": (queries, keys), "both": (batch, 1, queries, keys)}
    inputs = [Input((batch, heads, queries, keys), dtype), Input(shapes[mask], "bool")]
    assert_same_curve(lambda x, m: x.masked_fill(m, -1e9), masked_fill, inputs)


def check_flash(
    batch: int, heads: int, groups: int, queries: int, keys: int, head_dim: int, dtype: str, mask: str, threads: int,
    autocast: bool = False,
) -> None:  # fmt: skip
    def real(query: Real, key: Real, value: Real, visible: Real | None = None) -> Real:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            mixed = F.scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=visible,
                enable_gqa=groups != heads,
            )  # fmt: skip
        return mixed.transpose(1, 2).reshape(batch, queries, heads * head_dim)

    def sizes_only(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
        query, key, value = (views.transpose(tensor, 1, 2) for tensor in (query, key, value))
        mixed = fused_attention("flash", query, key, value, visible, 0.0)
        return views.reshape(views.transpose(mixed, 1, 2), (batch, queries, heads * head_dim))

    key = Input((batch, keys, groups, head_dim), dtype)
    inputs = [Input((batch, queries, heads, head_dim), dtype), key, key]
    shapes = {"keys": (batch, 1, 1, keys), "pairs": (batch, 1, queries, keys)}
    if mask in shapes:
        inputs.append(Input(shapes[mask], "bool"))
    assert_same_curve(real, sizes_only, inputs, threads, autocast)


@EXAMPLES
@given(
    batch=st.integers(1, 3), heads=st.sampled_from((1, 2, 4)), one_group=st.booleans(), queries=LENGTHS, keys=LENGTHS,
    head_dim=st.sampled_from((1, 4, 7, 16)), dtype=FLOATS, mask=st.sampled_from(("none", "keys", "pairs")),
    threads=THREADS, autocast=st.booleans(),
)  # fmt: skip
def test_flash_attention(
    batch: int, heads: int, one_group: bool, queries: int, keys: int, head_dim: int, dtype: str, mask: str,
    threads: int, autocast: bool,
) -> None:  # fmt: skip
    groups = 1 if one_group else heads
    check_flash(batch, heads, groups, queries, keys, head_dim, dtype, mask, threads, autocast)


@pytest.mark.parametrize("length", [31, 32, 33, 191, 192, 193, 511, 512, 513, 767, 768, 769])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_flash_attention_round_the_lengths_where_its_blocks_change(length: int, dtype: str) -> None:
    check_flash(1, 2, 1, length, length, 4, dtype, "none", threads=2)
    check_flash(1, 1, 1, length, 40, 4, dtype, "pairs", threads=3)
    check_flash(1, 1, 1, 40, length, 4, dtype, "keys", threads=1)


# --- views ---------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(batch=SIZES, length=SIZES, half=SIZES, dtype=FLOATS)
def test_halves_and_joins(batch: int, length: int, half: int, dtype: str) -> None:
    """chunk, neg, cat: what rotary positions do."""

    def real(x: Real) -> Real:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)

    def sizes_only(x: Tensor) -> Tensor:
        first, second = views.chunk(x, -1)
        return views.cat((elementwise.neg(second), first), -1)

    assert_same_curve(real, sizes_only, [Input((batch, length, 2 * half), dtype)])


@EXAMPLES
@given(batch=SIZES, length=SIZES, width=SIZES, dtype=FLOATS)
def test_a_row_in_front(batch: int, length: int, width: int, dtype: str) -> None:
    """cat with an expanded parameter: the class token."""
    assert_same_curve(
        lambda token, x: torch.cat((token.expand(batch, -1, -1), x), dim=1),
        lambda token, x: views.cat((views.expand(token, (batch, 1, width)), x), 1),
        [Input((1, 1, width), dtype), Input((batch, length, width), dtype)],
    )


@EXAMPLES
@given(batch=SIZES, length=SIZES, width=SIZES, dtype=FLOATS)
def test_one_position(batch: int, length: int, width: int, dtype: str) -> None:
    assert_same_curve(
        lambda x: x.select(1, 0) * 2.0,
        lambda x: elementwise.mul(views.select(x, 1), 2.0),
        [Input((batch, length, width), dtype)],
    )


@EXAMPLES
@given(batch=SIZES, groups=st.integers(1, 3), group=st.integers(1, 3), length=SIZES, width=SIZES, dtype=FLOATS)
def test_repeated_heads(batch: int, groups: int, group: int, length: int, width: int, dtype: str) -> None:
    """unsqueeze, expand, reshape: keys and values of grouped-query attention."""
    shape = (batch, groups * group, length, width)

    def real(x: Real) -> Real:
        return x.transpose(1, 2).unsqueeze(2).expand(batch, groups, group, length, width).reshape(shape) * 2.0

    def sizes_only(x: Tensor) -> Tensor:
        wide = views.expand(views.unsqueeze(views.transpose(x, 1, 2), 2), (batch, groups, group, length, width))
        return elementwise.mul(views.reshape(wide, shape), 2.0)

    assert_same_curve(real, sizes_only, [Input((batch, length, groups, width), dtype)])


@EXAMPLES
@given(shape=st.lists(SIZES, min_size=3, max_size=4).map(tuple), dtype=FLOATS, data=st.data())
def test_permuted_and_flattened(shape: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    total = 1
    for size in shape:
        total *= size
    assert_same_curve(
        lambda x: x.permute(order).reshape(total) * 2.0,
        lambda x: elementwise.mul(views.reshape(views.permute(x, order), (total,)), 2.0),
        [Input(shape, dtype)],
    )


@EXAMPLES
@given(shape=SHAPES, dtype=FLOATS, uses=st.integers(1, 4))
def test_a_tensor_used_many_times(shape: tuple[int, ...], dtype: str, uses: int) -> None:
    """Gradients that meet at a fan-out are added, in place where nobody else holds them."""

    def chain(scale: Callable[..., Any], add: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Any) -> Any:
            y = scale(x, 2.0)
            total = y
            for number in range(uses):
                total = add(total, scale(y, float(number)))
            return total

        return run

    assert_same_curve(chain(torch.mul, torch.add), chain(elementwise.mul, elementwise.add), [Input(shape, dtype)])
