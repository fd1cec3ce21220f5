"""Precisions, scaled losses and master weights."""

from __future__ import annotations

from collections.abc import Iterator

from memplan.config.device import Device
from memplan.measure.suites.case import Change, Task
from memplan.measure.suites.setups.subjects import tasks_of

_FP16 = {"precision": "fp16", "gradient_scaling": "none"}
_ROWS: list[tuple[str, Change]] = [
    ("fp16", _FP16),
    ("fp16, recompute", {**_FP16, "recompute": "full", "padding": True}),
    ("fp16, accumulation", {**_FP16, "gradient_accumulation_steps": 2, "optimizer_implementation": "foreach"}),
    ("scaled", {"precision": "fp16-mixed"}),
    ("scaled, clipped", {"precision": "fp16-mixed", "gradient_clipping": 1.0}),
    ("scaled, clipped, fused", {"precision": "fp16-mixed", "gradient_clipping": 1.0,
                                "optimizer_implementation": "fused"}),
    ("scaled, muon", {"precision": "fp16-mixed", "optimizer": "muon"}),
    ("not scaled", {"precision": "fp16-mixed", "gradient_scaling": "none"}),
    ("deepspeed", {"precision": "bf16", "master_weights": "deepspeed"}),
    ("deepspeed, clipped, foreach", {"precision": "bf16", "master_weights": "deepspeed", "gradient_clipping": 1.0,
                                     "optimizer_implementation": "foreach"}),
    ("deepspeed fp16", {"precision": "fp16", "master_weights": "deepspeed", "gradient_clipping": 1.0}),
    ("megatron", {"precision": "bf16", "master_weights": "megatron", "gradient_accumulation_steps": 2}),
    ("megatron, clipped, fused", {"precision": "bf16", "master_weights": "megatron", "gradient_clipping": 1.0,
                                  "optimizer_implementation": "fused"}),
    ("megatron fp16", {"precision": "fp16", "master_weights": "megatron", "recompute": "full"}),
    ("megatron, adafactor", {"precision": "bf16", "master_weights": "megatron", "optimizer": "adafactor"}),
]  # fmt: skip


def tasks(device: Device) -> Iterator[Task]:
    """Weights in fp16, losses that are scaled, and fp32 copies of half-precision weights."""
    for title, run in _ROWS:
        yield from tasks_of(title, run, device)
