"""The large cases of the suite `core`: from a few GiB to over 70.

Much memory for little arithmetic, so that each takes seconds: the weights and optimizer states of short runs, all the
scores at once, the logits of a large vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.config.device import Device
from memplan.config.load import load_preset
from memplan.config.model import Transformer
from memplan.measure.suites.case import Case, Change, lengths, offered
from memplan.measure.suites.families import BERT, GPT, LLAMA, ORIGINAL, T5

_FUSED: Change = {"optimizer_implementation": "fused"}
_FOREACH: Change = {"optimizer_implementation": "foreach"}
_SGD: Change = {"optimizer": "sgd", "momentum": 0.9, "optimizer_implementation": "foreach"}

_PRESETS: tuple[tuple[str, int, int, str, str, Change], ...] = (
    # model, micro-batch, tokens, attention, precision, the rest of the run
    ("gpt2", 24, 1024, "flash", "bf16-mixed", _FUSED),
    ("gpt2", 32, 1024, "naive", "fp16-mixed", _FOREACH),
    ("gpt2-medium", 40, 1024, "efficient", "bf16", _FUSED),
    ("gpt2-large", 4, 1024, "flash", "fp16-mixed", _FOREACH),
    ("gpt2-large", 8, 1024, "flash", "bf16-mixed", {**_FUSED, "recompute": "full"}),
    ("gpt2-xl", 2, 512, "efficient", "fp32", _FOREACH),
    ("gpt2-xl", 4, 1024, "flash", "bf16-mixed", _FUSED),
    ("gpt2-xl", 8, 1024, "flash", "bf16", _FOREACH),
    ("bert-large", 92, 512, "efficient", "bf16-mixed", _FUSED),
    ("llama-3.2-1b", 4, 1024, "flash", "bf16-mixed", _FOREACH),
    ("llama-3.2-1b", 2, 4096, "flash", "bf16", _FUSED),
    ("llama-3.2-1b", 14, 1024, "efficient", "fp16-mixed", _FUSED),
    ("llama-3.2-1b", 1, 1024, "naive", "fp32", _FUSED),
    ("llama-3.2-3b", 1, 1024, "flash", "bf16-mixed", _FUSED),
    ("llama-3.2-3b", 3, 1024, "flash", "bf16-mixed", _FUSED),
    ("llama-3.2-3b", 1, 2048, "flash", "bf16", _FOREACH),
    ("llama-3.2-3b", 4, 1024, "efficient", "bf16", {**_FUSED, "recompute": "full"}),
    ("llama-2-7b", 1, 2048, "flash", "bf16", _SGD),
    ("llama-2-7b", 1, 512, "flash", "bf16", _FOREACH),
    ("llama-3-8b", 1, 512, "flash", "bf16", {**_FUSED, "optimizer": "adam"}),
    ("llama-3-8b", 1, 256, "flash", "bf16", _FOREACH),
    ("llama-3-8b", 1, 3072, "flash", "bf16", _FUSED),
    ("llama-3-8b", 1, 2048, "efficient", "bf16", {**_SGD, "recompute": "full"}),
)

_WIDE: Change = {"vocab_size": 256_000, "hidden_size": 256, "intermediate_size": 512, "num_layers": 2}

_MADE: tuple[tuple[str, Transformer, Change, int, int, str, str, Change], ...] = (
    # what it shows, base, changes of the model, micro-batch, tokens, attention, precision, the rest of the run
    ("wide vocabulary", LLAMA, _WIDE, 8, 1024, "naive", "bf16", _FUSED),
    ("wide vocabulary", LLAMA, _WIDE, 16, 1024, "flash", "bf16-mixed", _FUSED),
    ("wide vocabulary", LLAMA, _WIDE, 18, 1024, "efficient", "fp32", _FUSED),
    ("all scores", GPT, {}, 35, 2048, "naive", "bf16", {}),
    ("all scores", GPT, {}, 9, 4096, "naive", "fp32", {}),
    ("all scores, dropout", GPT, {"attention_dropout": 0.1}, 16, 2048, "naive", "bf16-mixed", {}),
    ("all scores, recompute", GPT, {}, 16, 4096, "naive", "bf16-mixed", {"recompute": "full"}),
    (
        "all scores of 32768 tokens",
        LLAMA,
        {"num_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64},
        1,
        32768,
        "naive",
        "bf16",
        {},
    ),
    ("long and deep", LLAMA, {"num_layers": 30}, 1, 24576, "flash", "bf16", _FUSED),
    ("long and deep", LLAMA, {"num_layers": 24}, 2, 12288, "flash", "bf16-mixed", _FUSED),
    ("bert-like, large batch", BERT, {}, 512, 256, "efficient", "bf16-mixed", _FUSED),
    ("bert-like, large batch, padding", BERT, {}, 112, 1024, "naive", "bf16", {"padding": True}),
    ("original-transformer-like, large batch", ORIGINAL, {}, 200, 768, "efficient", "fp16-mixed", _FUSED),
    ("t5-like, large batch", T5, {}, 128, 1024, "naive", "bf16", _FUSED),
    ("t5-large", load_preset("t5-large"), {}, 16, 512, "naive", "bf16-mixed", _FOREACH),
)


def large(device: Device) -> Iterator[Case]:
    """Real models with long or wide batches, then models made for it."""
    for name, batch, tokens, attention, precision, rest in _PRESETS:
        run: Change = {"micro_batch_size": batch, "sequence_length": tokens, "attention": attention}
        yield from offered(load_preset(name), name, {}, {**run, "precision": precision, **rest}, device)
    for title, base, model, batch, tokens, attention, precision, rest in _MADE:
        run = {"micro_batch_size": batch, **lengths(base, tokens), "attention": attention}
        yield from offered(base, title, model, {**run, "precision": precision, **rest}, device)
