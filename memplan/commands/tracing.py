"""From the command line of `memplan trace` to a traced step, in the process that has torch."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import NamedTuple, get_args

from memplan.config import devices
from memplan.config.device import Device
from memplan.config.load import parse_override
from memplan.config.run import OptimizerImplementation, TrainingRun
from memplan.errors import ConfigurationError, MissingDependencyError, NotModelledError
from memplan.ledger import Ledger
from memplan.traced import TraceEstimate, TraceVerification

PRECISIONS = ("fp32", "bf16", "bf16-mixed")
OPTIMIZERS = ("adamw", "adam", "sgd")


class Request(NamedTuple):
    """What is to be traced, checked as far as it can be without torch."""

    name: str
    inputs: dict[str, object]
    run: TrainingRun
    device: Device


def load_request(name: str, inputs: Sequence[str], device_name: str, given: Mapping[str, object]) -> Request:
    """The request of a command line. Raises ConfigurationError and NotModelledError, naming the option."""
    choices = {
        "precision": PRECISIONS,
        "optimizer": OPTIMIZERS,
        "optimizer_implementation": get_args(OptimizerImplementation),
    }
    for key, allowed in choices.items():
        if key in given and given[key] not in allowed:
            option = f"--{key.replace('_', '-')}"
            raise ConfigurationError(f"{option}: {str(given[key])[:40]!a} is none of {', '.join(allowed)}")
    run = TrainingRun(**given)  # type: ignore[arg-type]
    if not 0 <= run.momentum <= 1:
        raise ConfigurationError("--momentum: must be from 0 to 1", "for example --momentum 0.9")
    if run.momentum and run.optimizer != "sgd":
        raise ConfigurationError("--momentum goes with --optimizer sgd")
    device = devices.load_device(device_name)
    if device.backend != "cpu":
        raise NotModelledError(f"tracing for {device.name} is not modelled, only for the device cpu", "--device cpu")
    return Request(name, dict(parse_override(text) for text in inputs), run, device)


def trace(
    request: Request, assume_outputs_only: bool, verify: bool
) -> tuple[TraceEstimate, Ledger, TraceVerification | None]:
    """Trace a step; with `verify` run it for real as well, if it can be estimated."""
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "tracing runs a module, and torch is not installed", 'pip install "memplan[torch]"'
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported, as in memplan/measure/child.py
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler of a real run has nothing to say here
    with redirect_stdout(sys.stderr):  # standard output belongs to the result, whatever the user's code prints
        from memplan.measure.tracing.program import trace_module

        return trace_module(request.name, request.inputs, request.run, request.device, assume_outputs_only, verify)
