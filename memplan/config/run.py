"""One training run of a transformer on one rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Attention = Literal["naive", "flash"]
Precision = Literal["fp32", "bf16", "bf16-mixed"]
Optimizer = Literal["adamw", "adam", "sgd"]
OptimizerImplementation = Literal["for-loop", "foreach", "fused"]
Recompute = Literal["none", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """How the model is trained. Lengths are tokens; an encoder-decoder has source_length and target_length instead of
    sequence_length (which is 0 there, and the other two are 0 elsewhere)."""

    micro_batch_size: int = 1
    sequence_length: int = 0
    source_length: int = 0
    target_length: int = 0
    gradient_accumulation_steps: int = 1
    attention: Attention = "flash"
    precision: Precision = "fp32"
    optimizer: Optimizer = "adamw"
    optimizer_implementation: OptimizerImplementation = "for-loop"
    momentum: float = 0.0  # sgd only
    recompute: Recompute = "none"
    padding: bool = False  # batches carry a padding mask
