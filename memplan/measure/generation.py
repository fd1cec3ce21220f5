"""One run of the reference transformer that writes, measured: prefill and decode by component."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from memplan.config.device import Device
from memplan.config.generation import pads_prompts
from memplan.config.inference import InferenceRun
from memplan.config.library.model import LibraryModel
from memplan.config.model import Transformer as Configuration
from memplan.errors import NotModelledError
from memplan.measure.attribution import CACHE, attribute
from memplan.measure.course import course
from memplan.measure.materialise import fill
from memplan.measure.probes import mark, record_memory
from memplan.measure.run import KERNELS, MARK, _real_tokens, environment, library_environment
from memplan.reference import cache
from memplan.reference.cache import DTYPES
from memplan.reference.generation import Writer, generate
from memplan.reference.model import Prompt, Transformer
from memplan.reference.quantised import quantise


def measure_generation(
    config: Configuration | LibraryModel, run: InferenceRun, device: Device, over_time: bool = False
) -> dict[str, Any]:
    """Have `config` write for real on the CPU and return what was seen, ready for JSON (memplan/profiles.py, `Record`);
    with `over_time` every event of the run as well (memplan/measure/course.py).

    `config` and `run` have been validated. The number of threads is the device's, and oneDNN is switched off: its
    scratchpads depend on the processor. Raises NotModelledError for a card, and for a library's model.
    """
    if device.backend != "cpu":
        raise NotModelledError(f"measuring generation on {device.name} is not possible yet, only on the device cpu")
    if not isinstance(config, Configuration):
        raise NotModelledError(f"generation with {config.implementation} models is not measured yet")
    torch.set_num_threads(device.threads)
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    alive: list[Any] = []

    def write() -> None:
        model = build_model(config, run)
        prompt = make_prompt(config, run)
        writer = Writer(model, config, run)
        writer.new_cache = in_cache(writer.new_cache)  # type: ignore[method-assign]
        alive.extend((model, prompt, writer))
        alive.append(generate(writer, prompt, lambda phase: mark(MARK + phase)))

    with marked_join():
        events, regions = record_memory(write)
    marks = [(region.start, region.name.removeprefix(MARK)) for region in regions if region.name.startswith(MARK)]
    phases = attribute(events, marks, _owners(alive[0], alive[1]))
    return {
        "environment": environment(device) | library_environment(config),
        "sdpa_kernels": sorted({KERNELS[region.name] for region in regions if region.name in KERNELS}),
        "phases": [phases[name].to_record() for name in run.phases if name in phases],
        **({"memory_over_time": course(events, marks)} if over_time else {}),
    }


def build_model(config: Configuration, run: InferenceRun) -> Transformer:
    """The model that writes, in evaluation mode. Small weights: in fp16 nothing overflows, so that tokens can be drawn
    by what it says."""
    model = Transformer(config, run.attention).to(DTYPES[run.precision]).eval()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fill(name, parameter)
    quantise(model, run.weight_quantization, run.quantization_group_size, run.double_quantization)
    return model


def make_prompt(config: Configuration, run: InferenceRun) -> Prompt:
    """Random tokens. With padding, every second prompt is half padding on the left; so is, on the right, what an
    encoder reads."""
    shape = (run.micro_batch_size, run.prompt_length)
    prompt = Prompt(torch.randint(0, config.vocab_size, shape))
    if pads_prompts(config, run):
        real = _real_tokens(*shape)
        prompt.real = real if config.architecture == "encoder" else real.flip(1)
    if config.token_type_vocab_size:
        prompt.token_types = torch.zeros(shape, dtype=torch.long)
    if config.architecture == "encoder-decoder":
        prompt.source = torch.randint(0, config.vocab_size, (run.micro_batch_size, run.source_length))
        prompt.source_real = _real_tokens(run.micro_batch_size, run.source_length) if run.padding else None
    return prompt


@contextmanager
def marked_join() -> Iterator[None]:
    """A region round the function that makes what is kept of one token more."""
    join = cache.join
    cache.join = in_cache(join)
    try:
        yield
    finally:
        cache.join = join


def in_cache(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in a region, by which what it makes can be told to be the cache's."""

    def run_marked(*arguments: Any) -> Any:
        with torch.profiler.record_function(CACHE):
            return function(*arguments)

    return run_marked


def _owners(model: nn.Module, prompt: Prompt) -> dict[int, str]:
    """Address of each storage that is there before and after -> its component."""
    owners = {parameter.data_ptr(): "parameters" for parameter in model.parameters()}
    for value in vars(prompt).values():
        if value is not None:
            owners[value.untyped_storage().data_ptr()] = "inputs"
    return owners
