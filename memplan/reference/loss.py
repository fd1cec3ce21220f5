"""Cross-entropy without all logits at once: in chunks of tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from memplan.reference.heads import LanguageModellingHead
from memplan.reference.positions import compute_dtype

IGNORED_LABEL = -100  # cross-entropy leaves padding out


def chunked_loss(head: LanguageModellingHead, x: Tensor, labels: Tensor, chunks: int) -> Tensor:
    """Mean cross-entropy of x [B, S, E] against labels [B, S]. Each chunk of tokens keeps its part of x alone and makes
    logits and loss again in the backward pass."""
    x, labels = x.view(-1, x.shape[-1]), labels.view(-1)
    total = torch.zeros((), device=x.device)
    for part, said in zip(x.chunk(chunks), labels.chunk(chunks), strict=True):
        total = total + checkpoint(head.chunk_loss, part, said, use_reentrant=False)
    return total / (labels != IGNORED_LABEL).sum()


def fused_loss(head: LanguageModellingHead, x: Tensor, labels: Tensor, chunks: int) -> Tensor:
    """The same with all gradients made at once, so that no logits outlive their chunk and none are made twice."""
    x, labels = x.view(-1, x.shape[-1]), labels.view(-1)
    weight, bias = head.projection.weight, head.projection.bias
    loss: Tensor = FusedLoss.apply(x, weight, bias, labels, chunks)  # type: ignore[no-untyped-call]
    return loss


class FusedLoss(torch.autograd.Function):
    """Linear layer and cross-entropy in one (Liger Kernel, https://arxiv.org/abs/2410.10989, section 3.2).

    Where Liger has a kernel that turns the logits of a chunk into their gradient in place, here PyTorch's operations do
    so in fp32: half-precision logits have an fp32 copy beside them.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunks: int) -> Tensor:
        wants_x, wants_weight, wants_bias = context.needs_input_grad[:3]
        to_x = torch.zeros_like(x) if wants_x else None
        to_weight = torch.zeros_like(weight) if wants_weight else None
        to_bias = torch.zeros_like(bias) if bias is not None and wants_bias else None
        real = labels != IGNORED_LABEL
        shares = (real.float() / real.sum()).unsqueeze(-1)  # [N, 1]: of each token in the mean
        targets = labels.clamp(min=0).unsqueeze(-1)  # [N, 1]
        dtype = compute_dtype(x)
        matrix = weight.to(dtype)
        offsets = None if bias is None else bias.to(dtype)
        total = torch.zeros((), device=x.device)
        x_parts, target_parts, share_parts = x.chunk(chunks), targets.chunk(chunks), shares.chunk(chunks)
        to_x_parts = [None] * len(x_parts) if to_x is None else to_x.chunk(chunks)
        for part, target, share, to_part in zip(x_parts, target_parts, share_parts, to_x_parts, strict=True):
            part = part.to(dtype)
            gradient, loss = logits_gradient(F.linear(part, matrix, offsets), target, share)
            total += loss
            if to_part is not None:
                to_part.copy_(gradient @ matrix)
            if to_weight is not None:
                if to_weight.dtype == dtype:
                    to_weight.addmm_(gradient.t(), part)
                else:
                    to_weight += gradient.t() @ part
            if to_bias is not None:
                to_bias += gradient.sum(dim=0)
            del gradient
        context.save_for_backward(to_x, to_weight, to_bias)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients as they were made, times the loss's own."""
        gradients = context.saved_tensors
        for each in gradients:
            if each is not None:
                each *= gradient
        return (*gradients, None, None)


def logits_gradient(logits: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the loss for logits [C, V], in their dtype, and the chunk's part of the loss. `target` [C, 1]
    says which class is right, `share` [C, 1] what a token counts."""
    dtype = logits.dtype
    logits = logits.float()
    logits -= logits.amax(dim=-1, keepdim=True)
    right = logits.gather(-1, target)
    logits.exp_()
    total = logits.sum(dim=-1, keepdim=True)
    loss = ((total.log() - right) * share).sum()
    logits *= share / total
    logits.scatter_add_(-1, target, -share)
    return logits.to(dtype), loss
