"""`memplan sweep`: a grid over any settings, as table, plot, CSV or JSON."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run()
def command(
    model: options.Model,
    *,
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="KEY=VALUES",
            help="What is varied, the rows first: sequence_length=1024:32768:x2 (or :1024 for steps), "
            "attention=naive,flash, device=a100-80gb,h100-80gb, model.num_layers=2,4.",
        ),
    ],
    run: dict[str, Any],
    device: options.Device = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    peaks: Annotated[
        bool,
        typer.Option(
            "--peaks",
            help="With --csv: the peak of tensors alone, on the CPU, with sizes as arrays: millions of combinations. "
            "Needs numpy.",
        ),
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with integer bytes instead of text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> None:
    """Estimate every combination of settings: how memory grows, and where the card ends.

    Example: memplan sweep gpt2 --set attention_dropout=0 --set max_positions=32768 --device h100-80gb
    --over sequence_length=1024:32768:x2 --over attention=naive,sdpa
    """
    from memplan.commands.output import colour, columns, write
    from memplan.commands.request import resolve
    from memplan.errors import ConfigurationError
    from memplan.report.sweep import render_sweep, sweep_to_csv, sweep_to_json
    from memplan.sweep.axes import parse_axis
    from memplan.sweep.grid import crossings, points

    if as_csv and as_json:
        raise ConfigurationError("--csv and --json cannot share standard output", "give one of them")
    axes = [parse_axis(text) for text in over]
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1 or key in run or (key == "device" and device is not None):
            raise ConfigurationError(f"--over: {key} is given more than once")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > (most := MOST_PEAKS if peaks else MOST_POINTS):
        hint = None if peaks else "--peaks --csv takes millions, of tensors on the CPU"
        raise ConfigurationError(f"--over: {count:,} combinations are more than {most:,}", hint)
    if peaks and not as_csv:
        raise ConfigurationError("--peaks goes with --csv")

    def request(values: dict[str, Any]) -> Any:
        fields = [f"{key.removeprefix('model.')}={value}" for key, value in values.items() if key.startswith("model.")]
        changed = {key: value for key, value in values.items() if key != "device" and not key.startswith("model.")}
        on = values.get("device", device)
        return resolve(model, [*(settings or []), *fields], on, {**run, **changed}, implementation)

    if peaks:
        from memplan.sweep.peaks import lines

        for text in lines(axes, request):
            write(text)
        return
    found = list(points(axes, request))
    ends = list(crossings(axes, found, request)) if not as_csv else []
    if all(point.estimate is None for point in found):
        raise ConfigurationError(f"no combination can be estimated: {found[0].error}")
    if as_csv:
        write(sweep_to_csv(axes, found))
    elif as_json:
        write(sweep_to_json(axes, found, ends))
    else:
        write(render_sweep(axes, found, ends, width=columns(), colour=colour()))


MOST_POINTS = 100_000
MOST_PEAKS = 20_000_000
