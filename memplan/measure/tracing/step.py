"""One step of training any module, the same for the traced and for the real run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError
from memplan.measure.tracing.subject import Subject

STEPS = 2
"""The first step creates the optimizer's state; from the second one on every step is alike."""


@contextmanager
def without_onednn() -> Iterator[None]:
    """Within, oneDNN is off: its scratchpads depend on the processor. Which operations are called depends on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # told of Intel's GPUs when the setting is put back
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def training_step(
    subject: Subject, optimizer: torch.optim.Optimizer, run: TrainingRun, mark: Callable[[str], None]
) -> None:
    """`mark` is told where each phase begins. What the module returns, and the loss, are held until the step ends."""
    mixed = run.precision == "bf16-mixed"
    mark("zero_grad")
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        mark("forward")
        output = subject.module(*subject.args, **subject.kwargs)
        mark("loss")
        loss = subject.loss(output)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise ConfigurationError("the loss must be a tensor of one number", "for example F.mse_loss(output, target)")
    if not loss.requires_grad:
        raise ConfigurationError("the loss does not depend on any parameter that is trained")
    mark("backward")
    loss.backward()  # type: ignore[no-untyped-call]
    mark("optimizer_step")
    optimizer.step()
    mark("end")
