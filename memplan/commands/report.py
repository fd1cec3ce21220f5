"""`memplan report`: one file that shows a job's memory over time, from its prediction or from recorded runs."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run("attention")
def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RECORD...",
            show_default=False,
            help="Records of `memplan profile`, `verify --save` or `measure`, or a folder of some; or a model, as for "
            "`memplan estimate`, to show what is predicted.",
        ),
    ],
    *,
    run: dict[str, Any],
    attention: Annotated[
        list[str] | None,
        typer.Option(
            "--attention",
            metavar="KIND",
            show_default=False,
            help="Of a model: naive, flash or efficient; give several to see them beside each other. Default: flash.",
        ),
    ] = None,
    device: options.Device = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    html: options.Html = None,
    output: options.Output = None,
    show: options.Open = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> None:
    """Write a report of a job: its memory over time by component and by tensor, naive beside flash attention, and,
    of recorded runs, the measurement over the prediction. Needs no torch and no network.

    Examples: memplan report gpt2 --sequence-length 1024 --attention naive --attention flash --html report.html;
    memplan report records/ --html report.html; memplan report llama-3-8b --sequence-length 4096 --precision bf16
    --device h100-80gb --output snapshot=plan.pickle
    """
    from memplan.commands import profiling
    from memplan.commands.output import colour, columns, write
    from memplan.errors import ConfigurationError
    from memplan.report.profile import render_profile

    targets = profiling.targets_of(output or [], html)
    if show and not any(form == "html" for form, _ in targets):
        raise ConfigurationError("--open shows an HTML file, and none is written", "give --html FILE")
    if profiling.are_records(sources):
        if run or attention or settings or implementation or device:
            raise ConfigurationError("records say themselves what was run", "leave out the options of a run")
        profile = profiling.recorded(sources)
    elif len(sources) > 1:
        raise ConfigurationError(
            f"{sources[0][:60]!a} is no record, and only one model can be shown", "give one MODEL, or records alone"
        )
    else:
        kinds = [str(options.given({"attention": kind})["attention"]) for kind in attention or []]
        profile = profiling.predicted(sources[0], settings or [], device, run, kinds, implementation)
    title = sources[0] if len(sources) == 1 else f"{len(sources)} records"
    profiling.write_all(profile, title, targets)
    if as_json:
        write(profiling.rendered(profile, title, "json"))
    else:
        write(render_profile(profile, width=columns(), colour=colour()))
    if show:
        profiling.show(targets)
