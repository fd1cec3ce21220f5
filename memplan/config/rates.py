"""What a card can do in a second, as its maker states it (rates.toml)."""

from __future__ import annotations

import os

from memplan.config.shipped import read_tables


def peak_rate(card: str, precision: str) -> float | None:
    """Floating-point operations a second of dense matrix products on the card of that name; None where that is not in
    the file."""
    table = read_tables(os.path.join(os.path.dirname(__file__), "rates.toml")).get(card)
    if not card or table is None:
        return None
    return float(table["fp32" if precision == "fp32" else "half"]) * 1e12
