"""Matrix products (aten/src/ATen/native/LinearAlgebra.cpp)."""

from __future__ import annotations

import torch

from memplan.measure.tracing.call import Call, Script


def mm(call: Call) -> Script:
    """mm and addmm: an operand that BLAS cannot read as it lies is copied first (addmm_impl_cpu_)."""
    left, right = call.tensor("mat1" if "mat1" in call.arguments else "self"), call.tensor("mat2")
    script = call.script()
    script.outputs(0)
    for each in (left, right):
        if each.numel() and not _lies_in_rows(each):
            script.take(tuple(each.shape), each.dtype, "aten::clone")
    return script


def bmm(call: Call) -> Script:
    """Items one after another where MKL's batched product does not take them, each copied if need be
    (bmm_out_or_baddbmm_)."""
    plain = "mat2" in call.arguments
    left, right = call.tensor("self" if plain else "batch1"), call.tensor("mat2" if plain else "batch2")
    batch, rows, inner = left.shape
    script = call.script()
    script.outputs(0)
    if inner * rows * right.shape[2] < 400 or (left.is_contiguous() and right.is_contiguous()):
        return script
    if left.dtype in (torch.float32, torch.float64) and _batch_lies(left) and _batch_lies(right):
        return script
    copied = [each for each in (right, left) if not _lies_in_rows(each[0])]
    for _ in range(batch if copied else 0):
        script.free(*[script.take(tuple(each.shape[1:]), each.dtype, "aten::clone") for each in copied])
    return script


def _lies_in_rows(matrix: torch.Tensor) -> bool:
    """Whether rows or columns follow each other without a gap within."""
    rows, columns = matrix.shape
    down, across = matrix.stride()
    return (across == 1 and down >= max(1, columns)) or (down == 1 and across >= max(1, rows))


def _batch_lies(batch: torch.Tensor) -> bool:
    """As MKL's batched product wants it: a single row or column may lie anywhere."""
    _, rows, columns = batch.shape
    _, down, across = batch.stride()
    return (across == 1 and (rows == 1 or down >= columns)) or (down == 1 and (columns == 1 or across >= rows))


RULES = {"aten::mm": mm, "aten::addmm": mm, "aten::bmm": bmm, "aten::baddbmm": bmm}
