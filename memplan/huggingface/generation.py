"""A model of the library that writes tokens, traced.

The loop is the one that the library's documentation writes out (docs/source/en/kv_cache.md): a cache is made, the
prompt goes in at once, then one token after another, without gradients. What the model returned for the token before is
held until it returns again.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from memplan.config.inference import InferenceRun
from memplan.config.library.model import LibraryModel
from memplan.huggingface.cache import SLIDING, Cache, EncoderDecoderCache, make_cache
from memplan.huggingface.models import build_model
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.releases import check_torch
from memplan.huggingface.settings import Settings
from memplan.ledger import SKIPPED, Ledger
from memplan.ops.activation import softmax
from memplan.ops.backend import Backend
from memplan.ops.module import Module
from memplan.ops.sampling import argmax, multinomial
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import cat, select
from memplan.transformer.program import make_input

FIRST = 2
"""So many tokens after the prompt's are traced one by one, and the last one. Between them the cache grows and nothing
else changes."""


def trace_library_generation(
    config: LibraryModel, run: InferenceRun, backend: Backend, every_layer: bool = False, every_token: bool = False
) -> Ledger:
    """The ledger of one run: the prompt (prefill), then token after token (decode). `config` and `run` have been
    validated. `every_token`: none is passed over.
    Raises NotModelledError for a release of PyTorch before releases.OLDEST.
    """
    check_torch(backend.torch)
    trace = Trace(backend)
    trace.grad_enabled = False
    config = evaluated(config)
    model = build_model(trace, config, Settings.of(run, every_layer))
    model.place()
    model.allocate(run.precision)
    prompt = make_prompt(trace, config, run)
    cache = caches(trace, model, config, run)
    result = generate(trace, model, prompt, cache, config, run, every_token)
    ledger = trace.close()
    del result, cache
    return ledger


def evaluated(config: LibraryModel) -> LibraryModel:
    """The model as `eval()` leaves it: nothing is dropped out."""
    names = [field.name for field in fields(config) if field.type == "float" and "drop" in field.name]
    still: Any = dict.fromkeys(names, 0.0)
    return replace(config, **still)


class Prompt:
    """What the model reads before it writes, by the names of the library's arguments."""

    def __init__(self, input_ids: Tensor) -> None:
        self.input_ids = input_ids  # [B, S]; the source's tokens where there is an encoder
        self.attention_mask: Tensor | None = None
        self.decoder_input_ids: Tensor | None = None


def make_prompt(trace: Trace, config: LibraryModel, run: InferenceRun) -> Prompt:
    """64-bit integers, the padding mask too, as tokenizers make it."""
    rows, length = Size(run.micro_batch_size, "micro_batch_size"), Size(run.prompt_length, "prompt_length")
    read = Size(run.source_length, "source_length") if config.architecture == "encoder-decoder" else length
    prompt = Prompt(make_input(trace, (rows, read), "int64"))
    if run.padding:
        prompt.attention_mask = make_input(trace, (rows, read), "int64")
    if config.architecture == "encoder-decoder":
        prompt.decoder_input_ids = make_input(trace, (rows, length), "int64")
    return prompt


def caches(trace: Trace, model: Module, config: LibraryModel, run: InferenceRun) -> Cache:
    """A cache of the library, empty. A static one has room for the prompt and all that is written."""
    layers = getattr(model, "decoder_layers").layers  # noqa: B009 (a model that decodes has them)
    window: int | None = getattr(config, "window", getattr(config, "sliding_window", None))
    types = getattr(config, "attention_types", None) or getattr(config, "layer_types", None)
    types = types or (SLIDING if window else "full_attention",) * config.num_layers
    static = run.cache == "static"
    own = make_cache(trace, static, run.prompt_length + run.new_tokens, types, window, layers)
    if config.architecture != "encoder-decoder":
        return own
    return EncoderDecoderCache(own, make_cache(trace, static, run.source_length, types, window, layers))


def generate(
    trace: Trace,
    model: Module,
    prompt: Prompt,
    cache: Cache,
    config: LibraryModel,
    run: InferenceRun,
    every_token: bool,
) -> Tensor:
    """Read the prompt, write `new_tokens`; the first of them follows from the prompt itself."""
    trace.enter_phase("prefill")
    batch = Batch()
    batch.past_key_values = cache
    batch.logits_to_keep = 1 if run.logits == "last" and config.keeps_logits else 0
    batch.attention_mask = prompt.attention_mask
    generated_ids = batch.input_ids = prompt.input_ids
    grows = prompt.attention_mask is not None and prompt.decoder_input_ids is None
    if prompt.decoder_input_ids is not None:
        encoder: Module = getattr(model, "get_encoder")()  # noqa: B009 (an encoder-decoder has one)
        batch.encoder_outputs = encoder(batch.input_ids, batch.attention_mask)
        generated_ids = batch.decoder_input_ids = prompt.decoder_input_ids
    outputs: Outputs = model(batch)
    token = 0
    while token < run.new_tokens:
        if token:
            trace.enter_phase("decode")
            outputs = model(batch)
        next_token_ids = choose(outputs.logits, run)
        generated_ids = cat((generated_ids, next_token_ids), -1)
        if prompt.decoder_input_ids is None:
            batch.input_ids = next_token_ids
        else:
            batch.decoder_input_ids = next_token_ids
        if grows:
            assert batch.attention_mask is not None
            batch.attention_mask = one_more(batch.attention_mask)
        token += 1
        if token == 1 + FIRST and not every_token and token < run.new_tokens - 1:
            skipped = run.new_tokens - 1 - token
            pass_over(trace, model, cache, skipped)
            generated_ids = lengthened(generated_ids, skipped)
            if grows:
                assert batch.attention_mask is not None
                batch.attention_mask = lengthened(batch.attention_mask, skipped)
            token += skipped
    trace.enter_phase("end")
    return generated_ids


def choose(logits: Tensor, run: InferenceRun) -> Tensor:
    """The next token of each sequence, [B, 1]: the likeliest, or one drawn."""
    if run.sampling == "greedy":
        return argmax(select(logits, 1))
    return multinomial(softmax(select(logits, 1), "fp32"))


def one_more(attention_mask: Tensor) -> Tensor:
    """A mask for one token more, which is no padding."""
    return cat((attention_mask, empty(attention_mask.trace, (attention_mask.shape[0], 1), "int64", "aten::ones")), -1)


def pass_over(trace: Trace, model: Module, cache: Cache, tokens: int) -> None:
    """Let the cache grow by so many tokens, outside of any phase."""
    trace.enter_phase(SKIPPED)
    layers = getattr(model, "decoder_layers").layers  # noqa: B009
    for held, layer in zip(cache.layers, layers, strict=True):
        trace.enter_repeat(layer.repeat)
        held.grow(tokens)
    trace.enter_repeat(None)


def lengthened(tokens: Tensor, more: int) -> Tensor:
    """[B, S] -> [B, S + more]."""
    return empty(tokens.trace, (tokens.shape[0], tokens.shape[1] + more), tokens.dtype, "aten::cat")
