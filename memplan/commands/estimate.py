"""`memplan estimate MODEL`: what one training step needs, and where."""

from typing import Annotated

import typer

from memplan.commands import options


def command(
    model: options.Model,
    micro_batch_size: options.MicroBatchSize = None,
    sequence_length: options.SequenceLength = None,
    source_length: options.SourceLength = None,
    target_length: options.TargetLength = None,
    gradient_accumulation_steps: options.AccumulationSteps = None,
    attention: options.Attention = None,
    precision: options.Precision = None,
    optimizer: options.Optimizer = None,
    optimizer_implementation: options.OptimizerImplementation = None,
    momentum: options.Momentum = None,
    recompute: options.Recompute = None,
    padding: options.Padding = None,
    device: options.Device = None,
    torch: options.Torch = None,
    settings: options.Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show every line of the ledger as well.")] = False,
    top: Annotated[str, typer.Option("--top", metavar="N", help="How many of the biggest tensors to show.")] = "5",
) -> None:
    """Estimate the memory of one training step, in its steady state: by component, by phase, to the byte.

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
        options.given(
            {
                "micro_batch_size": micro_batch_size,
                "sequence_length": sequence_length,
                "source_length": source_length,
                "target_length": target_length,
                "gradient_accumulation_steps": gradient_accumulation_steps,
                "attention": attention,
                "precision": precision,
                "optimizer": optimizer,
                "optimizer_implementation": optimizer_implementation,
                "momentum": momentum,
                "recompute": recompute,
                "padding": padding,
            }
        ),
    )
    rules = CURRENT if torch is None else release(torch)
    result = estimate(*request, rules)
    ledger = ledger_lines(*request, rules) if explain else None
    if as_json:
        from memplan.report.machine import estimate_to_json

        write(estimate_to_json(result, top=biggest, ledger=ledger))
    else:
        from memplan.report.terminal import render_estimate

        write(render_estimate(result, width=columns(), colour=colour(), top=biggest, ledger=ledger))
