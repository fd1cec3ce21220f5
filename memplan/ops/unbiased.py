"""x @ weight.T as a model writes it: what torch.nn.functional.linear does, save that autocast's cast is of the
transposed view, which its cache does not take (aten/src/ATen/autocast_mode.cpp, cached_cast)."""

from __future__ import annotations

from memplan.ops.elementwise import to
from memplan.ops.linear import _product, _transposed
from memplan.ops.size import product
from memplan.ops.tensor import Tensor
from memplan.ops.views import reshape


def times_transposed(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] with weight [out, in] -> [..., out]."""
    shape = (*x.shape[:-1], weight.shape[0])
    transposed = _transposed(weight)
    dtype = x.trace.autocast_dtype
    if dtype is not None:  # the arguments are cast last to first
        transposed = to(transposed, dtype)
        x = to(x, dtype)
    flat = reshape(x, (product(shape[:-1]), x.shape[-1]))
    return reshape(_product(flat, transposed, None), shape)
