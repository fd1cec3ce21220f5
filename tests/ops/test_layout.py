"""Strides against PyTorch's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memplan.ops.layout import (  # noqa: E402
    broadcast_shape,
    contiguous_strides,
    elementwise_strides,
    is_contiguous,
    is_dense,
    view_strides,
)

EXAMPLES = settings(max_examples=500, deadline=None)
SIZES = st.sampled_from((1, 1, 2, 3, 4, 6))
SHAPES = st.lists(SIZES, min_size=1, max_size=5).map(tuple)
Shape = tuple[int, ...]


@st.composite
def tensors(draw: st.DrawFn, shape: Shape | None = None) -> torch.Tensor:
    """A tensor after some permutations, expansions, slices, insertions: any layout that views can make."""
    tensor = torch.empty(draw(SHAPES) if shape is None else shape)
    for _ in range(draw(st.integers(0, 3))):
        step = draw(st.sampled_from(("permute", "expand", "narrow", "unsqueeze", "chunk")))
        axis = draw(st.integers(0, tensor.dim() - 1))
        if step == "permute":
            tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
        elif step == "expand" and tensor.shape[axis] == 1:
            tensor = tensor.expand(*(3 if place == axis else -1 for place in range(tensor.dim())))
        elif step == "narrow" and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 1, tensor.shape[axis] - 1)
        elif step == "unsqueeze" and tensor.dim() < 5:
            tensor = tensor.unsqueeze(axis)
        elif step == "chunk" and tensor.shape[axis] % 2 == 0:
            tensor = tensor.chunk(2, dim=axis)[0]
    return tensor


@st.composite
def regrouped(draw: st.DrawFn, shape: Shape) -> Shape:
    """Another shape of as many elements: the prime factors in order, grouped anew, with ones in between."""
    factors: list[int] = []
    for size in shape:
        while size > 1:
            factor = next(number for number in range(2, size + 1) if size % number == 0)
            factors.append(factor)
            size //= factor
    result = [1]
    for factor in factors:
        if draw(st.booleans()):
            result.append(1)
        result[-1] *= factor
    return tuple(result + [1] * draw(st.integers(0, 1)))


@EXAMPLES
@given(shape=SHAPES)
def test_contiguous_strides(shape: Shape) -> None:
    assert contiguous_strides(shape) == torch.empty(shape).stride()


@EXAMPLES
@given(tensor=tensors())
def test_is_contiguous(tensor: torch.Tensor) -> None:
    assert is_contiguous(tuple(tensor.shape), tensor.stride()) == tensor.is_contiguous()


@EXAMPLES
@given(tensor=tensors())
def test_is_dense(tensor: torch.Tensor) -> None:
    """What PyTorch calls non-overlapping and dense: `empty_like` then keeps the strides."""
    dense = torch.ops.aten.is_non_overlapping_and_dense(tensor)
    assert is_dense(tuple(tensor.shape), tensor.stride()) == dense


@EXAMPLES
@given(tensor=tensors(), data=st.data())
def test_view_strides(tensor: torch.Tensor, data: st.DataObject) -> None:
    """The strides PyTorch gives the view, or None where it refuses one."""
    target = data.draw(regrouped(tuple(tensor.shape)))
    try:
        expected = tensor.view(target).stride()
    except RuntimeError:
        assert view_strides(tuple(tensor.shape), tensor.stride(), target) is None
        return
    strides = view_strides(tuple(tensor.shape), tensor.stride(), target)
    assert strides is not None
    assert [stride for stride, size in zip(strides, target, strict=True) if size != 1] == [
        stride for stride, size in zip(expected, target, strict=True) if size != 1
    ]


@EXAMPLES
@given(tensor=tensors())
def test_elementwise_strides_of_one_operand(tensor: torch.Tensor) -> None:
    check_elementwise(tensor)


@EXAMPLES
@given(data=st.data())
def test_elementwise_strides_of_two_operands(data: st.DataObject) -> None:
    """Broadcast against each other, each with a layout of its own."""
    shape = data.draw(SHAPES)
    operands = []
    for _ in range(2):
        order = data.draw(st.permutations(range(len(shape))))
        small = tuple(1 if data.draw(st.booleans()) and data.draw(st.booleans()) else size for size in shape)
        inverse = sorted(range(len(shape)), key=lambda axis: order[axis])
        stored = torch.empty([small[axis] for axis in order]).permute(inverse)
        assert tuple(stored.shape) == small
        operands.append(stored)
    check_elementwise(*operands)


def check_elementwise(*operands: torch.Tensor) -> None:
    result = operands[0] + operands[1] if len(operands) == 2 else -operands[0]
    shape = tuple(result.shape)
    if len(operands) == 2:
        assert broadcast_shape(tuple(operands[0].shape), tuple(operands[1].shape)) == shape
    strides = elementwise_strides(shape, tuple((tuple(operand.shape), operand.stride()) for operand in operands))
    if strides is None:
        strides = contiguous_strides(shape)
    assert [stride for stride, size in zip(strides, shape, strict=True) if size != 1] == [
        stride for stride, size in zip(result.stride(), shape, strict=True) if size != 1
    ]
