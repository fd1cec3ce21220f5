"""Who may look at whom."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from memplan.config.run import Attention as Kernel
from memplan.reference.positions import Span


def attention_mask(x: Tensor, real: Tensor | None, causal: bool, kernel: Kernel, window: int = 0) -> Tensor | None:
    """The mask for queries x [B, S, ...] over keys of which `real` [B, T] are tokens and not padding.

    Naive attention wants True where a query must not look, fused kernels True where it may; they need
    no mask at all to hide the future alone. With a `window` a query sees so many tokens, itself and those before it,
    and without `causal` as many after it. None: everybody sees everything.
    """
    visible: Tensor | None = None
    if real is not None:
        visible = real[:, None, None, :]  # [B, 1, 1, T]
    if window or (causal and (kernel == "naive" or visible is not None)):
        length = x.shape[1]
        near = torch.ones(length, length, dtype=torch.bool, device=x.device)
        near = near.tril() if causal else near.tril(window - 1)
        if window:
            near = near.triu(1 - window)
        visible = near if visible is None else visible & near
    if visible is None or kernel != "naive":
        return visible
    return ~visible


def kept_mask(x: Tensor, real: Tensor | None, kernel: Kernel, window: int, span: Span) -> Tensor | None:
    """The same for queries x over the keys of a cache, where `real` [B, all tokens so far] has the padding of all of
    them. What a cache has room for and does not hold yet is hidden as well. A single query sees every key there is: no
    layer with a window keeps more than that.
    """
    queries, behind = x.shape[1], span.start - span.first
    room = span.keys - behind - queries
    visible: Tensor | None = None
    if real is not None:
        seen = real[:, span.first :]
        visible = (F.pad(seen, (0, room)) if room else seen)[:, None, None, :]  # [B, 1, 1, T]
    if (room and visible is None) or (queries > 1 and (kernel == "naive" or visible is not None or window)):
        near = torch.ones(queries, span.keys, dtype=torch.bool, device=x.device)
        near = near.tril(behind)
        if window and queries > 1:
            near = near.triu(behind + 1 - window)
        visible = near if visible is None else visible & near
    if visible is None or kernel != "naive":
        return visible
    return ~visible


def biased_mask(bias: Tensor, hidden: Tensor | None) -> Tensor:
    """What a fused kernel adds to the scores: the bias [1, H, 1 or S, T], and -inf where a query must not look."""
    return bias if hidden is None else bias.masked_fill(hidden, -torch.inf)  # [1 or B, H, S, T]
