"""Runs of every kind, small enough to be placed in a moment."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.exporting.placed import PlacedTimeline, place

LAYERS = 5


class Configuration(NamedTuple):
    """A run on a device. `allocator` is the text of PYTORCH_ALLOC_CONF."""

    model: str
    run: Run
    device: str
    allocator: str = ""


NAIVE = TrainingRun(sequence_length=64, attention="naive")
FLASH = TrainingRun(sequence_length=64, attention="flash", precision="bf16", gradient_accumulation_steps=3)
BOTH = TrainingRun(source_length=30, target_length=20, attention="naive")
WRITING = InferenceRun(prompt_length=16, new_tokens=4, attention="flash")
WRITING_LONG = InferenceRun(prompt_length=300, new_tokens=12, attention="naive", precision="bf16", micro_batch_size=3)

CONFIGURATIONS = {
    "training, naive, cpu": Configuration("gpt2", NAIVE, "cpu"),
    "training, naive, card": Configuration("gpt2", NAIVE, "h100-80gb"),
    "training, flash, cpu": Configuration("tinyllama-1.1b", FLASH, "cpu"),
    "training, flash, card": Configuration("tinyllama-1.1b", FLASH, "h100-80gb"),
    "training, expandable": Configuration("tinyllama-1.1b", FLASH, "h100-80gb", "expandable_segments:True"),
    "training, whole blocks": Configuration("gpt2", NAIVE, "h100-80gb", "max_split_size_mb:20"),
    "training, rounding": Configuration("gpt2", NAIVE, "h100-80gb", "roundup_power2_divisions:2"),
    "encoder-decoder, cpu": Configuration("t5-small", BOTH, "cpu"),
    "encoder-decoder, card": Configuration("t5-small", BOTH, "h100-80gb"),
    "generation, cpu": Configuration("gpt2", WRITING, "cpu"),
    "generation, card": Configuration("tinyllama-1.1b", WRITING_LONG, "h100-80gb"),
}

ON_CARD = [name for name, each in CONFIGURATIONS.items() if each.device != "cpu"]


def model_of(name: str) -> Transformer:
    """The model of that name, less deep."""
    return load_model(name, {"num_layers": LAYERS})


@cache
def placed_as(name: str, every_step: bool = False) -> PlacedTimeline:
    """The placed timeline of a configuration."""
    model, run, device, allocator = CONFIGURATIONS[name]
    return place(model_of(model), run, load_device(device), allocator_settings=allocator, every_step=every_step)
