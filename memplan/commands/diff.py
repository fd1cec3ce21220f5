"""`memplan diff OLD NEW`: what changed, by component and tensor."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run()
def command(
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD",
            show_default=False,
            help="A baseline, a file of checks, a git revision (main, or main:memplan.toml), or a model with the "
            "options of a run.",
        ),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="The same, or . for this folder.")],
    *,
    run: dict[str, Any],
    device: options.Device = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    warn: Annotated[
        str | None,
        typer.Option("--warn", metavar="SIZE", show_default=False, help="Warn of more growth, such as 1 % or 200 MiB."),
    ] = None,
    fail: Annotated[
        str | None,
        typer.Option("--fail", metavar="SIZE", show_default=False, help="Exit code 1 for more growth, such as 5 %."),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="KIND", help="text, json or markdown.")] = "text",
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", show_default=False, help="Write to a file.")
    ] = None,
) -> int:
    """Lay two sets of jobs beside each other: which grew, by which component, by which tensors.

    Examples: memplan diff memplan-baseline.json . --fail "5 %"; memplan diff main . --format markdown
    """
    from memplan.check.baseline import entry_of
    from memplan.check.baseline import write as write_file
    from memplan.check.budgets import named_amount
    from memplan.check.diff import compare
    from memplan.check.judge import upper_end
    from memplan.check.sides import entries_of
    from memplan.commands.output import colour, columns, write
    from memplan.commands.request import resolve
    from memplan.errors import ConfigurationError
    from memplan.estimate import estimate
    from memplan.report.check.diff import FORMATS, render

    def job(model: str) -> dict[str, Any]:
        found = estimate(*resolve(model, settings or [], device, run, implementation))
        return {"the job": entry_of(found, upper_end(found))}

    if form not in FORMATS:
        raise ConfigurationError(f"--format: must be one of {', '.join(FORMATS)}, not {form[:40]!a}")
    limits = [
        None if text is None else named_amount(option, text, zero=True)
        for option, text in (("--warn", warn), ("--fail", fail))
    ]
    differences = compare(entries_of(old, job), entries_of(new, job), *limits)
    text = render(form, differences, width=columns() if output is None else 100, colour=output is None and colour())
    if output is None:
        write(text)
    else:
        write_file(output, text)
    return 1 if any(each.level == "fail" for each in differences) else 0
