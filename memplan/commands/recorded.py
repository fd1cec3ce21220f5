"""`memplan verify --recorded`: the estimator graded on the runs that are recorded, without making any."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memplan.profiles import Record


def grade_recorded(folder: str | None, *, device: str | None, limit: int, as_json: bool, write_residuals: bool) -> int:
    """Grade the records below `folder` (those that came with memplan where it is None), print the result, and return
    the exit code: 1 beyond the tolerances, 2 where a record could not be read or estimated."""
    from memplan.commands.output import colour, columns, write
    from memplan.errors import ConfigurationError, MeasurementError
    from memplan.grading import grade, with_residuals
    from memplan.profiles import profiles_folder, read_all, write_text
    from memplan.report.grading import grading_to_json, render_grading
    from memplan.residuals import FILE_NAME, residuals_to_text

    if write_residuals and device is not None:
        raise ConfigurationError("--write-residuals takes every record", "leave out --device")
    if write_residuals:
        _drop_damaged_residuals()
    place = Path(folder or profiles_folder())
    records, problems = read_all(place)
    if not records and not problems:
        raise MeasurementError(
            f"there are no recorded runs in {place}", "`memplan verify MODEL --save DIR` records one"
        )
    grading = grade(_on(device, records) if device is not None else records, place, problems)
    file = place / FILE_NAME
    if write_residuals and not grading.problems:
        write_text(file, residuals_to_text(grading.residuals), "the residuals")
    if device is None and (folder is None or file.is_file()):
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        grading = with_residuals(grading, text)
    for _, why in grading.problems:
        print(f"error: {why}", file=sys.stderr)
    if as_json:
        write(grading_to_json(grading, limit=limit))
    else:
        write(render_grading(grading, width=columns(), colour=colour(), limit=limit))
    if grading.problems:
        return 2
    return 0 if grading.holds else 1


def _drop_damaged_residuals() -> None:
    """Estimates refuse to go on with a damaged file, and this command is what mends it."""
    from contextlib import suppress

    from memplan.errors import MeasurementError
    from memplan.profiles import profiles_folder
    from memplan.residuals import FILE_NAME, read_residuals

    try:
        for backend in ("cpu", "cuda"):
            read_residuals(backend)
    except MeasurementError:
        with suppress(OSError):
            Path(profiles_folder(), FILE_NAME).unlink()


def _on(device: str, records: list[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    """The records of one device. Raises ConfigurationError where there are none."""
    from memplan.errors import ConfigurationError, nearest
    from memplan.profiles import card_of

    found = [(file, record) for file, record in records if card_of(record) == device]
    if not found:
        known = sorted({card_of(record) for _, record in records})
        close = nearest(device, known)
        hint = f"did you mean {close}? " if close else ""
        raise ConfigurationError(f"--device: no run on {device!a} is recorded", f"{hint}recorded: {', '.join(known)}")
    return found
