"""What checks ask for, as a model, a run and a device; each file is read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.config.fields import show
from memplan.errors import ConfigurationError
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.check.settings import Check
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run


class Requests:
    """The requests of a file's checks, and `shared`, what their estimates have in common."""

    def __init__(self) -> None:
        self.shared = Shared()
        self._models: dict[str, tuple[Model, dict[str, object]]] = {}
        self._devices: dict[str, Device] = {}

    def of(self, check: Check) -> tuple[Model, Run, Device]:
        """The model, run and device of a check, validated. Raises ConfigurationError and NotModelledError."""
        from memplan.config.load import build_run
        from memplan.config.validate import validate_run

        model, from_file = self._model(check)
        device = self._device(check.device)
        run = build_run(model, {**from_file, **check.run})
        return model, validate_run(model, run, device), device

    def _model(self, check: Check) -> tuple[Model, dict[str, object]]:
        """The model, and what its TOML file says of its run."""
        from memplan.config.load import load_model, load_request
        from memplan.config.presets import names

        key = repr((check.model, check.implementation, check.changes))
        found = self._models.get(key)
        if found is not None:
            return found
        if check.model.lower().endswith(".toml") and check.model not in names():
            if check.implementation == "transformers":
                raise ConfigurationError(
                    f"implementation: {show(check.model)} is the reference transformer's alone",
                    "a config.json has both",
                )
            found = load_request(check.model, check.changes)[:2]
        else:
            found = load_model(check.model, check.changes, check.implementation), {}
        self._models[key] = found
        return found

    def _device(self, name: str) -> Device:
        from memplan.config import devices

        if name.strip().lower().partition(":")[0] == "local":
            raise ConfigurationError(
                f"device: {show(name)} differs from machine to machine", "name a card of `memplan devices`"
            )
        found = self._devices.get(name)
        if found is None:
            found = self._devices[name] = devices.load_device(name)
        return found
