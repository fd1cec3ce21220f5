"""The suite `generation`: small models of every architecture write, with every cache and every way to keep it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from memplan.config.device import Device
from memplan.config.inference import InferenceRun
from memplan.config.model import Transformer
from memplan.config.run import Attention
from memplan.config.validate import validate_model, validate_run
from memplan.measure.suites.case import Case, Change, Task
from memplan.measure.suites.small import CLASSIFIER, DECODER, ENCODER, ENCODER_DECODER, LLAMA

T5 = replace(ENCODER_DECODER, positions="relative", norm="rmsnorm", norm_placement="pre", scale_attention=False)
LATENT = replace(
    LLAMA, num_key_value_heads=0, kv_lora_rank=24, q_lora_rank=16, rope_head_dim=8, head_dim=24, value_head_dim=24
)

_ROWS: list[tuple[str, Transformer, Change, Change]] = [
    # what it shows, base, changes of the model, changes of the run
    ("one new token", DECODER, {}, {"new_tokens": 1}),
    ("prefill alone", DECODER, {}, {"new_tokens": 0}),
    ("prompt of one token", DECODER, {}, {"prompt_length": 1}),
    ("one layer", DECODER, {"num_layers": 1}, {}),
    ("many layers", DECODER, {"num_layers": 12}, {}),
    ("many new tokens", LLAMA, {}, {"new_tokens": 60}),
    ("long prompt", LLAMA, {"num_layers": 2}, {"prompt_length": 800, "micro_batch_size": 1}),
    ("large vocabulary", DECODER, {"vocab_size": 20_000}, {}),
    ("large vocabulary, all logits", DECODER, {"vocab_size": 20_000}, {"logits": "all", "sampling": "sampled"}),
    ("all logits, prefill alone", LLAMA, {}, {"logits": "all", "new_tokens": 0}),
    ("untied", DECODER, {"tie_embeddings": False, "head_bias": True}, {}),
    ("multi-query", LLAMA, {"num_key_value_heads": 1}, {}),
    ("multi-head", LLAMA, {"num_key_value_heads": 4}, {}),
    ("wide heads", LLAMA, {"head_dim": 48, "activation": "geglu"}, {}),
    ("parallel blocks", DECODER, {"parallel_blocks": True}, {}),
    ("sinusoidal", DECODER, {"positions": "sinusoidal", "max_positions": 0}, {"padding": True}),
    ("alibi", DECODER, {"positions": "alibi", "max_positions": 0}, {"padding": True}),
    ("capped logits", LLAMA, {"logit_soft_cap": 30.0}, {"sampling": "sampled"}),
    ("experts", LLAMA, {"num_experts": 4, "num_experts_per_token": 2}, {}),
    ("window longer than the prompt", LLAMA, {"sliding_window": 28}, {}),
    ("window shorter than the prompt", LLAMA, {"sliding_window": 8}, {"padding": True}),
    ("static window", LLAMA, {"sliding_window": 28}, {"cache": "static"}),
    ("static window, shorter than the prompt", LLAMA, {"sliding_window": 8}, {"cache": "static", "padding": True}),
    ("latent", LATENT, {}, {}),
    ("latent, static", LATENT, {}, {"cache": "static"}),
    ("latent, paged in int8", LATENT, {}, {"cache": "paged", "cache_dtype": "int8"}),
    ("encoder-decoder, longer prompt", ENCODER_DECODER, {}, {"prompt_length": 7, "padding": True}),
    ("encoder", ENCODER, {}, {"prompt_length": 32, "padding": True}),
    ("encoder of one label", CLASSIFIER, {"pooling": "class_token"}, {"prompt_length": 32}),
    ("decoder of one label", replace(LLAMA, head="classification", pooling="last"), {}, {"prompt_length": 32}),
]
_NAIVE_ONLY: list[tuple[str, Transformer, Change, Change]] = [
    ("capped scores", LLAMA, {"attention_soft_cap": 50.0}, {}),
    ("t5-like", T5, {}, {"padding": True}),
    ("t5-like, static", T5, {}, {"cache": "static", "cache_dtype": "bf16"}),
    ("relative positions of a decoder", replace(DECODER, positions="relative", max_positions=0), {}, {"padding": True}),
]


def tasks(device: Device) -> Iterator[Task]:
    """Every cache with every dtype of it for each architecture, then one row for each option; both kernels."""
    kinds: tuple[Attention, ...] = ("naive", "flash")
    for attention in kinds:
        for base in (DECODER, LLAMA, ENCODER_DECODER):
            for title, run in _caches():
                yield Task(_case(f"{base.name}, {title}", base, attention, {}, run, device))
        for title, base, model, run in [*_ROWS, *(_NAIVE_ONLY if attention == "naive" else ())]:
            yield Task(_case(title, base, attention, model, run, device))


def _caches() -> Iterator[tuple[str, Change]]:
    """Precisions, ways to choose and padding go round, so that each meets each cache."""
    precisions = ("fp32", "bf16", "fp16")
    turn = 0
    for cache in ("dynamic", "static", "paged"):
        for cache_dtype in ("same", "fp16", "bf16", "fp8", "int8"):
            for padding in (False, True):
                run: Change = {"cache": cache, "cache_dtype": cache_dtype, "padding": padding}
                run["precision"] = precisions[turn % 3]
                run["sampling"] = ("greedy", "sampled")[turn // 2 % 2]
                run["cache_block_size"] = (16, 5)[turn % 2] if cache == "paged" else 16
                turn += 1
                yield f"{cache} cache in {cache_dtype}{', padding' if padding else ''}", run


def _case(title: str, base: Transformer, attention: Attention, model: Change, run: Change, device: Device) -> Case:
    values: Change = {"micro_batch_size": 2, "attention": attention, "prompt_length": 19}
    if base.architecture == "encoder-decoder":
        values |= {"prompt_length": 1, "source_length": 24}
    if base.architecture != "encoder" and base.head == "language_modelling":
        values["new_tokens"] = 14
    built = validate_model(replace(base, **model, name=title))
    return Case(built, validate_run(built, InferenceRun(**{**values, **run}), device))
