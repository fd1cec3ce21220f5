"""One steady training step of a transformer, traced: the ledger everything else is read from."""

from __future__ import annotations

from memplan.config.model import Transformer as Configuration
from memplan.config.run import TrainingRun
from memplan.ledger import Ledger
from memplan.ops.backend import Backend
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.transformer.model import Batch, Transformer
from memplan.transformer.sizes import Sizes
from memplan.transformer.training import make_optimizer, training_step


def trace_training(config: Configuration, run: TrainingRun, backend: Backend, every_layer: bool = False) -> Ledger:
    """The ledger of one step in its steady state (optimizer states exist). `config` and `run` have been validated.

    With `every_layer` all layers are traced one by one; otherwise a stack of equal layers is traced three deep and the
    ledger composes the rest. Both give the same bytes.
    """
    trace = Trace(backend)
    sizes = Sizes(config, run)
    model = Transformer(trace, config, sizes, run.attention, run.recompute, every_layer)
    model.place()
    model.allocate("bf16" if run.precision == "bf16" else "fp32")
    optimizer = make_optimizer(trace, model, run)
    optimizer.allocate_state()
    batch = make_batch(trace, config, run, sizes)
    loss = training_step(trace, model, optimizer, batch, run)
    for parameter in optimizer.parameters:
        if parameter.grad is not None and parameter.grad.storage.allocation is not None:
            parameter.grad.storage.allocation.component = "gradients"
    ledger = trace.close()
    del loss
    return ledger


def make_batch(trace: Trace, config: Configuration, run: TrainingRun, sizes: Sizes) -> Batch:
    """The inputs of one micro-batch."""

    def integers(*shape: int) -> Tensor:
        return _input(trace, shape, "int64")

    def mask(*shape: int) -> Tensor | None:
        return _input(trace, shape, "bool") if run.padding else None

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


def _input(trace: Trace, shape: tuple[int, ...], dtype: str) -> Tensor:
    tensor = empty(trace, shape, dtype, "input")
    if tensor.storage.allocation is not None:
        tensor.storage.allocation.component = "inputs"
    return tensor
