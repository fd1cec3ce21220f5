"""What all tests share: golden files, a terminal that is the same everywhere, and estimates made by hand."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.internal.conjecture import providers

# MEMPLAN_NO_SHRINK=1 shows a failing example as it was drawn: making it small can take longer than finding it.
settings.register_profile("no shrink", phases=(Phase.explicit, Phase.reuse, Phase.generate))
if os.environ.get("MEMPLAN_NO_SHRINK"):
    settings.load_profile("no shrink")

# As in memplan/__main__.py: with torch and transformers loaded, to look for garbage at the usual pace doubles the time
# of tracing a step.
gc.set_threshold(100_000, 20, 20)

# Hypothesis also draws numbers that stand in the source of our modules, those loaded when a test runs: where workers
# share the tests out by chance, so would be what a seed draws. A seed draws the same everywhere.
NO_CONSTANTS = providers.Constants()
if hasattr(providers, "_get_local_constants"):
    providers._get_local_constants = lambda: NO_CONSTANTS

# Read when torch is first imported: threads that wait without spinning, several times faster on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Read when huggingface_hub is first imported: no test asks the network for anything.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GOLDEN = Path(__file__).parent / "golden"

Golden = Callable[[str, str], None]
Keeps = Callable[[str, object], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--accept-golden", action="store_true", help="write the texts that tests produce as the golden ones"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden("name.txt", text)`: the text is the one in tests/golden/name.txt (--accept-golden makes it so)."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--accept-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden file {name}: run pytest with --accept-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def keeps_to_schema() -> Keeps:
    """`keeps_to_schema("verify", document)`: the document is one of that schema of memplan/schemas."""

    def validate(name: str, document: object) -> None:
        import jsonschema

        from memplan import schemas

        jsonschema.validate(document, json.loads(schemas.read(name)), jsonschema.Draft202012Validator)

    return validate


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns and no colour, whatever the machine's own terminal is."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
