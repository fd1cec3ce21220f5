"""`memplan verify`: the estimate beside a real run."""

from typing import Annotated

import typer

from memplan.commands import options


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="A preset, a TOML file, or a Hugging Face config.json or its folder; or give --suite.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", metavar="NAME", help="Many configurations at once: quick.", show_default=False),
    ] = None,
    micro_batch_size: options.MicroBatchSize = None,
    sequence_length: options.SequenceLength = None,
    source_length: options.SourceLength = None,
    target_length: options.TargetLength = None,
    gradient_accumulation_steps: options.AccumulationSteps = None,
    attention: Annotated[
        list[str] | None,
        typer.Option(
            "--attention",
            metavar="KIND",
            show_default=False,
            help="naive or flash; give both for both. Default: flash.",
        ),
    ] = None,
    precision: options.Precision = None,
    optimizer: options.Optimizer = None,
    optimizer_implementation: options.OptimizerImplementation = None,
    momentum: options.Momentum = None,
    recompute: options.Recompute = None,
    padding: options.Padding = None,
    device: options.Device = None,
    settings: options.Settings = None,
    save: Annotated[
        str | None,
        typer.Option(
            "--save", metavar="DIR", show_default=False, help="Keep the records of the runs, as profiles/ does."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> int:
    """Estimate a training step, run it for real in PyTorch, and show both side by side. Exit code 1 where they differ.

    Example: memplan verify gpt2 --sequence-length 128 --attention naive
    """
    from pathlib import Path

    from memplan.commands.output import colour, columns, write
    from memplan.commands.progress import progress
    from memplan.commands.request import resolve
    from memplan.config.devices import load_device
    from memplan.errors import ConfigurationError, MeasurementError
    from memplan.measure.child import Child
    from memplan.profiles import save as save_record
    from memplan.report.verification import render_suite, render_verification, verifications_to_json
    from memplan.verify import verify

    given = options.given(
        {
            "micro_batch_size": micro_batch_size,
            "sequence_length": sequence_length,
            "source_length": source_length,
            "target_length": target_length,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "precision": precision,
            "optimizer": optimizer,
            "optimizer_implementation": optimizer_implementation,
            "momentum": momentum,
            "recompute": recompute,
            "padding": padding,
        }
    )
    if suite is not None:
        from memplan.measure.suite import suite as cases_of

        if model is not None or given or attention or settings:
            raise ConfigurationError(
                "--suite brings its own models and runs", "leave out MODEL and the options of a run"
            )
        chosen = load_device(device or "cpu")
        requests = [(case.model, case.run, chosen) for case in cases_of(suite, chosen)]
    elif model is not None:
        kinds: list[dict[str, object]] = [{"attention": kind} for kind in attention] if attention else [{}]
        requests = [resolve(model, settings or [], device, {**given, **kind}) for kind in kinds]
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
    return 0 if all(verification.exact for verification in verifications) else 1
