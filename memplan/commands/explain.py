"""`memplan explain SNAPSHOT`: what a recorded run had in memory, beside the plan, and what to change."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run()
def command(
    snapshot: Annotated[
        str,
        typer.Argument(
            metavar="SNAPSHOT",
            show_default=False,
            help="What torch.cuda.memory._dump_snapshot() wrote, or a *.history.json.gz of memplan. Nothing in it is "
            "run.",
        ),
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            show_default=False,
            help="What ran: a preset, a TOML file, or a Hugging Face config.json or its folder, with the options of "
            "its run. Each block then gets its tensor's name.",
        ),
    ] = None,
    run: dict[str, Any],
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", show_default=False, help="With --model: the card it ran on."),
    ] = None,
    torch: options.Torch = None,
    allocator_settings: options.AllocatorSettings = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    device_index: Annotated[
        str | None,
        typer.Option(
            "--device-index",
            metavar="N",
            show_default=False,
            help="Which device of the snapshot. Default: the one that holds most.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
    top: Annotated[str, typer.Option("--top", metavar="N", help="How many of the largest to show. Default: 5.")] = "5",
) -> None:
    """Explain a memory snapshot of PyTorch: what was alive at the peak, how much is fragmentation, what ran out; with
    --model by component and tensor, what is not in the plan, and what to change.

    Example: memplan explain snapshot.pickle --model gpt2 --micro-batch-size 8 --sequence-length 1024
    --attention naive --device h100-80gb
    """
    from memplan.commands.explaining import index_of, request_of
    from memplan.commands.output import colour, columns, write
    from memplan.explain.explanation import explain
    from memplan.ops.backend import CURRENT, release

    biggest = options.size("--top", top)
    asked = request_of(model, settings or [], device, run, implementation)
    rules = CURRENT if torch is None else release(torch)
    found = explain(snapshot, asked, rules, allocator_settings, index_of(device_index))
    if as_json:
        from memplan.report.explain_json import explanation_to_json

        write(explanation_to_json(found, top=biggest))
    else:
        from memplan.report.explain import render_explanation

        write(render_explanation(found, width=columns(), colour=colour(), top=biggest))
