"""Files that are taken for snapshots: none of them is trusted, and each that is none is told so."""

from __future__ import annotations

import copyreg
import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.errors import MeasurementError
from memplan.explain.opened import open_snapshot
from memplan.measure import history

from .simulated import Recorder


def small() -> dict[str, Any]:
    recorder = Recorder()
    recorder.take(1000)
    return recorder.snapshot()


class Command:
    """Runs a command of the shell when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm",)


class State:
    """Does so when its state is set."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([],), Command()


class Key:
    """Does so as the key of a dictionary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm",)

    def __hash__(self) -> int:
        return 1


def persistent() -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return "touch harm" if value == "away" else None

    stream = io.BytesIO()
    Pickler(stream, 4).dump({**small(), "more": "away"})
    return stream.getvalue()


def with_state() -> dict[str, Any]:
    found = small()
    found["segments"][0]["blocks"][0]["frames"] = [{"filename": Command(), "line": 1, "name": "x"}]
    return found


HARMFUL: dict[str, Callable[[], bytes]] = {
    "at once": lambda: pickle.dumps(Command()),
    "in a snapshot": lambda: pickle.dumps({**small(), "allocator_settings": Command()}),
    "deep in a snapshot": lambda: pickle.dumps({**small(), "more": [({"deep": [[(Command(),)]]},)]}),
    "in a frame": lambda: pickle.dumps(with_state()),
    "as a key": lambda: pickle.dumps({Key(): 1, **small()}),
    "in a state": lambda: pickle.dumps({**small(), "more": State()}),
    "in a set": lambda: pickle.dumps({**small(), "more": {"a", "b"}}),
    "persistent": persistent,
    "protocol 0, INST": lambda: b"(S'touch harm'\nios\nsystem\n.",
    "protocol 0, OBJ": lambda: b"(cos\nsystem\nS'touch harm'\no.",
    "protocol 1, GLOBAL and REDUCE": lambda: b"cos\nsystem\n(S'touch harm'\ntR.",
    "NEWOBJ": lambda: b"\x80\x02cos\nsystem\nU\x0atouch harm\x85\x81.",
    "by a name with dots": lambda: b"\x80\x04\x8c\x08builtins\x8c\x08__import__\x93\x8c\x02os\x85R.",
    "behind the snapshot": lambda: pickle.dumps(small())[:-1] + b"cos\nsystem\n(S'touch harm'\ntR0.",
}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_would_run_code_is_refused_and_runs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapshot.pickle").write_bytes(HARMFUL[name]())
    with pytest.raises(MeasurementError, match=r"snapshot\.pickle is no snapshot"):
        open_snapshot("snapshot.pickle")
    assert os.listdir(tmp_path) == ["snapshot.pickle"]


def test_the_same_command_does_run_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would prove nothing."""
    for name in ("at once", "in a frame", "protocol 0, INST", "protocol 1, GLOBAL and REDUCE", "behind the snapshot"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        pickle.loads(HARMFUL[name]())
        assert os.listdir(folder) == ["harm"]


@pytest.mark.parametrize("loaded_before", [False, True])
def test_extension_codes_name_no_class(loaded_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that the process has loaded by its code before would be handed out without being asked for."""
    calls: list[str] = []

    def pretend(command: str) -> int:
        calls.append(command)
        return 0

    monkeypatch.setattr(os, "system", pretend)
    copyreg.add_extension("os", "system", 240)
    try:
        content = b"\x80\x02\x82\xf0U\x0atouch harm\x85R."
        if loaded_before:
            pickle.loads(content)
            calls.clear()
        file = tmp_path / "snapshot.pickle"
        file.write_bytes(content)
        with pytest.raises(MeasurementError, match=r"it holds a os\.system"):
            open_snapshot(file)
        assert calls == []
    finally:
        copyreg.remove_extension("os", "system", 240)


def checkpoint() -> bytes:
    """As torch.save writes it: a zip archive with a pickle in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": [1.0]}))
    return stream.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is cut off or empty"),
    "a checkpoint": (checkpoint(), "is a zip archive: torch.save writes checkpoints so, not a memory snapshot"),
    "an old checkpoint": (pickle.dumps(0x1950A86A20F9469CFC6C), "it has no segments and device_traces"),
    "a page": (b"\n<!doctype html><html></html>", "is an HTML or XML page"),
    "JSON": (b'{"segments": []}', "is JSON text"),
    "text": (b"memory_viz", "is no snapshot"),
    "truncated": (pickle.dumps(small())[:-40], "is no snapshot|is cut off"),
    "a compressed snapshot": (gzip.compress(pickle.dumps(small())), "is compressed, and a snapshot is read as"),
    "compressed text": (gzip.compress(b"text"), "cannot read the history"),
    "compressed JSON": (gzip.compress(b"[1, 2]"), "is not a memory history"),
    "a history without segments": (gzip.compress(b'{"device_traces": []}'), "it has no segments"),
    "a history of text": (gzip.compress(b'{"device_traces": [], "schema_version": "x"}'), "cannot read the history"),
    "deep JSON": (gzip.compress(b"[" * 100_000), "cannot read the history"),
    "a cut archive": (gzip.compress(json.dumps({"device_traces": []}).encode())[:-9], "cannot read|is damaged"),
    "a newer history": (
        gzip.compress(b'{"device_traces": [], "segments": [], "schema_version": 99}'),
        "schema version 99, newer than",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_told_what_they_are(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, fault = OTHERS[name]
    file = tmp_path / "file.pickle"
    file.write_bytes(content)
    with pytest.raises(MeasurementError, match=fault):
        open_snapshot(file)
    assert run(["explain", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and "Traceback" not in captured.err
    assert len(captured.err.splitlines()) <= 2


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="is a directory"):
        open_snapshot(tmp_path)
    with pytest.raises(MeasurementError, match="No such file"):
        open_snapshot(tmp_path / "missing.pickle")


def test_both_kinds_are_read(tmp_path: Path) -> None:
    plain, own = tmp_path / "a.pickle", tmp_path / f"a{history.SUFFIX}"
    plain.write_bytes(pickle.dumps(small()))
    history.write(history.strip({**small(), "marks": [(1, "forward", 0)]}), own)
    snapshot, is_history = open_snapshot(plain)
    assert snapshot == small() and not is_history
    snapshot, is_history = open_snapshot(str(own))
    assert is_history and snapshot["marks"] == [[1, "forward", 0]]
