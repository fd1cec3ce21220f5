"""RoBERTa (transformers/models/roberta/configuration_roberta.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.bert import Bert
from memplan.config.library.model import Number, Sound


@dataclass(frozen=True, slots=True, kw_only=True)
class Roberta(Bert):
    """RobertaConfig. Positions are counted from the one after the padding token's."""

    pad_token_id: Number | None = 1

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("RobertaForMaskedLM",)

    @property
    def most_positions(self) -> int:
        return self.max_position_embeddings - int(self.pad_token_id or 0) - 1

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from Bert.problems(self, sound)
        if not sound("pad_token_id", "max_position_embeddings"):
            return
        if self.pad_token_id is None or self.pad_token_id != int(self.pad_token_id):
            yield "pad_token_id", f"must be a whole number, not {self.pad_token_id}: positions are counted from it"
        elif self.most_positions < 1:
            yield "max_position_embeddings", f"leaves no position beyond the padding's {int(self.pad_token_id)}"
