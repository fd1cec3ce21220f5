"""One steady training step of a transformer, or writing with it, traced: the ledger everything else is read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from memplan.config.frozen import frozen_names
from memplan.config.generation import pads_prompts
from memplan.config.inference import InferenceRun
from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.config.setups import weight_dtype
from memplan.ledger import Ledger
from memplan.ops.backend import Backend
from memplan.ops.module import Module
from memplan.ops.scaling import GradScaler
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.transformer.model import Batch, Prompt, Transformer
from memplan.transformer.quantised import quantise
from memplan.transformer.sizes import Sizes
from memplan.transformer.training import AnyOptimizer, freeze, make_optimizer, make_scaler, training_step

ModelT = TypeVar("ModelT", bound=Module)
BatchT = TypeVar("BatchT")


def trace_training(config: Configuration, run: TrainingRun, backend: Backend, every_layer: bool = False) -> Ledger:
    """The ledger of one step in its steady state (optimizer states exist). `config` and `run` have been validated.

    With `every_layer` all layers are traced one by one; otherwise a stack of equal layers is traced three deep and the
    ledger composes the rest. Both give the same bytes.
    """
    trace = Trace(backend, first_layer_apart=bool(run.lora_rank))  # the first adapters' inputs need no gradient
    sizes = Sizes(config, run)

    def build(every_layer: bool) -> Transformer:
        return Transformer(trace, config, sizes, run.attention, run.recompute, every_layer, run.recompute_every)

    model = build_for(run, build, every_layer)
    quantise(model, run.weight_quantization, double=run.double_quantization)
    if run.lora_rank:
        from memplan.transformer.adapters import add_adapters

        add_adapters(model, run)
    return trace_step(trace, model, run, lambda: make_batch(trace, config, run, sizes), training_step)


def build_for(run: TrainingRun, build: Callable[[bool], ModelT], every_layer: bool) -> ModelT:
    """The model with the run's weights frozen. Layers that are not trained alike do not stand for each other: every
    layer is built where a stack cannot be arranged so."""
    model = build(every_layer)
    if run.frozen or run.frozen_layers:
        names = [name for its_names in model.names().values() for name in its_names]
        frozen = frozen_names(run, names)
        if not every_layer and not model.arrange(frozen):
            model = build(True)
        freeze(model, run)
    return model


def trace_step(
    trace: Trace,
    model: ModelT,
    run: TrainingRun,
    make_batch: Callable[[], BatchT],
    step: Callable[[Trace, ModelT, AnyOptimizer, BatchT, TrainingRun, GradScaler | None], object],
) -> Ledger:
    """What every wing's step has in common: what exists before it, the step itself, and the ledger closed."""
    model.place()
    model.allocate(weight_dtype(run))
    optimizer = make_optimizer(trace, model, run)
    optimizer.allocate_state()
    scaler = make_scaler(run, trace)
    trace.ledger.micro_batches = run.gradient_accumulation_steps
    batch = make_batch()
    result = step(trace, model, optimizer, batch, run, scaler)
    for place, parameter in enumerate(model.parameters()):
        if parameter.grad is not None and parameter.grad.storage.allocation is not None:
            parameter.grad.storage.allocation.component = "gradients"
            trace.ledger.gradient_order[parameter.grad.storage.allocation] = place
    ledger = trace.close()
    del result
    return ledger


def make_batch(trace: Trace, config: Configuration, run: TrainingRun, sizes: Sizes) -> Batch:
    """The inputs of one micro-batch."""

    def integers(*shape: int) -> Tensor:
        return make_input(trace, shape, "int64")

    def mask(*shape: int) -> Tensor | None:
        return make_input(trace, shape, "bool") if run.padding else None

    shape = (sizes.batch, sizes.sequence)
    tokens = integers(*shape)
    labels = integers(sizes.batch) if config.head == "classification" else integers(*shape)
    batch = Batch(tokens, labels, mask(*shape))
    if config.token_type_vocab_size:
        batch.token_types = integers(*shape)
    if config.architecture == "encoder-decoder":
        batch.source = integers(sizes.batch, sizes.source)
        batch.source_real = mask(sizes.batch, sizes.source)
    return batch


def make_input(trace: Trace, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor that is given to the step."""
    tensor = empty(trace, shape, dtype, "input")
    if tensor.storage.allocation is not None:
        tensor.storage.allocation.component = "inputs"
    return tensor


def trace_generation(
    config: Configuration, run: InferenceRun, backend: Backend, every_layer: bool = False, every_step: bool = False
) -> Ledger:
    """The ledger of writing with a model that is there. `config` and `run` have been validated.

    With `every_layer` all layers are traced one by one, with `every_step` all steps of decode; otherwise three layers,
    and the steps that can hold the peak. Either way gives the same bytes.
    """
    from memplan.transformer.generation import Writer, generate
    from memplan.transformer.steps import growth_stride, sampled_in_words, telling_steps

    trace = Trace(backend)
    trace.grad_enabled = False
    sizes = Sizes(config, run)
    still = replace(config, embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0)
    model = Transformer(trace, still, sizes, run.attention, "none", every_layer)
    quantise(model, run.weight_quantization, run.quantization_group_size, run.double_quantization)
    model.place()
    model.allocate(run.precision)
    prompt = make_prompt(trace, config, run, sizes)
    every = range(1, run.new_tokens)
    steps = every if every_step else telling_steps(config, run, backend)
    writer = Writer(model, config, run, sizes)
    stride = growth_stride(config, run, backend)
    result = generate(writer, prompt, steps, stride)
    ledger = trace.close()
    del result, writer
    if len(steps) < len(every):
        ledger.sampled = sampled_in_words(len(steps), len(every), stride)
    return ledger


def make_prompt(trace: Trace, config: Configuration, run: InferenceRun, sizes: Sizes) -> Prompt:
    """What the model is given."""
    shape = (sizes.batch, sizes.sequence)
    prompt = Prompt(make_input(trace, shape, "int64"))
    if pads_prompts(config, run):
        prompt.real = make_input(trace, shape, "bool")
    if config.token_type_vocab_size:
        prompt.token_types = make_input(trace, shape, "int64")
    if config.architecture == "encoder-decoder":
        source = (sizes.batch, sizes.source)
        prompt.source = make_input(trace, source, "int64")
        prompt.source_real = make_input(trace, source, "bool") if run.padding else None
    return prompt
