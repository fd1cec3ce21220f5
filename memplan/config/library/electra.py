"""ELECTRA (transformers/models/electra/configuration_electra.py)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.library.bert import Bert


@dataclass(frozen=True, slots=True, kw_only=True)
class Electra(Bert):
    """ElectraConfig."""

    embedding_size: int = 128

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("ElectraForMaskedLM",)
