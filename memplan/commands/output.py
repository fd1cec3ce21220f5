"""Writing a result to standard output, whoever reads it."""

import os
import shutil
import sys


def columns() -> int:
    """How wide a text may be: the terminal's width, COLUMNS where it is set, 80 where there is neither."""
    return shutil.get_terminal_size((80, 24)).columns


def colour() -> bool:
    """Whether a terminal reads that can show colour, and nobody has said NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(text: str) -> None:
    """Print `text` now, so that an error of the reader's (a closed pipe, a full disk) is met inside the command."""
    text = text if text.endswith("\n") else f"{text}\n"
    stream = sys.stdout
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a model's name on a terminal that cannot spell it
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
