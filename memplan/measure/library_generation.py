"""Models of Hugging Face's library transformers writing tokens, measured: the loop that the library's documentation
writes out (docs/source/en/kv_cache.md), a prompt at once and then one token after another. The twin of
memplan/huggingface/generation.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from memplan.config.device import Device
from memplan.config.inference import InferenceRun
from memplan.config.library.model import LibraryModel
from memplan.errors import NotModelledError
from memplan.measure.attribution import attribute
from memplan.measure.course import course
from memplan.measure.library import build_model
from memplan.measure.probes import mark, record_memory
from memplan.measure.run import KERNELS, MARK, environment, library_environment

HELD = "held"
"""Mark after each token: what the cache holds there is its own."""

Mark = Callable[[str], None]


class Prompt:
    """What the model reads before it writes, by the names of the library's arguments."""

    input_ids: torch.Tensor  # [B, S]; the source's tokens where there is an encoder
    attention_mask: torch.Tensor | None = None
    decoder_input_ids: torch.Tensor | None = None  # [B, S]


def make_prompt(config: LibraryModel, run: InferenceRun) -> Prompt:
    """Random tokens. With padding every second sequence, and the first, is half padding, on the left."""
    vocabulary = int(getattr(config, "vocab_size", 0))
    rows, length = run.micro_batch_size, run.source_length or run.prompt_length
    prompt = Prompt()
    prompt.input_ids = torch.randint(0, vocabulary, (rows, length))
    if run.padding:
        prompt.attention_mask = torch.ones(rows, length, dtype=torch.long)
        prompt.attention_mask[::2, : length // 2] = 0
    if config.architecture == "encoder-decoder":
        prompt.decoder_input_ids = torch.randint(0, vocabulary, (rows, run.prompt_length))
    return prompt


def make_cache(model: nn.Module, config: LibraryModel, run: InferenceRun) -> Any:
    """A cache of the library, empty. A static one has room for the prompt and all that is written."""
    from transformers import DynamicCache, EncoderDecoderCache, StaticCache

    writer: Any = model
    if config.architecture == "encoder-decoder":
        writer = writer.get_decoder()  # T5's has a configuration of its own, with its own number of layers
    settings = writer.config

    def make(length: int) -> Any:
        if run.cache == "static":
            return StaticCache(config=settings, max_cache_len=length)
        return DynamicCache(config=settings)

    own = make(run.prompt_length + run.new_tokens)
    if config.architecture != "encoder-decoder":
        return own
    return EncoderDecoderCache(own, make(run.source_length))


@torch.no_grad()
def generate(model: Any, prompt: Prompt, cache: Any, config: LibraryModel, run: InferenceRun, mark: Mark) -> object:
    """Read the prompt, write `new_tokens`; the first of them follows from the prompt itself."""
    mark("prefill")
    kept = {"logits_to_keep": 1} if run.logits == "last" and config.keeps_logits else {}
    inputs: dict[str, Any] = {"input_ids": prompt.input_ids}
    attention_mask = prompt.attention_mask
    if attention_mask is not None:
        inputs["attention_mask"] = attention_mask
    generated_ids = prompt.input_ids
    name = "input_ids"
    if prompt.decoder_input_ids is not None:
        inputs["encoder_outputs"] = model.get_encoder()(**inputs)
        name, generated_ids = "decoder_input_ids", prompt.decoder_input_ids
        del inputs["input_ids"]
        inputs[name] = prompt.decoder_input_ids
    outputs = model(**inputs, past_key_values=cache, use_cache=True, **kept)
    for token in range(run.new_tokens):
        if token:
            mark("decode")
            outputs = model(**inputs, past_key_values=cache, use_cache=True, **kept)
        next_token_ids = choose(outputs.logits, run)
        generated_ids = torch.cat([generated_ids, next_token_ids], dim=-1)
        inputs[name] = next_token_ids
        if attention_mask is not None and prompt.decoder_input_ids is None:
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones((attention_mask.shape[0], 1))], dim=-1)
            inputs["attention_mask"] = attention_mask
        mark(HELD)
    if not run.new_tokens:
        mark(HELD)
    mark("end")
    return generated_ids


def choose(logits: torch.Tensor, run: InferenceRun) -> torch.Tensor:
    """The next token of each sequence, [B, 1]: the likeliest, or one drawn."""
    if run.sampling == "greedy":
        return logits[:, -1].argmax(dim=-1, keepdim=True)
    probabilities = torch.softmax(logits[:, -1], dim=-1, dtype=torch.float32)
    return torch.multinomial(probabilities, num_samples=1)


def build_for_generation(config: LibraryModel, run: InferenceRun) -> nn.Module:
    """The model, its weights in the run's precision."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[run.precision]
    return build_model(config, run, dtype).eval()


def tensors_of(cache: Any) -> Iterator[torch.Tensor]:
    """Every tensor that a cache holds."""
    for part in (getattr(cache, "self_attention_cache", cache), getattr(cache, "cross_attention_cache", None)):
        for layer in () if part is None else part.layers:
            yield from (value for value in vars(layer).values() if isinstance(value, torch.Tensor))


def measure_library_generation(
    config: LibraryModel, run: InferenceRun, device: Device, over_time: bool = False
) -> dict[str, Any]:
    """Let `config` write for real on the CPU and return what was seen, ready for JSON (memplan/profiles.py, `Record`);
    with `over_time` every event of the run that counts as well (memplan/measure/course.py).

    `config` and `run` have been validated. It is the second of two runs that counts: the first may make tables that
    stay.
    """
    if device.backend != "cpu":
        raise NotModelledError(f"measuring generation on {device.name} is not possible yet, only on the device cpu")
    torch.set_num_threads(device.threads)
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    alive: list[Any] = []
    held: list[set[int]] = []

    def write() -> None:
        model, prompt = build_for_generation(config, run), make_prompt(config, run)
        alive.extend((model, prompt))
        generate(model, prompt, make_cache(model, config, run), config, run, lambda phase: None)
        cache = make_cache(model, config, run)
        alive.append(cache)

        def marked(phase: str) -> None:
            if phase == HELD:
                held.append({tensor.untyped_storage().data_ptr() for tensor in tensors_of(cache)})
            mark(MARK + phase)

        alive.append(generate(model, prompt, cache, config, run, marked))

    events, regions = record_memory(write)
    marks = [(region.start, region.name.removeprefix(MARK)) for region in regions if region.name.startswith(MARK)]
    times = [time for time, name in marks if name == HELD]
    begins = [(time, name) for time, name in marks if name != HELD]
    phases = attribute(
        events,
        begins,
        _owners(alive[0], alive[1]),
        list(zip(times, held, strict=True)),
    )
    return {
        "environment": environment(device) | library_environment(config),
        "sdpa_kernels": sorted({KERNELS[region.name] for region in regions if region.name in KERNELS}),
        "phases": [phases[name].to_record() for name in run.phases if name in phases],
        **({"memory_over_time": course(events, begins)} if over_time else {}),
    }


def _owners(model: nn.Module, prompt: Prompt) -> dict[int, str]:
    """Address of each storage that outlives the run -> its component."""
    owners: dict[int, str] = {}
    for module in model.modules():  # tensors that are plain attributes too
        for value in (*module.buffers(recurse=False), *vars(module).values()):
            if isinstance(value, torch.Tensor):
                owners[value.untyped_storage().data_ptr()] = "buffers"
    for parameter in model.parameters():
        owners[parameter.untyped_storage().data_ptr()] = "parameters"
    for value in vars(prompt).values():
        if value is not None:
            owners[value.untyped_storage().data_ptr()] = "inputs"
    return owners
