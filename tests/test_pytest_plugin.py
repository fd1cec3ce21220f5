"""The mark of a memory budget, and assert_fits."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memplan
from memplan.errors import ConfigurationError

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
JOB = 'model="gpt2", device="t4", sequence_length=64, attention="naive"'


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`run(mark, *more)`: the outcome of a test with these marks, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run_one(*marks: str, body: str = "assert True") -> pytest.RunResult:
        lines = [f"@pytest.mark.memory_budget({mark})" for mark in marks]
        pytester.makepyfile("\n".join(["import pytest", *lines, "def test_job():", f"    {body}"]))
        return pytester.runpytest_subprocess(
            "-p", "memplan.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers"
        )

    return run_one


@pytest.mark.parametrize("mark", [JOB, f'"24 GiB", {JOB}', f'budget="90 %", {JOB}', f'{JOB}, set={{"num_layers": 2}}'])
def test_what_fits_passes(run, mark: str) -> None:  # type: ignore[no-untyped-def]
    run(mark).assert_outcomes(passed=1)


def test_what_does_not_fit_fails_with_the_remedy_and_no_traceback(run) -> None:  # type: ignore[no-untyped-def]
    result = run(f'"5 GiB", {JOB}, micro_batch_size=64', body="raise RuntimeError('the body runs')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*exceeds the budget of 5 GiB: *", "*shortfall: *", "*would fit: *micro_batch_size = *"]
    )
    text = result.stdout.str()
    assert "Traceback" not in text and "pytest_plugin.py" not in text and "the body runs" not in text


def test_the_bodys_own_failure_is_seen(run) -> None:  # type: ignore[no-untyped-def]
    result = run(JOB, body="assert 1 == 2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])


def test_every_mark_is_held(run) -> None:  # type: ignore[no-untyped-def]
    run(JOB, f'"1 GiB", {JOB}').assert_outcomes(failed=1)
    run(JOB, f'"4 GiB", {JOB}').assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ('device="t4"', "model is missing"),
        ('model="gpt2"', "device is missing"),
        (f'"1 GiB", "2 GiB", {JOB}', "takes one budget"),
        (f'"1 GiB", budget="2 GiB", {JOB}', "takes one budget"),
        (f"24, {JOB}", "budget: must have a unit"),
        ('model="gtp2", device="t4"', "'gtp2' is neither"),
        ('model="gpt2", device="t5", sequence_length=8', "'t5' is not known"),
        ('model="gpt2", device="t4"', "sequence_length: is missing"),
        ('model="gpt2", device="t4", sequence_lenght=8', "sequence_lenght"),
        ('model="gpt2", device="cpu", sequence_length=8, attention="naive"', "cpu has no capacity"),
    ],
)
def test_what_cannot_be_decided_is_an_error(run, mark: str, said: str) -> None:  # type: ignore[no-untyped-def]
    result = run(mark)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*memory_budget*{said.replace('[', '[[]')}*"])


def test_the_mark_is_listed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = pytester.runpytest_subprocess("-p", "memplan.pytest_plugin", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.memory_budget(budget=None, [*], model, device*"])


def test_the_plugin_is_an_entry_point_and_imports_nothing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"memplan": "memplan.pytest_plugin"}
    code = (
        "import sys; before = set(sys.modules); import memplan.pytest_plugin; print(*sorted(set(sys.modules) - before))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in child.stdout.split() if name.startswith(("memplan", "pytest", "torch"))} == {
        "memplan", "memplan.pytest_plugin",
    }  # fmt: skip


# ---- assert_fits

RUN = {"sequence_length": 64, "attention": "naive"}


def test_assert_fits_returns_the_estimate() -> None:
    by_name = memplan.assert_fits("gpt2", RUN, "t4")
    model, device = memplan.load_model("gpt2"), memplan.load_device("t4")
    by_objects = memplan.assert_fits(model, memplan.TrainingRun(**RUN), device, "24 GiB")  # type: ignore[arg-type]
    assert by_name == by_objects == memplan.estimate(model, memplan.TrainingRun(**RUN), device)  # type: ignore[arg-type]


def test_assert_fits_fails_with_the_remedy() -> None:
    with pytest.raises(AssertionError, match=r"(?s)the budget of 5 GiB.*would fit: .*micro_batch_size = "):
        memplan.assert_fits("gpt2", {**RUN, "micro_batch_size": 64}, "t4", "5 GiB")
    with pytest.raises(AssertionError, match="does not fit t4"):
        memplan.assert_fits("gpt2", {**RUN, "micro_batch_size": 4096}, "t4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gtp2", RUN, "t4"), "'gtp2' is neither"),
        (("gpt2", {}, "t4"), "sequence_length: is missing"),
        (("gpt2", RUN, "t5"), "'t5' is not known"),
        (("gpt2", RUN, "cpu"), "cpu has no capacity"),
        (("gpt2", RUN, "t4", 24), "budget: must have a unit"),
        (("gpt2", RUN, "t4", "101 %"), "budget: must be at most 100 % of the card, not 101 %"),
        (("gpt2", RUN, "t4", "24 gib"), "did you mean GiB"),
        (("gpt2", RUN, 3), "device: must be a Device"),
        ((3, RUN, "t4"), "model: must be"),
    ],
)
def test_assert_fits_cannot_decide(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        memplan.assert_fits(*arguments)  # type: ignore[arg-type]
