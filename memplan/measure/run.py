"""One training run of the reference transformer, measured: two steps, the second by phase and component."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import nn

from memplan.config.device import Device
from memplan.config.library.model import LibraryModel
from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.config.setups import weight_dtype
from memplan.errors import MeasurementError, NotModelledError
from memplan.measure.attribution import LAYER, attribute
from memplan.measure.course import course
from memplan.measure.probes import mark, record_memory
from memplan.reference.adapters import add_adapters
from memplan.reference.attention import Attention
from memplan.reference.block import Block
from memplan.reference.heads import LanguageModellingHead
from memplan.reference.loss import IGNORED_LABEL as IGNORED_LABEL
from memplan.reference.masters import MasterWeights
from memplan.reference.model import Batch, Transformer
from memplan.reference.optimizers import BITSANDBYTES, Together
from memplan.reference.quantised import quantise
from memplan.reference.training import WEIGHTS, AnyOptimizer, freeze, make_optimizer, make_scaler, training_step

STEPS = 2
"""The first step creates the optimizer's state; from the second one on every step is alike."""

MOST_STEPS = 40
"""A step whose gradients overflow is skipped and the scale halved: from 2**8 to far below what fp16 can hold."""

PHASES = TrainingRun.phases
"""What a record holds of a step; between two of them there is only zero_grad, which frees."""

MARK = "memplan.phase."

KERNELS = {
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash",
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_attention_math": "math",
}
"""Operations of scaled_dot_product_attention, by the kernel they run."""


class Subject(NamedTuple):
    """What is measured: a model, its inputs (attributes that are tensors or None), and a step of training it."""

    model: nn.Module
    batch: Any
    step: Callable[..., object]


def subject_of(config: Configuration | LibraryModel, run: TrainingRun) -> Subject:
    """What is trained on the CPU."""
    if isinstance(config, Configuration):
        model = Transformer(config, run.attention, run.recompute, run.recompute_every)
        model = model.to(WEIGHTS[weight_dtype(run)])
        quantise(model, run.weight_quantization, double=run.double_quantization)
        if run.lora_rank:
            add_adapters(model, run)
        freeze(model, run)
        mark_recomputed(model, run)
        return Subject(model, make_batch(config, run), training_step)
    from memplan.measure.library import build_model, make_library_batch, train_step

    return Subject(build_model(config, run), make_library_batch(config, run), train_step)


def measure_training(
    config: Configuration | LibraryModel, run: TrainingRun, device: Device, over_time: bool = False
) -> dict[str, Any]:
    """Run `config` for real on the CPU and return what was seen, ready for JSON (memplan/profiles.py, `Record`); with
    `over_time` every event of the step as well (memplan/measure/course.py).

    `config` and `run` have been validated. The number of threads is the device's, and oneDNN is switched off: its
    scratchpads depend on the processor. In fp16 a step whose gradients overflow is skipped and needs less memory, so
    steps go on until two in a row were taken; MeasurementError where that never happens.
    """
    if device.backend != "cpu":
        raise NotModelledError(f"measuring on {device.name} is not possible yet, only on the device cpu")
    torch.set_num_threads(device.threads)
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    alive: list[Any] = []
    if run.optimizer in BITSANDBYTES:
        with suppress(ImportError):
            import_module("bitsandbytes.optim")  # leaves tensors behind that are not the run's
    if not isinstance(config, Configuration):
        from memplan.measure.library import import_what_is_needed

        import_what_is_needed(run)  # modules that hold tensors of their own

    def train() -> None:
        subject = subject_of(config, run)
        model, batch, step = subject.model, subject.batch, subject.step
        optimizer = make_optimizer(model, run)
        scaler = make_scaler(run, "cpu")
        alive.extend((model, optimizer, scaler, batch))
        taken = 0
        for _ in range(MOST_STEPS):
            scale = scaler.get_scale() if scaler is not None else 1.0
            step(model, optimizer, batch, run, lambda phase: mark(MARK + phase), scaler)
            skipped = scaler is not None and scaler.get_scale() < scale
            taken = 0 if skipped else taken + 1
            if taken == STEPS:
                return
        raise MeasurementError("gradients overflow in fp16 at every scale, so no step is ever taken")

    events, regions = record_memory(train)
    marks = [(region.start, region.name.removeprefix(MARK)) for region in regions if region.name.startswith(MARK)]
    steps = [index for index, (_, name) in enumerate(marks) if name == "zero_grad"]
    phases = attribute(events, marks[steps[-1] :], _owners(*alive))
    lines = {"memory_over_time": course(events, marks[steps[-1] :])} if over_time else {}
    return {
        "environment": environment(device) | library_environment(config),
        "sdpa_kernels": sorted({KERNELS[region.name] for region in regions if region.name in KERNELS}),
        "phases": [phases[name].to_record() for name in PHASES],
        **lines,
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


def library_environment(config: Configuration | LibraryModel) -> dict[str, Any]:
    """The release of the library that built the model; nothing for the reference transformer."""
    if isinstance(config, Configuration):
        return {}
    from importlib.metadata import version

    return {config.implementation: version(config.implementation)}


def make_batch(config: Configuration, run: TrainingRun, target: torch.device | None = None) -> Batch:
    """One micro-batch of random tokens; with padding, every second sequence is half padding.

    It is made in the CPU's memory and then moved, tensor by tensor: nothing else is left on `target`.
    """
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
    if target is not None:
        for name, tensor in vars(batch).items():
            if tensor is not None:
                setattr(batch, name, tensor.to(target))
    return batch


def _real_tokens(batch: int, length: int) -> torch.Tensor:
    real = torch.ones(batch, length, dtype=torch.bool)
    real[1::2, (length + 1) // 2 :] = False
    return real


def marked(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` in a region, by which a layer's recomputation can be told from the backward pass round it."""

    def run_marked(*arguments: Any) -> Any:
        with torch.profiler.record_function(LAYER):
            return forward(*arguments)

    return run_marked


def mark_recomputed(model: nn.Module, run: TrainingRun) -> None:
    """Regions round what the backward pass makes again."""
    for module in model.modules():
        if isinstance(module, Block) and run.recompute == "full":
            module.forward = marked(module.forward)  # type: ignore[method-assign]
        elif isinstance(module, Attention) and run.recompute == "attention":
            module.naive, module.fused = marked(module.naive), marked(module.fused)  # type: ignore[method-assign]
        elif isinstance(module, LanguageModellingHead) and run.loss == "chunked":
            module.chunk_loss = marked(module.chunk_loss)  # type: ignore[method-assign]


def states_of(optimizer: AnyOptimizer) -> list[torch.Tensor]:
    """The tensors an optimizer keeps from step to step, master weights among them."""
    kept: list[Any] = list(optimizer.masters) if isinstance(optimizer, MasterWeights) else []
    for part in optimizer.parts if isinstance(optimizer, Together) else [optimizer]:
        kept += getattr(part, "name2qmap", {}).values()  # bitsandbytes: what the codes of its states mean
        kept += [value for state in part.state.values() for value in state.values()]
    return [value for value in kept if isinstance(value, torch.Tensor)]


def gradients_of(model: nn.Module, optimizer: AnyOptimizer) -> list[torch.Tensor]:
    """All gradients there are, those of master weights too."""
    owners = [*model.parameters(), *(optimizer.masters if isinstance(optimizer, MasterWeights) else ())]
    return [parameter.grad for parameter in owners if parameter.grad is not None]


def _statistics(module: nn.Module) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside a quantised weight (QuantState, MatmulLtState)."""
    found: list[Any] = []
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if state is not None:
        found += [state.absmax, state.code, state.offset]
        if state.state2 is not None:
            found += [state.state2.absmax, state.state2.code]
    found += [getattr(getattr(module, "state", None), name, None) for name in ("CB", "SCB")]
    return [value for value in found if isinstance(value, torch.Tensor)]


def _owners(
    model: nn.Module, optimizer: AnyOptimizer, scaler: torch.amp.GradScaler | None, batch: Any
) -> dict[int, str]:
    """Address of each storage that outlives the step -> its component."""
    owners: dict[int, str] = {}

    def claim(tensor: torch.Tensor | None, component: str) -> None:
        if tensor is not None:
            owners[tensor.untyped_storage().data_ptr()] = component

    for module in model.modules():  # tensors that are plain attributes too
        for value in (*module.buffers(recurse=False), *vars(module).values()):
            claim(value if isinstance(value, torch.Tensor) else None, "buffers")
        for value in _statistics(module):
            claim(value, "parameters")
    for tensor in states_of(optimizer):
        claim(tensor, "optimizer_state")
    if scaler is not None:
        claim(scaler._scale, "optimizer_state")
        claim(scaler._growth_tracker, "optimizer_state")
    for parameter in model.parameters():
        claim(parameter.data, "parameters")
    for gradient in gradients_of(model, optimizer):
        claim(gradient, "gradients")
    for value in vars(batch).values():
        claim(value, "inputs")
    return owners
