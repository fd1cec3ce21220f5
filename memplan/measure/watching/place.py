"""What the bytes of a watched run can depend on, as its record holds it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from memplan.config.device import Device
from memplan.config.library.model import LibraryModel
from memplan.errors import NotModelledError
from memplan.measure.local import load_device
from memplan.measure.run import environment

if TYPE_CHECKING:
    from memplan.measure.watching.oncard import OnCard


def device_at(place: torch.device) -> Device:
    """The CPU with as many threads as PyTorch uses, or a card of this machine. Raises ConfigurationError and
    MissingDependencyError where its driver does not tell, NotModelledError for other kinds."""
    if place.type == "cpu":
        return load_device(f"cpu:{torch.get_num_threads()}")
    if place.type == "cuda":
        return load_device(f"local:{place.index}" if place.index else "local")
    raise NotModelledError(f"a model on {place.type} is not modelled", "known are cpu and cuda")


def environment_of(device: Device, card: OnCard | None, library: LibraryModel | None) -> dict[str, Any]:
    """The environment, with what a run of one's own may have otherwise than a measurement: oneDNN is on by default."""
    if card is not None:
        found = card.environment(device)
    else:
        flags = torch.backends.mkldnn
        on = bool(flags.is_available()) and bool(flags.enabled)  # type: ignore[no-untyped-call]
        found = environment(device) | {"threads": torch.get_num_threads(), "onednn": on}
    return found if library is None else found | {library.implementation: version(library.implementation)}
