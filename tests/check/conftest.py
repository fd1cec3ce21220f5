"""Files of checks, written where a test may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Written = Callable[..., str]

HEAD = "schema_version = 1\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """`written(text, name)`: the file of that text in a folder of its own, which is the present one."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "memplan.toml", head: str = HEAD) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text, encoding="utf-8")
        return name

    return write
