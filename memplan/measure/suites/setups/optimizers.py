"""Optimizers and the ways they step."""

from __future__ import annotations

from collections.abc import Iterator

from memplan.config.device import Device
from memplan.measure.suites.case import Change, Task
from memplan.measure.suites.setups.subjects import tasks_of

_ROWS: list[tuple[str, Change]] = [
    ("adafactor", {"optimizer": "adafactor"}),
    ("adafactor foreach", {"optimizer": "adafactor", "optimizer_implementation": "foreach", "precision": "bf16"}),
    ("lion", {"optimizer": "lion"}),
    ("lion bf16-mixed", {"optimizer": "lion", "precision": "bf16-mixed", "recompute": "full"}),
    ("muon", {"optimizer": "muon"}),
    ("muon bf16, fused adamw", {"optimizer": "muon", "precision": "bf16", "optimizer_implementation": "fused"}),
    ("adamw-8bit", {"optimizer": "adamw-8bit"}),
    ("adamw-8bit bf16", {"optimizer": "adamw-8bit", "precision": "bf16", "gradient_accumulation_steps": 2}),
    ("clipped", {"gradient_clipping": 1.0}),
    ("clipped foreach", {"gradient_clipping": 1.0, "optimizer_implementation": "foreach", "precision": "bf16"}),
    ("clipped muon", {"gradient_clipping": 1.0, "optimizer": "muon"}),
    ("in backward", {"optimizer_in_backward": True}),
    ("in backward, recompute", {"optimizer_in_backward": True, "recompute": "full", "precision": "bf16-mixed"}),
    ("in backward, adafactor", {"optimizer_in_backward": True, "optimizer": "adafactor", "precision": "bf16"}),
    ("in backward, muon", {"optimizer_in_backward": True, "optimizer": "muon"}),
    ("in backward, adamw-8bit", {"optimizer_in_backward": True, "optimizer": "adamw-8bit"}),
]
_ON_CARDS: list[tuple[str, Change]] = [
    ("paged-adamw", {"optimizer": "paged-adamw"}),
    ("paged-adamw-8bit", {"optimizer": "paged-adamw-8bit", "precision": "bf16"}),
]


def tasks(device: Device) -> Iterator[Task]:
    """Every optimizer, clipped gradients, and updates in the backward pass."""
    for title, run in [*_ROWS, *(_ON_CARDS if device.backend == "cuda" else ())]:
        yield from tasks_of(title, run, device)
