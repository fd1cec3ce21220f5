"""`memplan measure`: runs recorded, one by one or by the suite."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.measure.prediction import Rules
    from memplan.measure.recording import Planned, Result

EXAMPLE_CARD = "h100-80gb"
"""What the suites for cards are made for, and what a dry run of them shows where no other card is named."""


@with_run()
def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="A preset, a TOML file, or a Hugging Face config.json or its folder; or give --suite.",
        ),
    ] = None,
    *,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            show_default=False,
            help="Many configurations: quick (small models), generation (models that write), families (models of "
            "transformers), core, boundary or snapshots (for a card).",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", show_default=False, help="Where the records are kept, such as profiles."),
    ] = None,
    run: dict[str, Any],
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            show_default=False,
            help="local (the card of this machine) or cpu. Default: cpu, and local for the suites that need a card. "
            "A dry run takes any card of `memplan devices`.",
        ),
    ] = None,
    torch: options.Torch = None,
    allocator_settings: options.AllocatorSettings = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            show_default=False,
            help="Only those whose name has it: llama, or *bf16*flash*.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show each configuration with its prediction and run none; needs no torch."),
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume",
            help="Measure again what is recorded in DIR, or go on with what is not. Default: go on.",
        ),
    ] = False,
    time_limit: Annotated[
        str, typer.Option("--time-limit", metavar="SECONDS", help="For one configuration; then it is stopped.")
    ] = "300",
    fresh: Annotated[bool, typer.Option("--fresh", help="A process of its own for each run; slower.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> int:
    """Run training steps for real and record what they need. Goes on where an interrupted run stopped.

    Exit code 1 where a run failed, hung or was killed, or did not end as predicted.

    Example: memplan measure --suite core --out profiles
    """
    from functools import partial

    from memplan.commands.output import colour, columns, write
    from memplan.commands.request import resolve
    from memplan.errors import ConfigurationError
    from memplan.measure.listing import plan_to_json, render_plan, render_results, results_to_json
    from memplan.measure.local import load_device
    from memplan.measure.prediction import Rules
    from memplan.measure.recording import plan
    from memplan.measure.suite import CPU_SUITES, check_name, matching
    from memplan.measure.suite import tasks as tasks_of
    from memplan.measure.suites.case import Case, Task
    from memplan.ops.backend import CURRENT, release

    seconds = options.size("--time-limit", time_limit)
    if suite is None and model is None:
        raise ConfigurationError("nothing to measure", "name a MODEL, or give --suite core")
    if suite is not None and (model is not None or run or settings):
        raise ConfigurationError("--suite brings its own models and runs", "leave out MODEL and the options of a run")
    if (torch or allocator_settings) and not dry_run:
        raise ConfigurationError(
            "--torch and --allocator-settings go with --dry-run", "real runs are predicted by what runs them"
        )
    if out is None and not dry_run:
        raise ConfigurationError("--out is missing: where to keep the records", "for example --out profiles")

    if suite is not None:
        check_name(suite)
        default = "cpu" if suite in CPU_SUITES else EXAMPLE_CARD if dry_run else "local"
        target = load_device(device or default)
    else:
        request = resolve(str(model), settings or [], device, run, implementation)
        target = request[2]

    def planned(rules: Rules) -> "list[Planned]":
        tasks = tasks_of(suite, target, rules) if suite is not None else [Task(Case(*request[:2]))]
        return plan(matching(tasks, only), target, rules)

    if dry_run:
        rules = Rules(CURRENT if torch is None else release(torch), allocator_settings or "")
        dry = plan_to_json if as_json else partial(render_plan, width=columns(), colour=colour())
        write(dry(planned(rules), target, rules))
        return 0
    results = record_all(planned, target, str(out), time_limit=seconds, restart=restart, fresh=fresh)
    show = results_to_json if as_json else partial(render_results, width=columns(), colour=colour())
    write(show(results, target))
    return 0 if all(result.as_expected for result in results) else 1


def record_all(
    planned: "Callable[[Rules], list[Planned]]",
    device: "Device",
    out: str,
    *,
    time_limit: float,
    restart: bool,
    fresh: bool,
) -> "list[Result]":
    """Run what `planned` gives by the rules of the PyTorch that runs it, and say on standard error how it goes."""
    import sys
    from pathlib import Path

    from memplan.commands.progress import progress
    from memplan.errors import MeasurementError
    from memplan.measure.child import Child
    from memplan.measure.listing import one_line
    from memplan.measure.recording import Recording
    from memplan.units import human

    if device.used_by_others_bytes:
        print(f"warning: others use {human(device.used_by_others_bytes)} of {device.name}", file=sys.stderr)
    results: list[Result] = []
    with Child(time_limit) as child:
        recording = Recording(child, device, Path(out), restart=restart, fresh=fresh)
        everything = planned(recording.rules)
        recording.check(everything)
        for each in progress(everything, lambda item: item.title):
            try:
                results.append(recording.result(each))
            except MeasurementError as error:
                kept = f"{recording.kept} new records are kept in {out}; the same command goes on from there"
                raise MeasurementError(error.message, kept) from error
            if not sys.stderr.isatty():  # a log has no bar
                print(one_line(len(results), len(everything), results[-1]), file=sys.stderr, flush=True)
    return results
