"""What is watched, and what is known of it before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from memplan.config.library.model import LibraryModel
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import NotModelledError
from memplan.measure.watching.loops import Loop
from memplan.measure.watching.plan import Plan, make_plan
from memplan.measure.watching.request import device_of, model_of, notes_of, run_of
from memplan.ops.backend import release

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.measure.watching.seams import Observed

MakeLoop = Callable[[LibraryModel, TrainingRun, "Observed", "Device"], Loop | None]


class Request(NamedTuple):
    """What a run asks for, validated."""

    model: Model
    run: TrainingRun
    device: Device


@dataclass(slots=True)
class Subject:
    """A run. What is None or empty is read off the run itself, once it shows (memplan/measure/watching/request.py).

    `changes` are settings of the run that are known beforehand. `loop_name` says whose loop it is, "" for one of the
    run's own; `make_loop` says how that goes about a step. `known_at_call` says that nothing of a run has to be waited
    for beyond the first call of its model.
    """

    model: Model | None = None
    module: nn.Module | None = None
    run: TrainingRun | None = None
    device: Device | None = None
    changes: Mapping[str, object] = field(default_factory=dict)
    optimizers: Sequence[torch.optim.Optimizer] = ()
    loop_name: str = ""
    make_loop: MakeLoop | None = None
    known_at_call: bool = False
    autocast: torch.dtype | None = None
    refusal: str = ""

    @property
    def known(self) -> bool:
        """Whether nothing has to be waited for."""
        return self.model is not None and self.run is not None and self.device is not None

    @property
    def name(self) -> str:
        """What a reader calls it."""
        if self.model is not None:
            return self.model.name
        return "a run" if self.module is None else type(self.module).__name__

    def where(self) -> torch.device:
        """The device it runs on, as far as that is known: else the CPU."""
        if self.module is not None:
            parameter = next(self.module.parameters(), None)
            if parameter is not None:
                return parameter.device
        if self.device is not None and self.device.backend == "cuda":
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def request(self, observed: Observed) -> Request:
        """What the run asks for. Raises ConfigurationError and NotModelledError where that cannot be told."""
        if self.refusal:
            raise NotModelledError(self.refusal)
        if (ranks := ranks_of_run()[1]) > 1:
            raise NotModelledError(f"training on {ranks} ranks is not modelled", "a plan is of one device")
        module = self.module if self.module is not None else next(iter(observed.modules), None)
        device = self.device
        if device is None:
            if module is None:
                raise NotModelledError("where it runs cannot be told before its model is called", "give device=")
            device = device_of(module)
        if self.model is not None and self.run is not None:
            model = validate_model(self.model)
            return Request(model, validate_run(model, self.run, device), device)
        if module is None:
            raise NotModelledError("no module has been called", "give model=, the module that is trained")
        read = model_of(module)
        run = run_of(module, read, observed, self.changes)
        return Request(read, validate_run(read, run, device), device)

    def plan(self, request: Request, observed: Observed, allocator_settings: str) -> Plan:
        """The plan of it. Raises as `request` does."""
        loop: Loop | None = None
        if self.make_loop is not None and isinstance(request.model, LibraryModel):
            loop = self.make_loop(request.model, request.run, observed, request.device)
        plan = make_plan(*request, release(torch.__version__), allocator_settings, loop)
        if loop is not None or self.module is None or not isinstance(request.model, LibraryModel):
            return plan
        notes = notes_of(self.module, request.model, request.run, observed)
        return replace(plan, assumptions=(*notes, *plan.assumptions))


def ranks_of_run() -> tuple[int, int]:
    """The number of this process in a distributed run, and how many there are."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
