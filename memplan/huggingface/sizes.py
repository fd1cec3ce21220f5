"""The configuration's sizes under the names the ledger spells its formulas with."""

from __future__ import annotations

from memplan.config.library.model import LibraryModel
from memplan.ops.size import Size


def sized(config: LibraryModel, name: str) -> Size:
    """A size of the configuration, under its own name."""
    return Size(getattr(config, name), name)
