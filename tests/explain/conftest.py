"""Recorded snapshots, unpacked once."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "recorded"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`recorded("plain")`: the file of that scene (record.py), as PyTorch wrote it."""
    folder = tmp_path_factory.mktemp("snapshots")

    def unpack(name: str) -> Path:
        file = folder / f"{name}.pickle"
        if not file.exists():
            file.write_bytes(gzip.decompress((FOLDER / f"{name}.pickle.gz").read_bytes()))
        return file

    return unpack
