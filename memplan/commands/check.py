"""`memplan check`: whether the jobs of a repository keep to their cards and budgets."""

from typing import Annotated

import typer


def command(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            show_default=False,
            help="memplan.toml, a pyproject.toml with [tool.memplan], or the folder of one. Default: this folder.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PATTERN", show_default=False, help="Checks by name, such as train-*."),
    ] = None,
    forms: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="KIND",
            show_default=False,
            help="text, json, markdown, github, junit or sarif; may be given again. Default: text.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="[KIND=]FILE",
            show_default=False,
            help="Write to a file instead of standard output, such as junit=memory.xml; may be given again.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="FILE", show_default=False, help="In place of the one the file names."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", show_default=False, help="For every check, whatever the file says."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="SIZE", show_default=False, help="For every check, such as 24 GiB or 90 %."),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Exit code 0 for checks that fail; still 2 where one is undecided.")
    ] = False,
    init: Annotated[bool, typer.Option("--init", help="Write a first memplan.toml with comments, and stop.")] = False,
) -> int:
    """Check that jobs fit their cards and budgets, on the upper end of each estimate. Needs no GPU and no torch.

    Exit codes: 0 every check passes or warns, 1 one fails, 2 one cannot be decided or the file is wrong.

    Example: memplan check --format github --output markdown=memory.md
    """
    from memplan.commands.checking import first_file, run

    if init:
        first_file(file)
        return 0
    return run(
        file,
        only=only or [],
        forms=forms or [],
        outputs=outputs or [],
        baseline=baseline,
        device=device,
        budget=budget,
        report_only=report_only,
    )
