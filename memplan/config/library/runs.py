"""Which runs of a library's models are modelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.errors import ConfigurationError, NotModelledError

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.inference import InferenceRun
    from memplan.config.library.model import LibraryModel
    from memplan.config.runs import Run


def refuse_unmodelled(model: LibraryModel, run: Run, device: Device) -> None:
    """Raises NotModelledError for a run that memplan has no rules for, with what to ask for instead."""
    if run.attention == "efficient":
        raise NotModelledError(
            f"attention: {model.implementation} leaves the choice of a kernel to PyTorch, so efficient cannot be had",
            "use --attention sdpa",
        )
    if run.attention == "flash":
        raise NotModelledError(
            "attention: flash_attention_2 is not modelled for models of a library", "use --attention sdpa or eager"
        )
    if run.attention not in model.attentions:
        raise NotModelledError(
            f"attention: {model.head_class} has no {run.attention}, only attention that is written out",
            "use --attention eager",
        )
    if run.attention == "sdpa" and model.trains_its_mask and device.backend == "cuda":
        raise NotModelledError(
            f"attention: sdpa of {model.head_class}, which trains its mask, is not modelled on {device.name}",
            "use --attention eager",
        )
    if run.padding and model.tokens_of_an_image:
        raise NotModelledError("padding: images have none", "use --no-padding")


def refuse_unmodelled_generation(model: LibraryModel, run: InferenceRun, device: Device) -> None:
    """The same for a run that writes."""
    if model.architecture == "encoder":
        raise NotModelledError(
            f"generation: {model.head_class} writes nothing, and its forward pass alone is not modelled",
            "--implementation reference estimates memplan's own transformer of this configuration",
        )
    if device.backend == "cuda":
        raise NotModelledError(
            f"generation with models of {model.implementation} is not modelled on {device.name}",
            "use --device cpu, or --implementation reference",
        )
    if run.precision == "fp16" and model.kept_in_fp32:
        raise NotModelledError(
            f"precision: {model.head_class} in fp16 is not modelled: the library keeps {model.kept_in_fp32} in fp32",
            "use --precision bf16 or fp32",
        )
    if run.cache == "paged":
        raise NotModelledError(
            f"cache: {model.implementation} pages its cache for continuous batching alone, which is not modelled",
            "use --cache dynamic or static",
        )
    if run.padding and (run.source_length or run.prompt_length) == 1:
        raise NotModelledError("padding: prompts of one token have none", "use --no-padding")
    if run.cache == "static" and run.padding and not model.pads_static_caches:
        raise NotModelledError(
            f"cache: {model.head_class} fails with a static cache where the padding mask is not as long as it",
            "use --cache dynamic or --no-padding",
        )
    if run.cache_dtype not in ("same", run.precision):
        raise NotModelledError(
            f"cache_dtype: the caches of {model.implementation} keep keys and values as the model computes them, in "
            f"{run.precision}; its QuantizedCache is not modelled",
            "use --cache-dtype same",
        )
    if run.weight_quantization != "none":
        raise NotModelledError(
            f"weight_quantization: {run.weight_quantization} weights of {model.implementation} are not modelled",
            "use --weight-quantization none",
        )
    if run.source_length > (model.most_positions or run.source_length):
        raise ConfigurationError(
            f"source_length: {run.source_length} tokens are more than the model's {model.most_positions} positions"
        )
