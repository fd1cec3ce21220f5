"""One steady training step of a model of the library, traced.

The loop is that of the library's documentation (fine-tuning in plain PyTorch), each step a function of its own: the
model gets inputs and labels, computes its loss itself and returns it with the logits, which are held until the step is
over. There is no key-value cache (use_cache=False).
"""

from __future__ import annotations

from memplan.config.library.model import LibraryModel
from memplan.config.run import TrainingRun
from memplan.huggingface.adapters import add_adapters
from memplan.huggingface.models import build_model
from memplan.huggingface.outputs import Batch, Outputs
from memplan.huggingface.quantised import quantise
from memplan.huggingface.releases import check_torch
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ledger import Ledger
from memplan.ops.autograd import backward
from memplan.ops.backend import Backend
from memplan.ops.elementwise import div
from memplan.ops.module import Module
from memplan.ops.scaling import GradScaler
from memplan.ops.size import Size
from memplan.ops.trace import Trace
from memplan.transformer.program import build_for, make_input, trace_step
from memplan.transformer.training import AUTOCAST, AnyOptimizer, update


def trace_library_training(
    config: LibraryModel, run: TrainingRun, backend: Backend, every_layer: bool = False
) -> Ledger:
    """The ledger of one step in its steady state. `config` and `run` have been validated. Raises NotModelledError for
    a release of PyTorch before releases.OLDEST."""
    check_torch(backend.torch)
    trace = Trace(backend, first_layer_apart=bool(run.lora_rank))  # the first adapters' inputs need no gradient
    model = build_for(run, lambda every: build_model(trace, config, Settings.of(run, every)), every_layer)
    quantise(model, run)
    if run.lora_rank:
        add_adapters(model, run)
    return trace_step(trace, model, run, lambda: make_batch(trace, config, run), training_step)


def training_step(
    trace: Trace, model: Module, optimizer: AnyOptimizer, batch: Batch, run: TrainingRun, scaler: GradScaler | None
) -> Outputs:
    """One optimizer step over `gradient_accumulation_steps` micro-batches, two of them at most."""
    trace.enter_phase("zero_grad")
    optimizer.zero_grad()
    for _ in range(min(run.gradient_accumulation_steps, 2)):
        with trace.autocast(AUTOCAST.get(run.precision)):
            trace.enter_phase("forward")
            outputs: Outputs = model(batch)
        loss = outputs.loss
        assert loss is not None  # there are labels
        if run.gradient_accumulation_steps > 1:
            loss = div(loss, float(run.gradient_accumulation_steps))
        trace.enter_phase("backward")
        backward(loss if scaler is None else scaler.scale(loss))
    trace.enter_phase("optimizer_step")
    update(trace, optimizer, run, scaler)
    trace.enter_phase("end")
    return outputs


def make_batch(trace: Trace, config: LibraryModel, run: TrainingRun) -> Batch:
    """The inputs of one micro-batch: 64-bit integers, the padding mask too, as tokenizers make it; or fp32 images."""
    batch = Batch()
    rows = Size(run.micro_batch_size, "micro_batch_size")
    if config.architecture == "encoder-decoder":
        source, target = Size(run.source_length, "source_length"), Size(run.target_length, "target_length")
        batch.input_ids = make_input(trace, (rows, source), "int64")
        batch.labels = make_input(trace, (rows, target), "int64")
        if run.padding:
            batch.attention_mask = make_input(trace, (rows, source), "int64")
        return batch
    if config.tokens_of_an_image:
        size = sized(config, "image_size")
        batch.pixel_values = make_input(trace, (rows, sized(config, "num_channels"), size, size), "fp32")
        batch.labels = make_input(trace, (rows,), "int64")
        return batch
    length = Size(run.sequence_length, "sequence_length")
    batch.input_ids = make_input(trace, (rows, length), "int64")
    batch.labels = make_input(trace, (rows, length), "int64")
    if run.padding:
        batch.attention_mask = make_input(trace, (rows, length), "int64")
    return batch
