"""MBart (transformers/models/mbart/configuration_mbart.py)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.library.bart import Bart


@dataclass(frozen=True, slots=True, kw_only=True)
class MBart(Bart):
    """MBartConfig."""

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("MBartForConditionalGeneration",)
