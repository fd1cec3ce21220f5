"""`memplan.assert_fits`: a budget of memory as an assertion of a test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from memplan.check.budgets import named_budget
from memplan.check.judge import Judged, decide
from memplan.check.settings import Check
from memplan.config.load import build_run, load_model
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import Estimate, estimate

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run


def assert_fits(
    model: Model | str | os.PathLike[str],
    run: Run | Mapping[str, object],
    device: Device | str,
    budget: str | None = None,
) -> Estimate:
    """The estimate of a run, which fits its device and its budget: on the upper end of its interval, never on the
    middle.

    `model` and `device` are objects or names; `run` is a run or its settings, such as {"sequence_length": 1024}; a
    budget is a size with its unit or a share of the card, "24 GiB" or "90 %", and without one it is all that the card
    can give.

    Raises AssertionError, with the components and what would fit, for what does not; ConfigurationError and
    NotModelledError where that cannot be decided.
    """
    __tracebackhide__ = True
    judged = judged_of(model, run, device, budget)
    assert judged.estimate is not None
    if judged.findings:
        from memplan.report.check.words import message

        raise AssertionError(message(judged))
    return judged.estimate


def judged_of(
    model: Model | str | os.PathLike[str],
    run: Run | Mapping[str, object],
    device: Device | str,
    budget: str | None = None,
    name: str = "assert_fits",
) -> Judged:
    """The same as a check called `name`."""
    from memplan.config.devices import load_device

    if isinstance(model, (str, os.PathLike)):
        model = load_model(model)
    device = load_device(device) if isinstance(device, str) else device
    model = validate_model(model)
    run = validate_run(model, build_run(model, run) if isinstance(run, Mapping) else run, device)
    amount = None if budget is None else named_budget("budget", budget)
    check = Check(name=name, line=0, model=model.name, device=device.name, budget=amount)
    return decide(check, estimate(model, run, device))
