"""`memplan plan`: which settings fit, and which knob to turn."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run("mode", "prompt_length", "new_tokens", "cache", "cache_dtype", "cache_block_size", "logits", "sampling")
def command(
    model: options.Model,
    *,
    run: dict[str, Any],
    device: options.Device = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="KIND",
            help="fit: the cheapest change that fits. micro-batch or length: the largest that fits, for every choice. "
            "card: the smallest card that does.",
        ),
    ] = "fit",
    fix: Annotated[
        list[str] | None,
        typer.Option(
            "--fix",
            metavar="KEY[=VALUE]",
            show_default=False,
            help="A setting that stays as it is, or is this, such as precision=bf16; may be given again.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="SIZE", show_default=False, help="Such as 70 GiB or 90 %; default: the card."),
    ] = None,
    top: Annotated[str, typer.Option("--top", metavar="N", help="How many options to show.")] = "12",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> int:
    """Rank what would fit: attention, recomputation, loss, precision, optimizer, accumulation, LoRA. Exit code 1 where
    nothing that was tried fits.

    Example: memplan plan llama-3-8b --sequence-length 8192 --precision bf16 --device h100-80gb
    """
    from memplan.check.budgets import named_budget
    from memplan.commands.output import colour, columns, write
    from memplan.commands.request import resolve
    from memplan.config.load import parse_override
    from memplan.config.run import TrainingRun
    from memplan.errors import ConfigurationError, nearest
    from memplan.plan.choices import OBJECTIVES, plan
    from memplan.report.planning import plan_to_json, render_plan

    if objective not in OBJECTIVES:
        close = nearest(objective, OBJECTIVES)
        hint = f"did you mean {close}?" if close else None
        raise ConfigurationError(f"--objective: must be one of {', '.join(OBJECTIVES)}, not {objective[:40]!a}", hint)
    fixed = set()
    values: dict[str, Any] = dict(run)
    for text in fix or []:
        key, value = parse_override(text) if "=" in text else (text.strip(), None)
        if key not in TrainingRun.__slots__:
            close = nearest(key, TrainingRun.__slots__)
            raise ConfigurationError(
                f"--fix: {key[:60]!a} is not a setting of a run", f"did you mean {close}?" if close else None
            )
        fixed.add(key)
        if value is not None:
            values[key] = value
    request = resolve(model, settings or [], device, values, implementation)
    trained = request[1]
    assert isinstance(trained, TrainingRun)
    limit = None
    if budget is not None:
        amount = named_budget("--budget", budget)
        if amount.share and not request[2].capacity_bytes:
            raise ConfigurationError(f"--budget: {amount.text} of what? only a card has a capacity")
        limit = amount.of(request[2].available_bytes)
    found = plan(
        request[0],
        trained,
        request[2],
        objective,
        frozenset(fixed),
        limit,
        options.size("--top", top),
    )
    write(plan_to_json(found) if as_json else render_plan(found, width=columns(), colour=colour()))
    return 0 if any(option.fits for option in found.options) else 1
