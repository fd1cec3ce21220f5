"""A file opened as what it is: PyTorch's pickled snapshot, or memplan's own gzipped history."""

from __future__ import annotations

import copyreg
import os
from pathlib import Path
from typing import Any

from memplan.allocator.snapshot import RECORD, read_snapshot
from memplan.errors import MeasurementError
from memplan.measure import history

GZIP = b"\x1f\x8b"

STRANGERS = (
    (b"PK\x03\x04", "a zip archive: torch.save writes checkpoints so"),
    (b"<", "an HTML or XML page"),
    (b"{", "JSON text"),
    (b"\x89PNG", "a picture"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "a database"),
)
"""How files begin that are taken for snapshots, and what they are."""


def open_snapshot(file: str | os.PathLike[str]) -> tuple[dict[str, Any], bool]:
    """The snapshot in `file`, and whether it is a history of memplan's own.

    Nothing in the file can name a class or a function. Raises MeasurementError for what is none, is damaged, or cannot
    be read.
    """
    path = Path(file)
    if path.is_dir():
        raise MeasurementError(f"{path} is a directory, not a memory snapshot", "name the file in it")
    try:
        with path.open("rb") as stream:
            beginning = stream.read(512)
    except OSError as error:
        raise MeasurementError(f"cannot read the snapshot {path}: {error.strerror or error}") from error
    if beginning.startswith(GZIP):
        return _history(path), True
    for sign, name in STRANGERS:
        if beginning.lstrip().startswith(sign):
            raise MeasurementError(f"{path} is {name}, not a memory snapshot", RECORD)
    # A class that this process has loaded by its extension code would be handed out again without a question.
    copyreg.clear_extension_cache()
    return read_snapshot(path), False


def _history(path: Path) -> dict[str, Any]:
    import gzip
    import zlib

    try:
        with gzip.open(path) as stream:
            inside = stream.read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise MeasurementError(f"{path} is damaged: {error}", RECORD) from error
    if inside.startswith(b"\x80"):
        raise MeasurementError(f"{path} is compressed, and a snapshot is read as PyTorch wrote it", f"gunzip {path}")
    try:
        found = history.read(path)
    except (TypeError, RecursionError, MemoryError) as error:
        raise MeasurementError(f"cannot read the history {path}: {type(error).__name__}: {error}") from error
    if not isinstance(found.get("segments"), list):
        raise MeasurementError(f"{path} is not a memory history: it has no segments")
    return found
