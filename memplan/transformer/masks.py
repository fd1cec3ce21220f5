"""Who may look at whom."""

from __future__ import annotations

from memplan.config.run import Attention as Kernel
from memplan.ops.elementwise import pointwise
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import unsqueeze


def attention_mask(x: Tensor, real: Tensor | None, causal: bool, kernel: Kernel) -> Tensor | None:
    """The mask for queries x [B, S, ...] over keys of which `real` [B, T] are tokens and not padding.

    Naive attention wants True where a query must not look, flash attention True where it may; flash attention needs
    no mask at all to hide the future. None: everybody sees everything.
    """
    visible: Tensor | None = None
    if real is not None:
        visible = unsqueeze(unsqueeze(real, 1), 1)  # [B, 1, 1, T]
    if causal and (kernel == "naive" or visible is not None):
        length = x.shape[1]
        ones = empty(x.trace, (length, length), "bool", "aten::ones")
        past = empty(x.trace, (length, length), "bool", "aten::tril")
        del ones
        visible = past if visible is None else pointwise("aten::bitwise_and", (visible, past))
    if visible is None or kernel == "flash":
        return visible
    return pointwise("aten::bitwise_not", (visible,))
