"""`memplan profile`: a job run for real, its memory over time predicted and measured, and its time by phase."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run("attention")
def command(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="A preset, a TOML file, a Hugging Face config.json or its folder, or MODULE:FACTORY as in "
            "`memplan trace`.",
        ),
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", show_default=False, help="The same, as an option.")
    ] = None,
    run: dict[str, Any],
    attention: Annotated[
        list[str] | None,
        typer.Option(
            "--attention",
            metavar="KIND",
            show_default=False,
            help="naive, flash or efficient; give several to see them beside each other. Default: flash.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="local or cpu. Default: the card of this machine, else the CPU."),
    ] = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=VALUE", show_default=False, help="MODULE:FACTORY: an argument for the factory."
        ),
    ] = None,
    timed: Annotated[
        str, typer.Option("--timed-runs", metavar="N", help="Runs on the clock, at least; 0 for none.")
    ] = "3",
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths",
            metavar="N,N",
            show_default=False,
            help="Further lengths to run for the curve over length, or none. Default: a quarter and half of the run's.",
        ),
    ] = None,
    html: options.Html = None,
    output: options.Output = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", show_default=False, help="Keep the records, each as soon as it is made."),
    ] = None,
    show: options.Open = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> int:
    """Run a job for real, and show where its memory and its time go: every phase predicted, measured and timed. Exit
    code 1 where prediction and run differ. When it is interrupted, what was measured is still written.

    Examples: memplan profile gpt2 --attention naive --attention flash --html report.html; memplan profile gpt2 --mode
    generate --prompt-length 128 --new-tokens 32
    """
    from memplan.commands import profiling
    from memplan.commands.output import colour, columns, write
    from memplan.errors import ConfigurationError
    from memplan.report.profile import render_profile

    source = _the_one(source, model)
    targets = profiling.targets_of(output or [], html)
    if show and not any(form == "html" for form, _ in targets):
        raise ConfigurationError("--open shows an HTML file, and none is written", "give --html FILE")
    runs = 0 if timed.strip() == "0" else options.size("--timed-runs", timed)
    interrupted = False
    if ":" in source and not source.lower().endswith((".json", ".toml")):
        if attention or settings or implementation or lengths is not None or out is not None:
            raise ConfigurationError(
                "MODULE:FACTORY brings its own model",
                "leave out --attention, --set, --implementation, --lengths and --out",
            )
        profile = profiling.profile_module(source, inputs or [], device, run, runs)
    else:
        if inputs:
            raise ConfigurationError("--input goes with MODULE:FACTORY", "--set KEY=VALUE changes a model")
        kinds = [str(options.given({"attention": kind})["attention"]) for kind in attention or []]
        if len(set(kinds)) < len(kinds):
            raise ConfigurationError(f"--attention: {' and '.join(kinds)} has one of them twice")
        others = profiling.lengths_of(lengths)
        asked = profiling.requests(
            source, settings or [], lambda named: profiling.default_device(device or named), run, kinds, implementation
        )
        profiler = profiling.Profiler(runs, out)
        try:
            profiler.profile(asked, others)
        except KeyboardInterrupt:
            if not profiler.sides:
                raise
            interrupted = True
        profile = profiler.result()
    profiling.write_all(profile, source, targets)
    if as_json:
        write(profiling.rendered(profile, source, "json"))
    else:
        write(render_profile(profile, width=columns(), colour=colour()))
    if show:
        profiling.show(targets)
    if interrupted:
        raise KeyboardInterrupt
    if any(side.failure for side in profile.sides):
        return 2
    return 0 if all(side.verification is None or side.verification.holds for side in profile.sides) else 1


def _the_one(source: str | None, model: str | None) -> str:
    from memplan.errors import ConfigurationError

    if source is not None and model is not None:
        raise ConfigurationError("the model is given twice", "once is enough: memplan profile MODEL")
    found = source if source is not None else model
    if found is None:
        raise ConfigurationError("nothing to profile", "name a MODEL, such as gpt2")
    return found
