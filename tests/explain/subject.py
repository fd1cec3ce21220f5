"""What the snapshots were recorded of."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.devices import load_device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run

CARD = load_device("h100-80gb")

MODEL = validate_model(
    Transformer(
        name="small",
        architecture="decoder",
        vocab_size=8000,
        hidden_size=256,
        num_layers=2,
        num_attention_heads=4,
        intermediate_size=1024,
        max_positions=512,
    )
)

RUN = validate_run(MODEL, TrainingRun(micro_batch_size=4, sequence_length=256, attention="naive"), CARD)

MIXED = replace(RUN, attention="flash", precision="bf16-mixed", recompute="full", optimizer_implementation="foreach")

LARGE = replace(RUN, micro_batch_size=24)
"""What does not fit the small card."""

SMALL_CARD_BYTES = {"out-of-memory": 1500 * 2**20, "leaking-out-of-memory": 1100 * 2**20}
"""The memory of the cards that run out, by scene; the context takes its part."""

LIBRARY = {
    "vocab_size": 4000,
    "n_positions": 256,
    "n_embd": 128,
    "n_layer": 3,
    "n_head": 4,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
"""A configuration of GPT-2 in the library transformers."""

EXPANDABLE_BYTES = {
    "plain": 274_726_912,
    "leaking": 421_527_552,
    "fragmented": 274_726_912,
    "pools": 316_669_952,
    "mixed": 268_435_456,
    "library": 140_509_184,
}
"""torch.cuda.max_memory_reserved() of the same scenes, run with PYTORCH_ALLOC_CONF=expandable_segments:True."""
