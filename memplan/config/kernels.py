"""Which kernels of scaled_dot_product_attention take which jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError

if TYPE_CHECKING:
    from memplan.config.runs import Run

    RunT = TypeVar("RunT", bound=Run)


def with_kernel(model: Transformer, run: RunT, device: Device) -> RunT:
    """`sdpa` replaced by the kernel that takes the job: flash where it can, else efficient."""
    if run.attention != "sdpa":
        return run
    efficient = device.backend == "cuda" and kernel_problem(model, run, device, "flash") is not None
    if efficient and kernel_problem(model, run, device, "efficient") is None:
        return replace(run, attention="efficient")
    return replace(run, attention="flash")


def kernel_problem(model: Transformer, run: Run, device: Device, kernel: str) -> tuple[str, str] | None:
    """Why an attention kernel does not take a job, as the end of a sentence, and what would; None where it does.

    Rules: aten/src/ATen/native/transformers/sdp_utils_cpp.cpp, cuda/sdp_utils.cpp (check_* functions).
    """
    if kernel == "naive":
        return None
    if model.positions == "relative":
        why = "the trainable position bias makes PyTorch fall back to its math kernel"
        because = f": {why}" if isinstance(run, TrainingRun) else ""
        return f'with positions = "relative" is not modelled{because}', "use --attention naive"
    if model.kv_lora_rank and model.value_head_dim != model.head_dim:
        why = f"values of {model.value_head_dim} beside a head_dim of {model.head_dim}"
        return f"with {why} is not modelled", "use --attention naive"
    if model.attention_soft_cap:
        why = "scaled_dot_product_attention cannot cap scores"
        return f"does not take attention_soft_cap = {model.attention_soft_cap:g}: {why}", "use --attention naive"
    if device.backend == "cpu":
        return _cpu_kernel_problem(model, kernel)
    half = run.precision != "fp32"
    width, generation = model.head_dim, generation_of(device)
    if kernel == "efficient":
        multiple = 8 if half else 4 if generation >= (8, 0) else 1
        if width % multiple:
            why = f"needs a head_dim that is a multiple of {multiple} in {run.precision}, not {width}"
            return why, "use --attention naive"
        if run.precision.startswith("bf16") and generation < (8, 0):
            return f"runs in bf16 from compute capability 8.0 on, not on {device.name}", "use --precision fp16-mixed"
        return None
    if run.padding:
        return "takes no padding mask on CUDA", "use --attention efficient or --no-padding"
    if not isinstance(run, TrainingRun) and run.cache == "static":
        return "takes no mask on CUDA, which a static cache needs", "use --attention efficient, or --cache dynamic"
    if model.sliding_window or model.positions == "alibi":
        what = "a sliding window needs" if model.sliding_window else 'positions = "alibi" needs'
        return f"takes no mask on CUDA, which {what}", "use --attention efficient"
    if not half:
        return "runs in half precision only on CUDA", "use --attention efficient, or --precision bf16-mixed"
    if generation < (8, 0):
        return f"needs compute capability 8.0, which {device.name} does not have", "use --attention efficient"
    if width > 256:
        return f"takes heads of at most 256, not {width}", "use --attention efficient"
    small = generation in ((8, 6), (8, 7), (8, 9)) or generation >= (12, 0)
    if small and (192 < width <= 224 or (width > 224 and model.attention_dropout)):
        return f"has no backward pass for heads of {width} on {device.name}", "use --attention efficient"
    return None


def _cpu_kernel_problem(model: Transformer, kernel: str) -> tuple[str, str] | None:
    if kernel == "efficient":
        return "is a kernel of CUDA, which the CPU does not have", "use --attention flash or name a card"
    if model.attention_dropout:
        why = "PyTorch's CPU flash kernel has no dropout and falls back to the math kernel"
        return (
            f"with attention_dropout = {model.attention_dropout} is not modelled on the CPU: {why}",
            "use --set attention_dropout=0 or --attention naive",
        )
    return None


def generation_of(device: Device) -> tuple[int, int]:
    """The compute capability of a card."""
    major, _, minor = device.compute_capability.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ConfigurationError(
            f"device: {device.name} has the compute capability {device.compute_capability!a}",
            'it is needed to know the kernels of a card; for example "9.0"',
        )
    return int(major), int(minor)
