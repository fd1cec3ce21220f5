"""The loop that estimates are made for, watched: every figure is as planned, and the record can be graded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.measure.watching import watch  # noqa: E402
from memplan.profiles import read, read_all  # noqa: E402
from memplan.verify import verify  # noqa: E402

from .cases import MODEL, ReferenceLoop, here, off, run_of  # noqa: E402

RUNS: list[dict[str, Any]] = [
    {},
    {"attention": "naive"},
    {"precision": "bf16-mixed"},
    {"precision": "fp16-mixed"},
    {"precision": "bf16", "master_weights": "deepspeed"},
    {"gradient_accumulation_steps": 3},
    {"recompute": "full"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer_implementation": "foreach", "gradient_clipping": 1.0},
]


@pytest.mark.parametrize("changes", RUNS, ids=str)
@pytest.mark.usefixtures("onednn_off")
def test_every_figure_is_as_planned(changes: dict[str, Any], tmp_path: Path) -> None:
    run = run_of(**changes)
    loop = ReferenceLoop(run)
    with watch(MODEL, run, record=tmp_path, loop="reference") as watched:
        for _ in range(3):
            loop.step(watched.phase)
            watched.step()
    assert off(watched) == {}
    assert watched.findings == ()
    ((_, record),) = read_all(tmp_path)[0]
    assert record["environment"]["onednn"] is False
    assert record["watched"]["graded"] is True
    verification = verify(MODEL, run, here(), record)
    assert verification.exact
    assert verification.worst == 0


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2}, {"gradient_clipping": 1.0}], ids=str)
@pytest.mark.usefixtures("onednn_off")
def test_what_a_loop_does_not_say_is_seen(changes: dict[str, Any]) -> None:
    """In fp32 the loss begins with cross-entropy, and so all marks are where the loop would set them."""
    run = run_of(**changes)
    loop = ReferenceLoop(run)
    with watch(MODEL, run) as watched:
        for _ in range(2):
            loop.step()
            watched.step()
    assert off(watched) == {}


@pytest.mark.usefixtures("onednn_off")
def test_a_skipped_step_is_not_recorded() -> None:
    """Gradients overflow in the first steps, which are skipped and leave no states behind."""
    run = run_of(precision="fp16-mixed")
    loop = ReferenceLoop(run)
    assert loop.scaler is not None
    loop.scaler._init_scale = 2.0**24
    with watch(MODEL, run) as watched:
        for _ in range(18):
            loop.step(watched.phase)
            watched.step()
    assert watched.recorded is not None
    assert watched.recorded.step > 2
    assert off(watched) == {}


def test_a_record_says_what_the_processor_did_and_that_it_is_not_graded(tmp_path: Path) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    run = run_of()
    loop = ReferenceLoop(run)
    file = tmp_path / "run.json"
    with watch(MODEL, run, record=file, loop="reference") as watched:
        for _ in range(2):
            loop.step(watched.phase)
            watched.step()
    record = read(file)
    assert record["environment"]["onednn"] is True
    assert record["watched"]["graded"] is False
    assert record["watched"]["not_graded_because"] == [
        "oneDNN was on, and estimates of the CPU are made for runs without it"
    ]


@pytest.mark.usefixtures("onednn_off")
def test_a_loop_of_ones_own_is_not_graded(tmp_path: Path) -> None:
    run = run_of()
    loop = ReferenceLoop(run)
    file = tmp_path / "run.json"
    with watch(MODEL, run, record=file) as watched:
        for _ in range(2):
            loop.step(watched.phase)
            watched.step()
    record = read(file)
    assert record["watched"]["graded"] is False
    assert record["watched"]["not_graded_because"] == [
        "the loop is one of the run's own, and estimates are made for another one"
    ]
    assert record["watched"]["residuals"]["allocated tier"]["difference"] == 0


@pytest.mark.usefixtures("onednn_off")
def test_the_death_of_what_an_earlier_look_has_seen_is_not_the_runs() -> None:
    run = run_of()
    loop = ReferenceLoop(run)
    with torch.autograd.profiler.profile(use_kineto=True, profile_memory=True):
        others = [torch.empty(10_000_000) for _ in range(4)]
    with watch(MODEL, run) as watched:

        def mark(name: str) -> None:
            watched.phase(name)
            if watched._kept.steps == 1 and name in ("forward", "backward"):
                del others[-2:]

        for _ in range(2):
            loop.step(mark)
            watched.step()
    assert others == []
    assert off(watched) == {}
    assert watched._kept.left_bytes == 0
    assert watched._kept.differences == ()
