"""`memplan baseline write`: keep what the checks need now, to compare with later."""

from typing import Annotated

import typer


def command(
    action: Annotated[str, typer.Argument(metavar="write", show_default=False, help="write: make the file anew.")],
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", show_default=False, help="memplan.toml or a pyproject.toml, as for check."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", show_default=False, help="Default: the baseline that the file of checks names."
        ),
    ] = None,
) -> int:
    """Write the baseline of a file of checks: what each needs, by component and tensor. Commit it.

    Example: memplan baseline write --out memplan-baseline.json
    """
    from memplan.check.baseline import baseline_to_text
    from memplan.check.baseline import write as write_file
    from memplan.check.judge import judge
    from memplan.commands.checking import load
    from memplan.commands.output import write
    from memplan.errors import ConfigurationError

    if action != "write":
        raise ConfigurationError(f"{action[:40]!a} is not an action", "memplan baseline write")
    settings = load(file)
    target = out or settings.baseline
    if target is None:
        raise ConfigurationError(
            f"{settings.path} names no baseline", 'write baseline = "memplan-baseline.json" in it, or give --out FILE'
        )
    judged = judge(settings.unlimited(), remedies=False)
    undecided = [each for each in judged if each.outcome == "undecided"]
    if undecided:
        first = undecided[0]
        raise ConfigurationError(f"the check {first.check.name!a} cannot be decided: {first.error}", first.hint or None)
    write_file(target, baseline_to_text(judged))
    kept = sum(each.estimate is not None for each in judged)
    write(f"wrote {target}: {kept} {'check' if kept == 1 else 'checks'}")
    return 0
