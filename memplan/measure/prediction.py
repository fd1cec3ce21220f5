"""What a run is predicted to need, in every tier. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memplan.config.device import Device
from memplan.estimate import estimate
from memplan.ops.backend import CURRENT, release

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run


class Rules(NamedTuple):
    """What a prediction goes by: a release of PyTorch, and the text of its allocator's settings."""

    torch: tuple[int, int] = CURRENT
    allocator_settings: str = ""


class Prediction(NamedTuple):
    """Bytes at the peak of the step; None for a tier that the device does not have."""

    allocated_bytes: int
    reserved_bytes: int | None
    device_bytes: int | None

    @property
    def needed_bytes(self) -> int:
        """What a device has to hold: its highest tier."""
        return next(size for size in reversed(self) if size is not None)

    def fits(self, device: Device) -> bool:
        """Whether the device has room for it now; one without a fixed capacity always has."""
        return not device.capacity_bytes or self.needed_bytes <= device.available_bytes


DEFAULT = Rules()


def rules_of(environment: dict[str, Any]) -> Rules:
    """The rules of the PyTorch that runs in such an environment (of a record)."""
    return Rules(release(environment["torch"]), environment.get("allocator_settings") or "")


def predict(model: Model, run: Run, device: Device, rules: Rules = DEFAULT) -> Prediction:
    """The prediction for one validated configuration."""
    tiers = estimate(model, run, device, rules.torch, rules.allocator_settings).tiers
    return Prediction(tiers.allocated_bytes, tiers.reserved_bytes, tiers.device_bytes)
