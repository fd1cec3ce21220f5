"""What goes into a model of the library and what comes out of it, and its losses (loss/loss_utils.py)."""

from __future__ import annotations

from memplan.huggingface.cache import Cache
from memplan.ops.elementwise import to
from memplan.ops.loss import cross_entropy
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import contiguous, reshape, slice_, slice_from


class Batch:
    """One micro-batch, by the names of the library's arguments. `labels` are the tokens themselves, or a class each;
    without them the model makes logits alone, of the last `logits_to_keep` tokens (0: of all)."""

    def __init__(self) -> None:
        self.input_ids: Tensor | None = None  # [B, S]
        self.attention_mask: Tensor | None = None  # [B, S]
        self.labels: Tensor | None = None  # [B, S] or [B]
        self.pixel_values: Tensor | None = None  # [B, channels, height, width]
        self.encoder_outputs: Tensor | None = None  # [B, S, E], where the encoder has run already
        self.decoder_input_ids: Tensor | None = None  # [B, T]
        self.past_key_values: Cache | None = None
        self.logits_to_keep = 0


class Outputs:
    """What a forward pass returns. It is held until the step is over, logits and all. There is no loss without
    labels."""

    def __init__(self, loss: Tensor | None, logits: Tensor, *kept: Tensor | None) -> None:
        self.loss = loss
        self.logits = logits
        self.kept = kept


def slice_logits_to_keep(hidden_states: Tensor, logits_to_keep: int) -> Tensor:
    """[B, S, E] -> the last `logits_to_keep` of S; 0 stands for all."""
    return slice_(hidden_states, 1, min(logits_to_keep, hidden_states.shape[1])) if logits_to_keep else hidden_states


def for_causal_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """ForCausalLMLoss: logits in fp32, labels moved by one."""
    logits.trace.enter_phase("loss")
    logits.trace.module = "loss"
    logits = to(logits, "fp32")
    trace, (batch, length) = labels.trace, labels.shape
    labels = empty(trace, (batch, length + 1), "int64", "aten::constant_pad_nd")
    shift_labels = contiguous(slice_from(labels, -1, 1))
    logits = reshape(logits, (product(logits.shape[:-1]), logits.shape[-1]))
    shift_labels = reshape(shift_labels, (product(shift_labels.shape),))
    return cross_entropy(logits, shift_labels)


def for_masked_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """ForMaskedLMLoss: logits in fp32."""
    logits.trace.enter_phase("loss")
    logits.trace.module = "loss"
    logits = to(logits, "fp32")
    logits = reshape(logits, (product(logits.shape[:-1]), logits.shape[-1]))
    labels = reshape(labels, (product(labels.shape),))
    return cross_entropy(logits, labels)
