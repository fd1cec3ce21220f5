"""`memplan devices`: this machine's cards, and those known by name."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from memplan.config.device import Device


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """List this machine's cards and the devices that memplan knows by name, with the memory each leaves to programs."""
    from memplan.commands.output import write
    from memplan.config.devices import catalogue, load_device

    local = _local_devices()
    devices = [*local, load_device("cpu"), *catalogue()]
    if as_json:
        import json

        write(json.dumps([_as_dict(device, device in local) for device in devices], indent=2))
        return
    rows = [("device", "capacity", "bytes", "compute", "description"), *(_row(device) for device in devices)]
    name, compute = (max(len(row[column]) for row in rows) for column in (0, 3))
    lines = [f"{row[0]:{name}}  {row[1]:>10}  {row[2]:>15}  {row[3]:>{compute}}  {row[4]}" for row in rows]
    write("\n".join(lines))


def _local_devices() -> list["Device"]:
    """Nothing where there is no card or no driver to ask: the list of the others is of use all the same."""
    from memplan.errors import MemplanError
    from memplan.measure.local import local_devices

    try:
        return list(local_devices())
    except MemplanError:
        return []


def _row(device: "Device") -> tuple[str, str, str, str, str]:
    from memplan.units import human

    capacity = human(device.capacity_bytes) if device.capacity_bytes else "-"
    size = f"{device.capacity_bytes:,}" if device.capacity_bytes else "-"
    used = f", {human(device.used_by_others_bytes)} in use by others" if device.used_by_others_bytes else ""
    return device.name, capacity, size, device.compute_capability or "-", device.description + used


def _as_dict(device: "Device", local: bool) -> dict[str, object]:
    """What a device has none of is null."""
    return {
        "name": device.name,
        "backend": device.backend,
        "capacity_bytes": device.capacity_bytes or None,
        "used_by_others_bytes": device.used_by_others_bytes if local else None,
        "compute_capability": device.compute_capability or None,
        "multiprocessors": device.multiprocessors or None,
        "description": device.description,
        "source": device.source,
    }
