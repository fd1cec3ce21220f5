"""`memplan verify`: the estimate beside a real run, or beside those that are recorded."""

from typing import Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run


@with_run("attention")
def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="A preset, a TOML file, or a Hugging Face config.json or its folder; or give --suite. With "
            "--recorded: the folder of the records; left out, those that come with memplan.",
        ),
    ] = None,
    *,
    recorded: Annotated[
        bool,
        typer.Option("--recorded", help="Grade the estimator on recorded runs instead of making any; needs no torch."),
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            show_default=False,
            help="Many configurations at once: quick, generation (models that write), families (models of "
            "transformers); on a card quick, core, boundary and snapshots.",
        ),
    ] = None,
    run: dict[str, Any],
    attention: Annotated[
        list[str] | None,
        typer.Option(
            "--attention",
            metavar="KIND",
            show_default=False,
            help="naive or flash; give both for both. Default: flash.",
        ),
    ] = None,
    device: options.Device = None,
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    save: Annotated[
        str | None,
        typer.Option(
            "--save", metavar="DIR", show_default=False, help="Keep the records of the runs, as profiles/ does."
        ),
    ] = None,
    limit: Annotated[
        str, typer.Option("--limit", metavar="N", help="With --recorded: how many of the worst records to show.")
    ] = "10",
    write_residuals: Annotated[
        bool,
        typer.Option("--write-residuals", help="With --recorded: keep the residuals, from which intervals are made."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> int:
    """Estimate a training step, run it for real in PyTorch, and show both side by side. Exit code 1 where they differ.

    Examples: memplan verify gpt2 --sequence-length 128 --attention naive; memplan verify --recorded
    """
    from pathlib import Path

    from memplan.commands.output import colour, columns, write
    from memplan.commands.progress import progress
    from memplan.commands.request import resolve
    from memplan.config.load import check_implementation
    from memplan.errors import ConfigurationError, MeasurementError
    from memplan.measure.child import Child
    from memplan.measure.local import load_device
    from memplan.profiles import save as save_record
    from memplan.report.verification import render_suite, render_verification, verifications_to_json
    from memplan.verify import verify

    check_implementation(implementation)
    if recorded:
        from memplan.commands.recorded import grade_recorded

        if suite is not None or run or attention or settings or save is not None:
            raise ConfigurationError("--recorded makes no runs", "leave out --suite, --save and the options of a run")
        return grade_recorded(
            model,
            device=device,
            limit=options.size("--limit", limit),
            as_json=as_json,
            write_residuals=write_residuals,
        )
    if write_residuals:
        raise ConfigurationError(
            "--write-residuals goes with --recorded", "memplan verify --recorded --write-residuals"
        )
    if suite is not None:
        from memplan.measure.suite import suite as cases_of

        if model is not None or run or attention or settings:
            raise ConfigurationError(
                "--suite brings its own models and runs", "leave out MODEL and the options of a run"
            )
        chosen = load_device(device or "cpu")
        requests = [(case.model, case.run, chosen) for case in cases_of(suite, chosen, implementation=implementation)]
    elif model is not None:
        kinds = [options.given({"attention": kind}) for kind in attention] if attention else [{}]
        requests = [resolve(model, settings or [], device, {**run, **kind}, implementation) for kind in kinds]
    else:
        raise ConfigurationError("nothing to verify", "name a MODEL, or give --suite quick")

    verifications = []
    failures = []
    with Child() as child:
        for request in progress(requests, lambda item: f"{item[0].name}, {item[1].attention}"):
            try:
                record = child.measure(*request)
            except MeasurementError as error:
                if suite is None:
                    raise
                failures.append((f"{request[0].name} ({request[1].attention})", error.message))
                continue
            if save is not None:
                save_record(record, Path(save))
            verifications.append(verify(*request, record))
    if as_json:
        write(verifications_to_json(verifications, failures))
    elif suite is not None:
        write(render_suite(verifications, failures, width=columns(), colour=colour()))
    else:
        write("\n".join(render_verification(each, width=columns(), colour=colour()) for each in verifications))
    if failures:
        return 2
    return 0 if all(verification.holds for verification in verifications) else 1
