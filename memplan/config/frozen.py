"""Which weights a run does not train, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import translate
from re import compile as compiled

from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError, nearest


def frozen_names(run: TrainingRun, names: Sequence[str]) -> set[str]:
    """Those of `names`, a model's parameters as PyTorch names them, in its order, that the run does not train.

    Raises ConfigurationError for a pattern that none of them matches, and where nothing is left to train.
    """
    frozen: set[str] = set()
    for pattern in run.frozen:
        matches = compiled(translate(pattern)).match
        found = {name for name in names if matches(name)}
        if not found:
            raise ConfigurationError(f"frozen: no parameter is called {pattern!a}", _hint(pattern, names))
        frozen |= found
    lowest = tuple(layers_of(names)[: run.frozen_layers])
    if lowest:
        frozen |= {name for name in names if name.startswith(lowest)}
    if frozen and len(frozen) == len(set(names)):
        raise ConfigurationError("frozen: nothing is left to train", "freeze less: one parameter at least has to learn")
    return frozen


def layers_of(names: Iterable[str]) -> list[str]:
    """The beginnings of the names of each layer's parameters, `decoder.layers.0.`, in order: what reaches to the first
    number."""
    layers: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if part.isdecimal():
                layers[".".join(parts[: place + 1]) + "."] = None
                break
    return list(layers)


def _hint(pattern: str, names: Sequence[str]) -> str:
    """The nearest names: with the pattern's words in them, else alike in spelling."""
    words = [word for word in pattern.replace("*", " ").replace("?", " ").strip(" .").split() if word]
    close = [name for name in names if any(word.strip(".").lower() in name.lower() for word in words)]
    if not close:
        plain = nearest(pattern.replace("*", ""), names)
        parts = {part: name for name in reversed(names) for part in name.split(".")}
        part = nearest(pattern.strip("*."), parts)
        close = [name for name in (plain, parts[part] if part else None) if name]
    shown = list(dict.fromkeys(close))[:3] or [names[0], names[-1]]
    return f"{'nearest' if close else 'there are'}: {', '.join(shown)}{'' if close else ', ...'}"
