"""What a model needs to know of the run it is built for."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.run import TrainingRun
from memplan.config.runs import Run


@dataclass(frozen=True, slots=True)
class Settings:
    """`attention` is naive (the library's eager) or sdpa; with `recompute` full each layer keeps only its input.
    `every_layer`: all layers are traced, not three that stand for many equal ones. `writes`: with a key-value cache."""

    attention: str
    recompute: str
    every_layer: bool = False
    writes: bool = False

    @classmethod
    def of(cls, run: Run, every_layer: bool) -> Settings:
        """Those of a run."""
        if isinstance(run, TrainingRun):
            return cls(run.attention, run.recompute, every_layer)
        return cls(run.attention, "none", every_layer, writes=True)
