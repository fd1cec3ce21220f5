"""Optimizers over lists of parameters (aten/src/ATen/native/ForeachOpsKernels.cpp): the CPU takes one tensor after
another. Fused optimizers take nothing (native/FusedAdam.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script
from memplan.measure.tracing.rules.plain import outputs_alone
from memplan.measure.tracing.rules.pointwise import number_dtype


def with_number(call: Call) -> Script:
    """Each tensor in turn with a number: the number's tensor and its cast, each time."""
    script = call.script()
    given = call.arguments.get("scalar", call.arguments.get("scalars", call.arguments.get("other")))
    targets = call["self"]
    numbers = given if isinstance(given, (list, tuple)) else [given] * len(targets)
    for place, (target, number) in enumerate(zip(targets, numbers, strict=True)):
        taken = []
        if isinstance(number, (int, float)) and isinstance(target, torch.Tensor):
            taken = script.number(number_dtype(number), target.dtype)
        if place < len(call.outputs):
            script.outputs(place)
        script.free(*taken)
    return script


RULES = {
    **{
        f"aten::_foreach_{name}{suffix}": with_number
        for name in ("add", "sub", "mul", "div", "maximum", "minimum")
        for suffix in ("", "_")
    },
    **{
        f"aten::_foreach_{name}{suffix}": outputs_alone
        for name in ("sqrt", "neg", "lerp", "addcmul", "addcdiv", "copy", "zero", "pow", "sign", "reciprocal")
        for suffix in ("", "_")
    },
    **{f"aten::_fused_{name}_": outputs_alone for name in ("adam", "adamw", "sgd")},
}
