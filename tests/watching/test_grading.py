"""`memplan verify --recorded` of runs that were watched."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from memplan.cli import run as command  # noqa: E402
from memplan.measure.watching import watch  # noqa: E402

from .cases import MODEL, ReferenceLoop, run_of  # noqa: E402


@pytest.mark.usefixtures("onednn_off")
def test_only_the_loop_that_estimates_are_made_for_is_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for loop, attention in (("reference", "flash"), ("own", "naive")):
        run = run_of(attention=attention)
        played = ReferenceLoop(run)
        with watch(MODEL, run, record=tmp_path, loop=loop) as watched:
            for _ in range(2):
                played.step(watched.phase)
                watched.step()
    assert command(["verify", "--recorded", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "1 watched" in told
    assert "cpu: 0 bytes off in every figure" in told
