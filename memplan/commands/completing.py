"""What a shell completes, read off the commands themselves, as scripts for bash, zsh and fish."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module

import typer
import typer.main

from memplan.commands import COMMANDS
from memplan.config import devices, presets
from memplan.errors import ConfigurationError, nearest

Words = tuple[str, ...]


@dataclass(slots=True)
class Completed:
    """One command: its options with the words that may follow, None where anything may, and the words of its
    arguments. Where there are words, files are completed as well, for what begins like none of them."""

    options: dict[str, Words | None] = field(default_factory=dict)  # () follows a flag
    arguments: Words = ()


def completed(name: str) -> Completed:
    """What a command takes; its file is imported."""
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    application.command(name)(import_module(f"memplan.commands.{name}").command)
    found = Completed()
    for parameter in typer.main.get_command(application).params:
        words = _words(name, parameter.name or "")
        if parameter.param_type_name == "argument":
            found.arguments = tuple(dict.fromkeys((*found.arguments, *words)))
            continue
        for spelled in (*parameter.opts, *parameter.secondary_opts):
            found.options[spelled] = () if getattr(parameter, "is_flag", False) else words or None
    found.options |= {"--debug": (), "--help": ()}
    return found


def _words(command: str, parameter: str) -> Words:
    """The words that a parameter may have; none where they cannot be told."""
    from memplan.config.fields import choices_of
    from memplan.config.load import IMPLEMENTATIONS
    from memplan.config.runs import KINDS
    from memplan.plan.choices import OBJECTIVES
    from memplan.report.check import FORMATS
    from memplan.report.check.diff import FORMATS as DIFF_FORMATS
    from memplan.schemas import names as schemas

    known: dict[str, Words] = {
        "model": presets.names(),
        "device": (*devices.names(), "local"),
        "implementation": IMPLEMENTATIONS,
        "mode": tuple(KINDS),
        "objective": OBJECTIVES,
        "forms": FORMATS,
        "form": DIFF_FORMATS,
        "shell": tuple(SHELLS),
        "action": ("write",),
    }
    if command == "diff" and parameter in ("old", "new"):
        return presets.names()
    if command == "schema":
        return schemas()
    if parameter in known:
        return known[parameter]
    kinds = [kind for kind in KINDS.values() if parameter in kind.__slots__]
    return tuple(dict.fromkeys(word for kind in kinds for word in choices_of(kind, parameter)))


def script(shell: str) -> str:
    """The script. Raises ConfigurationError for a shell that is not known."""
    if shell not in SHELLS:
        close = nearest(shell, SHELLS)
        suggestion = f"; did you mean {close}?" if close else ""
        raise ConfigurationError(f"completion: must be one of {', '.join(SHELLS)}, not {shell[:40]!a}{suggestion}")
    lines = SHELLS[shell]({name: completed(name) for name in COMMANDS})
    return "\n".join(lines) + "\n"


def _bash(commands: dict[str, Completed]) -> Iterator[str]:
    yield "# memplan completion bash"
    yield "_memplan() {"
    yield '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command="" words="" at'
    yield "  COMPREPLY=()"
    yield "  for ((at = 1; at < COMP_CWORD; at++)); do"
    yield '    case "${COMP_WORDS[at]}" in -*) ;; *) command="${COMP_WORDS[at]}"; break ;; esac'
    yield "  done"
    yield '  case "$command" in'
    yield f'    "") words="{" ".join([*commands, "--help", "--version"])}" ;;'
    for name, each in commands.items():
        yield f"    {name})"
        yield '      case "$previous" in'
        groups: dict[Words, list[str]] = {}
        for option, words in each.options.items():
            if words:
                groups.setdefault(words, []).append(option)
        for words, options in groups.items():
            yield f'        {"|".join(options)}) words="{" ".join(words)}" ;;'
        anything = [option for option, words in each.options.items() if words is None]
        if anything:
            yield f"        {'|'.join(anything)}) return ;;"
        yield f'        *) case "$current" in -*) words="{" ".join(each.options)}" ;;'
        yield f'          *) words="{" ".join(each.arguments)}" ;; esac ;;'
        yield "      esac ;;"
    yield "  esac"
    yield '  COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    # names of files where nothing else fits
    yield "complete -o default -F _memplan memplan"


def _zsh(commands: dict[str, Completed]) -> Iterator[str]:
    yield "#compdef memplan"
    yield "autoload -U +X compinit && compinit"
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from _bash(commands)


def _fish(commands: dict[str, Completed]) -> Iterator[str]:
    yield "# memplan completion fish"
    for name, text in COMMANDS.items():
        yield f"complete -c memplan -n __fish_use_subcommand -f -a {name} -d '{text}'"
    for name, each in commands.items():
        start = f"complete -c memplan -n '__fish_seen_subcommand_from {name}'"
        for option, words in each.options.items():
            spelled = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            if words:
                yield f"{start} {spelled} -r -a '{' '.join(words)}'"
            else:
                yield f"{start} {spelled}" + ("" if words == () else " -r")
        if each.arguments:
            yield f"{start} -a '{' '.join(each.arguments)}'"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
