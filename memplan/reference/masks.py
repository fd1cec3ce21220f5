"""Who may look at whom."""

from __future__ import annotations

import torch
from torch import Tensor

from memplan.config.run import Attention as Kernel


def attention_mask(x: Tensor, real: Tensor | None, causal: bool, kernel: Kernel) -> Tensor | None:
    """The mask for queries x [B, S, ...] over keys of which `real` [B, T] are tokens and not padding.

    Naive attention wants True where a query must not look, flash attention True where it may; flash attention needs
    no mask at all to hide the future. None: everybody sees everything.
    """
    visible: Tensor | None = None
    if real is not None:
        visible = real[:, None, None, :]  # [B, 1, 1, T]
    if causal and (kernel == "naive" or visible is not None):
        length = x.shape[1]
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        visible = past if visible is None else visible & past
    if visible is None or kernel == "flash":
        return visible
    return ~visible
