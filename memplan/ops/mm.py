"""Products of two matrices outside the graph (aten/src/ATen/native/LinearAlgebra.cpp, addmm_impl_cpu_)."""

from __future__ import annotations

from memplan.ops.tensor import Tensor, empty
from memplan.ops.workspaces import take_workspaces


def mm(left: Tensor, right: Tensor) -> Tensor:
    """left [n, k] @ right [k, m] -> [n, m]."""
    output = empty(left.trace, (left.shape[0], right.shape[1]), left.dtype, "aten::mm")
    take_workspaces(left.trace)
    return output


def add_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    """target.addmm_(left, right): added in place."""
    take_workspaces(target.trace)
