"""`memplan profiles`: what is recorded, and what is missing."""

from typing import Annotated

import typer


def command(
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]",
            show_default=False,
            help="The folder of the records; left out, those that come with memplan.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> int:
    """List the recorded runs by machine, what of each suite is among them, and the commands that measure the rest.

    Files that are no records are named on standard error, and make the exit code 2.
    """
    import sys
    from pathlib import Path

    from memplan.commands.output import colour, columns, write
    from memplan.measure.coverage import coverage, missing_everywhere
    from memplan.measure.coverage_listing import coverage_to_json, render_coverage
    from memplan.profiles import profiles_folder, read_all

    records, problems = read_all(Path(folder or profiles_folder()))
    for _, why in problems:
        print(f"error: {why}", file=sys.stderr)
    out = folder or "profiles"
    folders = coverage(records, out)
    missing = missing_everywhere(folders, out)
    if as_json:
        write(coverage_to_json(folders, missing))
    else:
        write(render_coverage(folders, missing, width=columns(), colour=colour()))
    return 2 if problems else 0
