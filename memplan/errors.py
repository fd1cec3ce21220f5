"""The errors memplan raises. Each knows its exit code and, where there is one, the next thing to try."""

from __future__ import annotations

from collections.abc import Iterable


class MemplanError(Exception):
    """Something memplan could not decide. Exit code 2; `hint` says what would be right."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class ConfigurationError(MemplanError):
    """The configuration is wrong, incomplete or contradictory. The message names the field."""


class NotModelledError(MemplanError):
    """A valid request that memplan has no rule for. It is refused, never guessed."""


class MissingDependencyError(MemplanError):
    """An optional package is needed; the hint is the command that installs it."""


class MeasurementError(MemplanError):
    """A real run could not be made or could not be read."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to `word`, or None where nothing is near."""
    import difflib  # 3 ms, and only bad input needs it

    matches = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
