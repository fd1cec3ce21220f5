"""memplan: how much memory will this transformer need, where does each byte go, and does it fit?

What a command can do, this module can do. Nothing is imported before it is asked for:

    import memplan
    model = memplan.load_model("gpt2")
    run = memplan.TrainingRun(micro_batch_size=1, sequence_length=1024)
    print(memplan.estimate(model, run, memplan.load_device("cpu")).peak)
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from memplan.assertions import assert_fits as assert_fits
    from memplan.capacity import largest_batch as largest_batch
    from memplan.checkpoint.sizes import Checkpoint as Checkpoint
    from memplan.checkpoint.sizes import checkpoint as checkpoint
    from memplan.config.device import Device as Device
    from memplan.config.inference import InferenceRun as InferenceRun
    from memplan.config.load import load_model as load_model
    from memplan.config.model import Transformer as Transformer
    from memplan.config.run import TrainingRun as TrainingRun
    from memplan.errors import ConfigurationError as ConfigurationError
    from memplan.errors import MeasurementError as MeasurementError
    from memplan.errors import MemplanError as MemplanError
    from memplan.errors import MissingDependencyError as MissingDependencyError
    from memplan.errors import NotModelledError as NotModelledError
    from memplan.estimate import Estimate as Estimate
    from memplan.estimate import LedgerLine as LedgerLine
    from memplan.estimate import estimate as estimate
    from memplan.estimate import ledger_lines as ledger_lines
    from memplan.explain.explanation import Explanation as Explanation
    from memplan.explain.explanation import explain as explain
    from memplan.measure.local import load_device as load_device
    from memplan.measure.watching import DriftError as DriftError
    from memplan.measure.watching import MemoryWarning as MemoryWarning
    from memplan.measure.watching import lightning_callback as lightning_callback
    from memplan.measure.watching import transformers_callback as transformers_callback
    from memplan.measure.watching import watch as watch
    from memplan.report.machine import estimate_to_json as estimate_to_json

__version__ = "0.1.0"  # a literal: importlib.metadata.version takes 36 ms to say the same

_HOME = {
    "Checkpoint": "memplan.checkpoint.sizes",
    "ConfigurationError": "memplan.errors",
    "Device": "memplan.config.device",
    "DriftError": "memplan.measure.watching",
    "Estimate": "memplan.estimate",
    "Explanation": "memplan.explain.explanation",
    "InferenceRun": "memplan.config.inference",
    "LedgerLine": "memplan.estimate",
    "MeasurementError": "memplan.errors",
    "MemoryWarning": "memplan.measure.watching",
    "MemplanError": "memplan.errors",
    "MissingDependencyError": "memplan.errors",
    "NotModelledError": "memplan.errors",
    "TrainingRun": "memplan.config.run",
    "Transformer": "memplan.config.model",
    "checkpoint": "memplan.checkpoint.sizes",
    "assert_fits": "memplan.assertions",
    "estimate": "memplan.estimate",
    "explain": "memplan.explain.explanation",
    "estimate_to_json": "memplan.report.machine",
    "largest_batch": "memplan.capacity",
    "ledger_lines": "memplan.estimate",
    "lightning_callback": "memplan.measure.watching",
    "load_device": "memplan.measure.local",
    "load_model": "memplan.config.load",
    "transformers_callback": "memplan.measure.watching",
    "watch": "memplan.measure.watching",
}
"""Where each public name lives."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'memplan' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(home)
    if name not in globals():  # importing memplan.estimate has bound `estimate` already
        globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)


class _NamedForItsFunction(ModuleType):
    """A module that can be called: it passes the call to the function it is named for."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """Python binds a submodule's name here whoever imports it, so `memplan.estimate` is the module once anyone has.
    Making such a module callable lets `memplan.estimate(...)` hold before and after."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("estimate", "explain", "checkpoint") and isinstance(value, ModuleType):
            value.__class__ = _NamedForItsFunction
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
