"""`memplan schema [NAME]`: the JSON Schemas of what memplan reads and writes."""

from typing import Annotated

import typer


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", show_default=False, help="Such as config or check. Default: list the names."),
    ] = None,
) -> None:
    """Print the JSON Schema of the file of checks (config), of a baseline, or of what a command prints with --json.

    Example: memplan schema config > memplan.schema.json
    """
    from memplan.commands.output import write
    from memplan.schemas import names, read

    write("\n".join(names()) if name is None else read(name))
