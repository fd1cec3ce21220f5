"""The Typer application; the one place where an error becomes an exit code.

0: done, and all of it holds. 1: a check or a verification failed. 2: could not decide. Never a traceback, save under
--debug.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from memplan import __version__
from memplan.commands import COMMANDS
from memplan.errors import MemplanError, nearest

UNDECIDED = 2
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports of any tool whose reader went away

DEBUG_HELP = "Show the traceback of an error."


class LazyGroup(typer.core.TyperGroup):
    """Knows every command by name, and imports the file of a command when it is asked for: the others cost nothing."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = nearest(args[0], COMMANDS)
            suggestion = f"did you mean {close}? " if close else ""
            raise MemplanError(f"{args[0]!a} is not a command", f"{suggestion}`memplan --help` lists them all")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        application = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = import_module(f"memplan.commands.{cmd_name.replace('-', '_')}").command
        application.command(cmd_name, short_help=COMMANDS[cmd_name])(function)
        command = typer.main.get_command(application)
        # Read by `run`, which sees the errors; declared here so that it may stand after the command's name too.
        command.params.append(
            typer.core.TyperOption(param_decls=["--debug"], is_flag=True, expose_value=False, help=DEBUG_HELP)
        )
        return command


# Rich help costs another 100 ms, and pretty exceptions are the tracebacks that memplan does not show.
app = typer.Typer(
    name="memplan",
    cls=LazyGroup,
    add_completion=False,  # `memplan completion` prints scripts that start no process
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memplan {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)] = False,
) -> None:
    """How much memory will this transformer need, where does each byte go, and does it fit?

    Exit codes: 0 done, and all of it holds; 1 a check or a verification failed; 2 could not decide.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Results go to standard output, errors to standard error."""
    debug = "--debug" in arguments
    try:
        # A command returns its exit code, or None for 0.
        code = typer.main.get_command(app).main(arguments or ["--help"], prog_name="memplan", standalone_mode=False)
        return int(code or 0) if arguments else UNDECIDED
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:  # Typer's way out where the reader went away, with 1
        return BROKEN_PIPE if stop.code == 1 else int(stop.code or 0)
    except Exception as error:
        message, hint = _explain(error)
        print(f"error: {message}", *([f"hint: {hint}"] if hint else []), sep="\n", file=sys.stderr)
        if debug:
            import traceback

            traceback.print_exception(error)
        return error.exit_code if isinstance(error, MemplanError) else UNDECIDED


def _explain(error: Any) -> tuple[str, str | None]:
    """What was wrong, and what would be right."""
    if isinstance(error, MemplanError):
        return error.message, error.hint
    if hasattr(error, "format_message"):  # a usage error: its class is private to Typer
        path = error.ctx.command_path if error.ctx else "memplan"
        help_hint = f"`{path} --help` lists what it takes"
        close = getattr(error, "possibilities", None)
        if close:
            return error.message, f"did you mean {' or '.join(close)}? {help_hint}"
        return error.format_message(), help_hint
    return f"memplan itself failed: {type(error).__name__}: {error}".rstrip(": "), "--debug shows the traceback"
