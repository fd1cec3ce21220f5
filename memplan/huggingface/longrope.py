"""Rotary positions that take other frequencies for long sequences (modeling_rope_utils.py,
longrope_frequency_update)."""

from __future__ import annotations

from memplan.huggingface.rotary import RotaryEmbedding
from memplan.ops.elementwise import add, number, pointwise
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace

LONGEST = 4096
"""original_max_position_embeddings: which table is taken does not change memory."""


class LongRotaryEmbedding(RotaryEmbedding):
    """With a third table, which the first step makes and which stays."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace, width)
        self.long_inv_freq = self.buffer(width // 2)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        self._update_frequencies(position_ids)
        return super().forward(x, position_ids)

    def _update_frequencies(self, position_ids: Tensor) -> None:
        seq_len = add(empty(self.trace, (), "int64", "aten::max"), 1)
        self.trace.first_use(self.long_inv_freq)
        longer = pointwise("aten::gt", (seq_len, number(seq_len, LONGEST)), "bool")
        empty(self.trace, self.inv_freq.shape, "fp32", "aten::where")
        del longer
