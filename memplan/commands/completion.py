"""`memplan completion SHELL`: a script that completes commands, options, presets and devices."""

from typing import Annotated

import typer


def command(
    shell: Annotated[str, typer.Argument(metavar="SHELL", show_default=False, help="bash, zsh or fish.")],
) -> None:
    """Print a script for a shell that completes commands, options and their values, presets and devices.

    All words are in the script, so that the tabulator key starts no process; print it anew after an update.

    Examples: eval "$(memplan completion bash)"; memplan completion fish > ~/.config/fish/completions/memplan.fish
    """
    from memplan.commands.completing import script
    from memplan.commands.output import write

    write(script(shell))
