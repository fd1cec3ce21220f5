"""`memplan oom`: a message of running out of memory, explained."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run()
def command(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]",
            show_default=False,
            help="A log with the message in it, of any size; - or nothing reads standard input.",
        ),
    ] = "-",
    *,
    run: dict[str, Any],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            show_default=False,
            help="What ran, as for `memplan estimate`, with the options of its run: finds the tensor.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="NAME", show_default=False, help="The card. Default: one with the message's capacity."
        ),
    ] = None,
    torch: options.Torch = None,
    allocator_settings: options.AllocatorSettings = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
    top: Annotated[str, typer.Option("--top", metavar="N", help="How many of the biggest tensors to show.")] = "5",
) -> None:
    """Explain an out-of-memory message: what it says and means; with --model which tensor was asked for, what was alive
    then, and the smallest change that fits.

    Exit code 2 where there is no such message.

    Example: memplan oom train.log --model gpt2 --micro-batch-size 64 --sequence-length 1024 --precision bf16-mixed
    """
    from memplan.commands.output import colour, columns, write
    from memplan.errors import ConfigurationError
    from memplan.oom.explain import explain, read
    from memplan.oom.log import opened, read_log

    biggest = options.size("--top", top)
    if model is None:
        given = {"device": device, "torch": torch, "allocator_settings": allocator_settings, "set": settings, **run}
        for option, value in {**given, "implementation": implementation}.items():
            if value:
                raise ConfigurationError(
                    f"--{option.replace('_', '-')} says what ran, and nothing says of which model",
                    "for example --model gpt2; without, the message alone is read",
                )
        with opened(file) as stream:
            explanation = read(read_log(stream))
    else:
        from memplan.commands.request import load_device
        from memplan.commands.request import read as read_request
        from memplan.config.load import build_run
        from memplan.ops.backend import CURRENT, release

        found, run_keys, file_device = read_request(model, settings or [], implementation)
        name = device or file_device
        request = (found, build_run(found, {**run_keys, **run}), None if name is None else load_device(name))
        rules = CURRENT if torch is None else release(torch)
        with opened(file) as stream:
            reports = read_log(stream)
        explanation = explain(reports, *request, rules, allocator_settings or "")
    if as_json:
        from memplan.report.oom.json import oom_to_json

        write(oom_to_json(explanation, top=biggest))
    else:
        from memplan.report.oom.text import render_oom

        write(render_oom(explanation, width=columns(), colour=colour(), top=biggest))
