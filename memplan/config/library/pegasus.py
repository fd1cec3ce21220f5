"""Pegasus (transformers/models/pegasus/configuration_pegasus.py)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.library.bart import Bart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pegasus(Bart):
    """PegasusConfig."""

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("PegasusForConditionalGeneration",)
