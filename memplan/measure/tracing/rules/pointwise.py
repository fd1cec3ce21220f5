"""Operations of one element at a time: what TensorIterator takes on the CPU (aten/src/ATen/TensorIterator.cpp,
compute_types): operands of another dtype are cast first, and a Python number is a tensor of 8 bytes
(torch/csrc/utils/python_arg_parser.h)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from memplan.measure.tracing.call import Call, Script

Number = bool | int | float

_KEPT = ("aten::mul", "aten::div", "aten::mul_", "aten::div_")
"""Operations that save a number's tensor for the other operand's gradient (tools/autograd/derivatives.yaml)."""

_WRAPS_SCALARS = frozenset(
    f"aten::{name}{suffix}"
    for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "rsub", "fmod", "remainder",
                 "bitwise_and", "bitwise_or", "bitwise_xor", "floor_divide")
    for suffix in ("", "_")
)  # fmt: skip
"""Operations whose overload for numbers makes a tensor of the number inside (wrapped_scalar_tensor)."""

_COMPLEX = ("aten::mul", "aten::add", "aten::sub")
"""Operations of which complex numbers have been held against real runs."""

_FLOATS = frozenset({"aten::div", "aten::sqrt", "aten::exp", "aten::rsqrt", "aten::sin", "aten::cos", "aten::sigmoid"})


def pointwise(call: Call) -> Script | None:
    """Casts of the operands, and the tensors of numbers."""
    script = call.script()
    operands = list(_operands(call))
    if call.name not in _COMPLEX and any(torch.is_tensor(each) and each.is_complex() for each in operands):
        return None
    common = _common_dtype(call, operands)
    for operand in operands:
        if isinstance(operand, torch.Tensor):
            if operand.dtype != common:
                script.cast(operand, common)
        elif call.overload.startswith("Tensor") and call.in_backward:
            # A number that was saved in the forward pass: only its cast is new.
            if number_dtype(operand) != common:
                script.take((), common, "aten::to")
        else:
            script.number(number_dtype(operand), common, kept=_keeps(call))
    if call.name.endswith("_") and call.output.dtype != common:
        script.cast(call.output, common)
    return script


def _operands(call: Call) -> Iterator[torch.Tensor | Number]:
    """The iterator's operands: every tensor, and every number that is made one."""
    wrapped = "other" if call.name in _WRAPS_SCALARS and call.overload.startswith("Scalar") else ""
    for argument in call.schema.arguments:
        value = call.arguments[argument.name]
        is_number = isinstance(value, (bool, int, float))
        if isinstance(value, torch.Tensor) or (
            is_number and ("Tensor" in str(argument.type) or argument.name == wrapped)
        ):
            yield value


def _common_dtype(call: Call, operands: list[torch.Tensor | Number]) -> torch.dtype:
    kind = ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT
    if call.name.rstrip("_") in _FLOATS:
        kind = ELEMENTWISE_TYPE_PROMOTION_KIND.INT_TO_FLOAT
    return elementwise_dtypes(*operands, type_promotion_kind=kind)[1]


def _keeps(call: Call) -> bool:
    """Whether the backward pass will want the number that `call` is given."""
    left = call["self"]
    return (
        call.name in _KEPT
        and call.overload == "Tensor"
        and torch.is_grad_enabled()
        and isinstance(left, torch.Tensor)
        and left.requires_grad
    )


def number_dtype(value: Number) -> torch.dtype:
    """The dtype of the tensor that a Python number is wrapped in."""
    if isinstance(value, bool):
        return torch.bool
    return torch.float64 if isinstance(value, float) else torch.int64


def where(call: Call) -> Script:
    """Both sides in their common dtype (aten/src/ATen/native/TensorCompare.cpp, where)."""
    script = call.script()
    wanted = call.output.dtype
    for name in ("self", "other"):
        value = call.arguments.get(name)
        if isinstance(value, torch.Tensor):
            if value.dtype != wanted:
                script.cast(value, wanted)
        elif isinstance(value, (bool, int, float)):
            script.number(number_dtype(value), wanted)
    return script


def power(call: Call) -> Script | None:
    """A number to the power of a tensor: the number's tensor is made beside the output (native/Pow.cpp)."""
    if call.overload != "Scalar":
        return pointwise(call)
    script = call.script()
    script.outputs(0)
    script.number(number_dtype(call["self"]), call.output.dtype)
    return script


_KNOWN = (
    "abs", "acos", "acosh", "add", "addcdiv", "addcmul", "asin", "asinh", "atan", "bitwise_and", "bitwise_not",
    "bitwise_or", "bitwise_xor", "ceil", "celu", "clamp", "clamp_min", "clamp_max", "cos", "cosh", "div", "elu", "eq",
    "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor", "fmod", "ge", "gelu", "gt", "hardshrink", "hardsigmoid",
    "hardtanh", "isnan", "le", "leaky_relu", "lerp", "log", "log10", "log1p", "log2", "logical_and", "logical_not",
    "logical_or", "logit", "logit_backward", "lt", "maximum", "minimum", "mish", "mul", "nan_to_num", "ne", "neg",
    "reciprocal", "relu", "remainder", "round", "rsqrt", "rsub", "sgn", "sigmoid", "sign", "silu", "sin", "sinh",
    "softplus", "softshrink", "sqrt", "sub", "tan", "tanh", "trunc", "xlogy",
)  # fmt: skip
"""Held against real runs by tests/tracing/test_operations.py."""

RULES = {
    "aten::where": where,
    "aten::pow": power,
    "aten::pow_": power,
    **{f"aten::{name}{suffix}": pointwise for name in _KNOWN for suffix in ("", "_")},
}
