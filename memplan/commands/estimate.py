"""`memplan estimate MODEL`: what one training step needs, or a run that writes, and where."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run()
def command(
    model: options.Model,
    *,
    run: dict[str, Any],
    device: options.Device = None,
    torch: options.Torch = None,
    allocator_settings: options.AllocatorSettings = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show every line of the ledger as well.")] = False,
    top: Annotated[str, typer.Option("--top", metavar="N", help="How many of the biggest tensors to show.")] = "5",
) -> None:
    """Estimate the memory of one training step, in its steady state: by component, by phase, to the byte. With --mode
    generate: of a prompt and the tokens written after it, and on a card how many sequences it can write at once.

    Example: memplan estimate gpt2 --micro-batch-size 1 --sequence-length 1024 --attention naive
    """
    from memplan.commands.output import colour, columns, write
    from memplan.commands.request import resolve
    from memplan.estimate import estimate, ledger_lines
    from memplan.ops.backend import CURRENT, release

    biggest = options.size("--top", top)
    request = resolve(
        model,
        settings or [],
        device,
        run,
        implementation,
    )
    rules = CURRENT if torch is None else release(torch)
    result = estimate(*request, rules, allocator_settings or "")
    if "decode" in result.run.phases and result.fit is not None:
        from dataclasses import replace

        from memplan.capacity import largest_batch

        result = replace(result, largest_batch=largest_batch(*request, rules, allocator_settings or ""))
    ledger = ledger_lines(*request, rules) if explain else None
    if as_json:
        from memplan.report.machine import estimate_to_json

        write(estimate_to_json(result, top=biggest, ledger=ledger))
    else:
        from memplan.report.terminal import render_estimate

        write(render_estimate(result, width=columns(), colour=colour(), top=biggest, ledger=ledger))
