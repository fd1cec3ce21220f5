"""What a cold process may import. Every module here costs more than the estimate itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "pydantic", "jinja2", "pynvml", "rich", "tomllib"}
ESTIMATE = ["estimate", "gpt2", "--sequence-length", "1024", "--attention", "naive"]

# The command runs in the child as it would by itself; what it has imported is told on standard error.
CHILD = """
import sys
from memplan.cli import run
code = run(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def imported_by(arguments: list[str]) -> set[str]:
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    return set(child.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [[*ESTIMATE, "--json"], ESTIMATE, ["presets"], ["devices"], ["--help"], ["checkpoint", "gpt2", "--json"]],
    ids=["estimate --json", "estimate", "presets", "devices", "--help", "checkpoint --json"],
)
def test_no_command_imports_what_it_does_not_need(arguments: list[str]) -> None:
    imported = imported_by(arguments)
    assert "memplan" in imported
    # the list of devices begins with the cards of this machine, which the driver names
    assert not imported & (HEAVY - {"pynvml"} if arguments == ["devices"] else HEAVY)


def test_importing_the_package_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import memplan; print(*sorted(set(sys.modules) - before))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(child.stdout.split())
    assert {name for name in imported if name.startswith("memplan")} == {"memplan"}
    assert not imported & {"dataclasses", "inspect", "json", "rich", "typer"}
