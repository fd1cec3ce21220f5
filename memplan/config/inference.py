"""One run of a transformer that writes tokens: the prompt at once (prefill), then one token after another (decode)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memplan.config.run import Attention

InferencePrecision = Literal["fp32", "bf16", "fp16"]
Cache = Literal["dynamic", "static", "paged"]
"""How keys and values of earlier tokens are kept. `dynamic` grows by a copy with each token, `static` has room for all
tokens from the start, `paged` takes blocks of a pool as they are needed (https://arxiv.org/abs/2309.06180)."""

CacheDtype = Literal["same", "fp16", "bf16", "fp8", "int8"]
Logits = Literal["last", "all"]
Sampling = Literal["greedy", "sampled"]
Quantization = Literal["none", "int8", "nf4", "gptq", "awq", "fp8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRun:
    """How the model writes. Lengths are tokens; an encoder-decoder has source_length, which its encoder reads, and its
    decoder starts from a prompt of one token where no other length is given. An encoder writes nothing: it has a
    prompt_length alone, and its forward pass is the prefill."""

    phases = ("prefill", "decode")

    micro_batch_size: int = 1  # sequences written at once
    prompt_length: int = 0
    source_length: int = 0
    new_tokens: int = 0  # tokens written after the prompt, the first of which the prefill gives; 0: prefill alone
    attention: Attention = "sdpa"
    precision: InferencePrecision = "fp32"
    cache: Cache = "dynamic"
    cache_dtype: CacheDtype = "same"
    cache_block_size: int = 16  # tokens of a block of the paged cache
    logits: Logits = "last"  # of the prompt: those of its last token, or of all
    sampling: Sampling = "greedy"
    padding: bool = False  # prompts of several lengths, padded on the left
    weight_quantization: Quantization = "none"
    quantization_group_size: int = 128  # weights that share a scale, with gptq and awq
    double_quantization: bool = True  # of nf4: its scales are quantised as well
