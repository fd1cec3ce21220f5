"""The suite `snapshots`: every event of the allocator, for a few configurations of two layers.

Layers as wide as real ones, so that blocks of every size class come and go, and one model of small blocks alone. Each
in a process of its own: its history starts with the first segment.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import Attention, Precision
from memplan.measure.suites.case import Change, Task, lengths, offered
from memplan.measure.suites.families import BERT, GPT, LLAMA, ORIGINAL, T5
from memplan.measure.suites.small import DECODER

_ROWS: tuple[tuple[str, Transformer, int, int, Attention, Precision, Change], ...] = (
    # what it shows, base, micro-batch, tokens, attention, precision, the rest of the run
    ("small blocks", DECODER, 2, 64, "naive", "fp32", {}),
    ("gpt-like", GPT, 4, 512, "naive", "fp32", {"optimizer_implementation": "foreach"}),
    ("llama-like", LLAMA, 4, 1024, "flash", "bf16", {"optimizer_implementation": "fused"}),
    ("llama-like, recompute", LLAMA, 4, 1024, "flash", "bf16-mixed", {"recompute": "full"}),
    ("bert-like, padding", BERT, 8, 256, "efficient", "bf16-mixed", {"padding": True}),
    ("original-transformer-like", ORIGINAL, 4, 512, "efficient", "fp16-mixed", {"optimizer_implementation": "foreach"}),
    ("t5-like", T5, 4, 256, "naive", "bf16-mixed", {"optimizer_implementation": "fused"}),
    ("gpt-like, accumulation", GPT, 2, 512, "flash", "fp16-mixed", {"gradient_accumulation_steps": 2}),
)


def tasks(device: Device) -> Iterator[Task]:
    """Smallest first."""
    for name, base, batch, tokens, attention, precision, rest in _ROWS:
        model: Change = {"num_layers": 2}
        if base.architecture == "encoder-decoder":
            model["num_encoder_layers"] = 2
        run: Change = {"micro_batch_size": batch, **lengths(base, tokens), "attention": attention}
        for case in offered(base, f"{name}, history", model, {**run, "precision": precision, **rest}, device):
            yield Task(case, fresh=True, history=True)
