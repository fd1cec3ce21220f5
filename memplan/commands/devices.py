"""`memplan devices`: the cards known by name."""

from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """List the devices that memplan knows by name, with the memory each leaves to a program."""
    from memplan.commands.output import write
    from memplan.config.devices import load_device, names
    from memplan.units import human

    devices = [load_device(name) for name in names()]
    if as_json:
        import json

        write(
            json.dumps(
                [
                    {
                        "name": device.name,
                        "backend": device.backend,
                        "capacity_bytes": device.capacity_bytes or None,
                        "description": device.description,
                        "source": device.source,
                    }
                    for device in devices
                ],
                indent=2,
            )
        )
        return
    longest = max(len(device.name) for device in devices)
    lines = [f"{'device':{longest}}  {'capacity':>10}  {'bytes':>15}  description"]
    for device in devices:
        capacity = human(device.capacity_bytes) if device.capacity_bytes else "-"
        size = f"{device.capacity_bytes:,}" if device.capacity_bytes else "-"
        lines.append(f"{device.name:{longest}}  {capacity:>10}  {size:>15}  {device.description}")
    write("\n".join(lines))
