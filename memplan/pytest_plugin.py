"""pytest: `@pytest.mark.memory_budget("24 GiB", model="llama-3.2-1b", device="h100-80gb", sequence_length=2048)`.

A test with the mark fails where the job that the mark describes may need more than the budget; without one, more than
the card can give. It is an error, and no failure, where that cannot be decided. The test's own body runs after that.
Nothing is imported before a test has the mark, and torch never is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

MARK = "memory_budget"


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(budget=None, *, model, device, set={{}}, implementation=None, **run): fail where the run of the model "
        'may need more than the budget, such as "24 GiB" or "90 %" of the device; without one, more than it can give',
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Judge the marks of a test. What cannot be decided is an error of its setup."""
    judged = [_judged(item.name, mark) for mark in item.iter_markers(MARK)]
    if judged:
        item.stash[_key()] = judged


def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail what does not fit, before the test's own body runs."""
    for judged in item.stash.get(_key(), []) if _KEY else []:
        if judged.findings:
            import pytest

            from memplan.report.check.words import message

            pytest.fail(message(judged), pytrace=False)


_KEY: list[Any] = []


def _key() -> Any:
    """Where the verdicts of a test are kept, made when the first one is."""
    if not _KEY:
        import pytest

        _KEY.append(pytest.StashKey[list[Any]]())
    return _KEY[0]


def _judged(name: str, mark: pytest.Mark) -> Any:
    """The verdict of a mark. Raises pytest.UsageError for one that is not written right, and for what cannot be
    decided."""
    import pytest

    from memplan.assertions import judged_of
    from memplan.config.load import build_run, load_model
    from memplan.errors import MemplanError

    values = dict(mark.kwargs)
    if len(mark.args) > 1 or (mark.args and "budget" in values):
        raise pytest.UsageError(f"{MARK} takes one budget, and the rest by name")
    budget = mark.args[0] if mark.args else values.pop("budget", None)
    missing = [key for key in ("model", "device") if key not in values]
    if missing:
        raise pytest.UsageError(f"{MARK}: {' and '.join(missing)} is missing, such as {_EXAMPLES[missing[0]]}")
    model, device = values.pop("model"), values.pop("device")
    changes, implementation = values.pop("set", {}), values.pop("implementation", None)
    try:
        if isinstance(model, str):
            model = load_model(model, changes, implementation)
        return judged_of(model, build_run(model, values), device, budget, name)
    except MemplanError as error:
        raise pytest.UsageError(f"{MARK}: cannot be decided: {error}") from None


_EXAMPLES = {"model": 'model="gpt2"', "device": 'device="h100-80gb"'}
