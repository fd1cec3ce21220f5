"""`memplan trace module:factory`: what one training step of any PyTorch module needs, and where."""

from typing import Annotated

import typer

from memplan.commands import options


def command(
    factory: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY",
            show_default=False,
            help="A function that returns (module, inputs) or (module, inputs, loss), such as my_models:tiny. "
            "inputs: a tensor, a tuple (module(*inputs)) or a dictionary (module(**inputs)). loss(output) returns one "
            "number; left out, the output's .loss if it has one, else the sum of its first tensor.",
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=VALUE",
            show_default=False,
            help="An argument for the factory, such as batch_size=32; may be given again.",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="KIND", help="fp32, bf16 or bf16-mixed. Default: fp32.")
    ] = None,
    optimizer: options.Optimizer = None,
    optimizer_implementation: options.OptimizerImplementation = None,
    momentum: options.Momentum = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu or cpu:THREADS. Default: cpu.")
    ] = None,
    assume_outputs_only: Annotated[
        bool,
        typer.Option(
            "--assume-outputs-only",
            help="Count operations that have no rule by their outputs alone, instead of refusing the run.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Run the step for real as well; exit code 1 where the peak differs by over 1 %."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show every line of the ledger as well.")] = False,
    top: Annotated[str, typer.Option("--top", metavar="N", help="How many of the biggest tensors to show.")] = "5",
) -> int:
    """Estimate a training step of any PyTorch module, without data and without allocating: fake tensors run through
    PyTorch's own autograd, and rules add what each operation takes inside. Needs torch.

    The factory runs in this process, the working directory first on its path. What asks for a tensor's values cannot be
    traced and is refused by name, and so is an operation that has no rule.

    Example: memplan trace my_models:tiny --input batch_size=8 --precision bf16-mixed --verify
    """
    from memplan.commands.output import colour, columns, write
    from memplan.commands.tracing import load_request, trace
    from memplan.report.tracing import render_traced, traced_to_json
    from memplan.traced import lines_of

    biggest = options.size("--top", top)
    request = load_request(
        factory,
        inputs or [],
        device or "cpu",
        options.given(
            {
                "precision": precision,
                "optimizer": optimizer,
                "optimizer_implementation": optimizer_implementation,
                "momentum": momentum,
            }
        ),
    )
    estimate, ledger, verification = trace(request, assume_outputs_only, verify)
    lines = lines_of(ledger) if explain else None
    if as_json:
        write(traced_to_json(estimate, top=biggest, ledger=lines, verification=verification))
    else:
        text = render_traced(
            estimate, width=columns(), colour=colour(), top=biggest, ledger=lines, verification=verification
        )
        write(text)
    return 0 if verification is None or verification.holds else 1
