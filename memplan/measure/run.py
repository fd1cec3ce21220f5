"""One training run of the reference transformer, measured: two steps, the second by phase and component."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from memplan.config.device import Device
from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.measure.attribution import LAYER, attribute
from memplan.measure.probes import mark, record_memory
from memplan.reference.block import Block
from memplan.reference.model import Batch, Transformer
from memplan.reference.training import make_optimizer, training_step

STEPS = 2
"""The first step creates the optimizer's state; from the second one on every step is alike."""

MARK = "memplan.phase."
IGNORED_LABEL = -100  # cross-entropy leaves padding out

KERNELS = {
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash",
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_attention_math": "math",
}
"""Operations of scaled_dot_product_attention, by the kernel they run."""


def measure_training(config: Configuration, run: TrainingRun, device: Device) -> dict[str, Any]:
    """Run `config` for real on the CPU and return what was seen, ready for JSON (memplan/profiles.py, `Record`).

    `config` and `run` have been validated. The number of threads is the device's, and oneDNN is switched off: its
    scratchpads depend on the processor.
    """
    if device.backend != "cpu":
        raise NotModelledError(f"measuring on {device.name} is not possible yet, only on the device cpu")
    torch.set_num_threads(device.threads)
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    alive: list[Any] = []

    def train() -> None:
        model = Transformer(config, run.attention, run.recompute)
        if run.precision == "bf16":
            model = model.to(torch.bfloat16)
        if run.recompute == "full":
            _mark_layers(model)
        optimizer = make_optimizer(model, run)
        batch = make_batch(config, run)
        alive.extend((model, optimizer, batch))
        for _ in range(STEPS):
            training_step(model, optimizer, batch, run, lambda phase: mark(MARK + phase))

    events, regions = record_memory(train)
    marks = [(region.start, region.name.removeprefix(MARK)) for region in regions if region.name.startswith(MARK)]
    steps = [index for index, (_, name) in enumerate(marks) if name == "zero_grad"]
    phases = attribute(events, marks[steps[-1] :], _owners(*alive))
    return {
        "environment": environment(device),
        "sdpa_kernels": sorted({KERNELS[region.name] for region in regions if region.name in KERNELS}),
        "phases": [
            {
                "name": name,
                "peak_allocated_bytes": phases[name].peak,
                "end_allocated_bytes": phases[name].end,
                "at_peak": phases[name].at_peak,
                "at_end": phases[name].at_end,
            }
            for name in ("forward", "loss", "backward", "optimizer_step")
        ],
    }


def environment(device: Device) -> dict[str, Any]:
    """What the bytes of a CPU run can depend on."""
    return {
        "device": device.name,
        "threads": device.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),  # type: ignore[no-untyped-call]
        "onednn": False,
    }


def make_batch(config: Configuration, run: TrainingRun) -> Batch:
    """One micro-batch of random tokens; with padding, every second sequence is half padding."""
    length = run.sequence_length or run.target_length
    shape = (run.micro_batch_size, length)
    labels_shape = (run.micro_batch_size,) if config.head == "classification" else shape
    classes = config.vocab_size if config.head == "language_modelling" else config.num_labels
    batch = Batch(torch.randint(0, config.vocab_size, shape), torch.randint(0, classes, labels_shape))
    if run.padding:
        batch.real = _real_tokens(*shape)
        if config.head != "classification":
            batch.labels[~batch.real] = IGNORED_LABEL
    if config.token_type_vocab_size:
        batch.token_types = torch.zeros(shape, dtype=torch.long)
    if config.architecture == "encoder-decoder":
        batch.source = torch.randint(0, config.vocab_size, (run.micro_batch_size, run.source_length))
        batch.source_real = _real_tokens(run.micro_batch_size, run.source_length) if run.padding else None
    return batch


def _real_tokens(batch: int, length: int) -> torch.Tensor:
    real = torch.ones(batch, length, dtype=torch.bool)
    real[1::2, (length + 1) // 2 :] = False
    return real


def _mark_layers(model: nn.Module) -> None:
    """Put a region round each layer's forward pass, so that a recomputation can be told from the backward pass."""

    def marked(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run_marked(*arguments: Any) -> Any:
            with torch.profiler.record_function(LAYER):
                return forward(*arguments)

        return run_marked

    for module in model.modules():
        if isinstance(module, Block):
            module.forward = marked(module.forward)  # type: ignore[method-assign]


def _owners(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[int, str]:
    """Address of each storage that outlives the step -> its component."""
    owners: dict[int, str] = {}

    def claim(tensor: torch.Tensor | None, component: str) -> None:
        if tensor is not None:
            owners[tensor.untyped_storage().data_ptr()] = component

    for state in optimizer.state.values():
        for value in state.values():
            claim(value if isinstance(value, torch.Tensor) else None, "optimizer_state")
    for parameter in model.parameters():
        claim(parameter.grad, "gradients")
        claim(parameter.data, "parameters")
    for buffer in model.buffers():
        claim(buffer, "buffers")
    for value in vars(batch).values():
        claim(value, "inputs")
    return owners
