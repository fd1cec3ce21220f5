"""What `memplan diff` lays beside each other: files, folders, revisions in git, single jobs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from memplan.check.diff import Entries
from memplan.check.sides import entries_of
from memplan.errors import ConfigurationError

CHECKS = """
[defaults]
device = "t4"
sequence_length = 64
attention = "naive"
[checks.a]
model = "%s"
micro_batch_size = %d
"""

MODEL = '[model]\npreset = "gpt2"\nnum_layers = %d\n'


def no_job(model: str) -> Entries:
    return {"asked for": {"model": model}}


def git(*arguments: str) -> None:
    name = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *name, *arguments], check=True, capture_output=True)


def uppers(side: str) -> dict[str, int]:
    return {name: entry["upper_bytes"] for name, entry in entries_of(side, no_job).items()}


@pytest.fixture
def repository(written: Any, tmp_path: Path) -> Path:
    """Two revisions and a working tree that differ in the batch and in the model, which lies in the folder above."""
    git("init", "-q", "-b", "main")
    for number, (batch, layers) in enumerate([(1, 2), (2, 3)], start=1):
        written(CHECKS % ("../models/ours.toml", batch), "jobs/memplan.toml")
        written(MODEL % layers, "models/ours.toml", head="")
        git("add", "-A")
        git("commit", "-q", "-m", f"number {number}")
        git("tag", f"v{number}")
    written(CHECKS % ("../models/ours.toml", 3), "jobs/memplan.toml")
    written(MODEL % 4, "models/ours.toml", head="")
    return tmp_path


def settings_of(side: str) -> tuple[int, int]:
    (entry,) = entries_of(side, no_job).values()
    request = entry["request"]
    return request["run"]["micro_batch_size"], request["model"]["num_layers"]


def test_two_revisions_and_the_working_tree(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"v1:jobs/memplan.toml": (1, 2), "main:jobs/memplan.toml": (2, 3), "jobs": (3, 4)}
    assert {side: settings_of(side) for side in expected} == expected
    monkeypatch.chdir(repository / "jobs")
    expected = {"v1": (1, 2), "HEAD~1:memplan.toml": (1, 2), "main": (2, 3), ".": (3, 4), "memplan.toml": (3, 4)}
    assert {side: settings_of(side) for side in expected} == expected
    assert git("status", "--porcelain") is None  # nothing is checked out
    assert sorted(path.name for path in repository.iterdir()) == [".git", "jobs", "models"]


def test_a_model_that_a_revision_lacks_is_never_taken_from_the_working_tree(repository: Path, written: Any) -> None:
    written(CHECKS % ("later.toml", 1))
    git("add", "memplan.toml")
    git("commit", "-q", "-m", "too early")
    written(MODEL % 2, "later.toml", head="")
    assert settings_of(".") == (1, 2)
    with pytest.raises(ConfigurationError) as caught:
        entries_of("HEAD", no_job)
    assert caught.value.message == "HEAD:memplan.toml: a: HEAD:later.toml: no such file"


def test_wrong_checks_at_a_revision_are_told_of_the_revision(repository: Path, written: Any) -> None:
    written("[checks.a]\nmodle = 'x'\n")
    git("add", "memplan.toml")
    git("commit", "-q", "-m", "wrong")
    with pytest.raises(ConfigurationError) as caught:
        entries_of("HEAD", no_job)
    assert caught.value.message.startswith("HEAD:memplan.toml:3: [checks.a] modle: is not a known key")


@pytest.mark.parametrize(
    ("side", "why", "hint"),
    [
        ("v3", "'v3' is neither a file nor a preset", "nor a revision of git: git knows no 'v3' here"),
        ("v3:jobs/memplan.toml", "neither a file nor a preset", "git knows no 'v3' here"),
        ("v1", "v1 has no memplan.toml and no pyproject.toml", "REVISION:folder/memplan.toml"),
        ("v1:nowhere.toml", "v1 has no nowhere.toml", "REVISION:folder/memplan.toml"),
        ("v1:jobs", "v1 has no jobs", "REVISION:folder/memplan.toml"),
        ("--help", "neither a file nor a preset", "git knows no '--help' here"),
        ("gtp2", 'did you mean "gpt2"?', "git knows no"),
        ("jobs/other.toml", "neither a file nor a preset", "git knows no"),
    ],
)
def test_a_side_that_is_nothing(repository: Path, side: str, why: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        entries_of(side, no_job)
    assert why in caught.value.message
    assert hint in str(caught.value.hint)


def test_outside_of_a_repository(written: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        entries_of("main", no_job)
    assert caught.value.hint == "nor a revision of git: this folder is in no repository of git"


def test_without_git(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError) as caught:
        entries_of("main", no_job)
    assert "git, which is not installed" in str(caught.value.hint)


def test_single_jobs(written: Any, tmp_path: Path) -> None:
    written("{}", "folder/config.json", head="")
    written('{"model_type": "gpt2"}', "own.json", head="")
    written(MODEL % 2, "ours.toml", head="")
    for side in ("gpt2", "folder", "own.json", "ours.toml", "org/name"):
        assert entries_of(side, no_job) == {"asked for": {"model": side}}


def test_a_baseline_is_read_as_it_is(written: Any) -> None:
    entry = '{"upper_bytes": 5, "allocated_bytes": 0, "at_peak": {}}'
    text = f'{{"schema_version": 1, "kind": "memplan-baseline", "checks": {{"x": {entry}}}}}'
    assert uppers(written(text, "base.json", head="")) == {"x": 5}


def test_checks_are_compared_without_their_budgets(written: Any) -> None:
    side = written(
        CHECKS % ("gpt2", 1) + "budget = '1 MiB'\ngrowth = '1 %'\n[checks.b]\nmodel = 'gpt2'\ndevice = 'cpu'\n"
    )
    assert list(uppers(side)) == ["a", "b"]


def test_one_that_cannot_be_decided_is_an_error(written: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"memplan\.toml: a: model: 'gtp2' is neither"):
        entries_of(written(CHECKS % ("gtp2", 1)), no_job)
