"""The public surface is one file: every name it promises is there, and is what it says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memplan

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", memplan.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(memplan, name) is not None
    assert name in dir(memplan)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'memplan' has no attribute 'estimates'"):
        memplan.estimates  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "first",
    ["memplan.estimate", "memplan.Estimate", "import memplan.estimate", "from memplan.estimate import Estimate"],
)
def test_estimate_can_be_called_whatever_was_imported_first(first: str) -> None:
    code = f"import memplan; {first}; memplan.estimate.Estimate; memplan.estimate()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TypeError: estimate() missing 3 required positional arguments" in child.stderr


@pytest.mark.parametrize("first", ["memplan.checkpoint", "import memplan.checkpoint.archive", "memplan.Checkpoint"])
def test_so_can_checkpoint(first: str) -> None:
    code = f"import memplan; {first}; memplan.checkpoint()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TypeError: checkpoint() missing 2 required positional arguments" in child.stderr


@pytest.mark.parametrize("first", ["memplan.explain", "import memplan.explain.opened", "memplan.Explanation"])
def test_so_can_explain(first: str) -> None:
    code = f"import memplan; {first}; memplan.explain()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TypeError: explain() missing 1 required positional argument" in child.stderr


def test_the_readme_and_the_package_data_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["readme"] == "README.md"
    assert (ROOT / "README.md").is_file()
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"] == {"profiles": "memplan/profiles_data"}
