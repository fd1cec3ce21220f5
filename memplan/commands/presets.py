"""`memplan presets`: the models known by name."""

from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """List the models that memplan knows by name, with their parameter counts."""
    from memplan.commands.output import write
    from memplan.config.load import load_preset
    from memplan.config.parameters import parameter_count
    from memplan.config.presets import names

    models = [(model, parameter_count(model)) for model in map(load_preset, names())]
    if as_json:
        import json

        write(
            json.dumps(
                [
                    {"name": model.name, "architecture": model.architecture, "parameter_count": count}
                    for model, count in models
                ],
                indent=2,
            )
        )
        return
    longest = max(len(model.name) for model, _ in models)
    lines = [f"{'preset':{longest}}  {'parameters':>15}  architecture"]
    lines += [f"{model.name:{longest}}  {count:>15,}  {model.architecture}" for model, count in models]
    write("\n".join(lines))
