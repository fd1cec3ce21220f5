"""Real runs in a child process: the parent stays free of torch, and survives whatever happens to the run."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from memplan.config.device import Device
from memplan.errors import MeasurementError, MissingDependencyError, NotModelledError
from memplan.profiles import Record, fields, kind_of_record, make_record

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

START_LIMIT = 300.0
"""Seconds in which a child has to import torch and make a card's context."""

_KEPT = 4  # last lines of what a dead child said
_LONGEST_ERROR = 400  # characters of an error that a record keeps


class Attempt(NamedTuple):
    """What came of a run: its record, why it did not end well ("" where it did), and the allocator's history."""

    record: Record
    message: str
    history: dict[str, Any] | None


class _Ended(MeasurementError):
    """The child is no more, or was stopped because it took too long. `outcome` is for the record."""

    def __init__(self, outcome: dict[str, Any], message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Child:
    """A process that measures one configuration after another. Use it as a context manager.

    `time_limit` is how many seconds a run may take; None is for ever.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError(
                "verifying runs the real thing, and torch is not installed", 'pip install "memplan[torch]"'
            )
        self.time_limit = time_limit
        self._environments: dict[Device, dict[str, Any]] = {}
        self._errors: IO[bytes] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None
        self._device = ""  # what this process runs on
        self._runs = 0  # of this process
        self._started = False  # whether it has answered anything

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.replace()

    def measure(self, model: Model, run: Run, device: Device) -> Record:
        """Run one validated configuration and return its record. Raises MeasurementError where the run does not end
        well; the next call then starts a new process."""
        check_real(device)
        answer = self._answer_to_run(model, run, device)
        if "error" in answer:
            raise MeasurementError(f"the real run of {model.name} failed: {answer['error']}")
        record = make_record(model, run, device, answer["measured"])
        if "out_of_memory" in record:
            raise MeasurementError(f"the real run of {model.name} ran out of memory on {device.name}")
        return record

    def attempt(
        self, model: Model, run: Run, device: Device, history: bool = False, timed_runs: int | None = None
    ) -> Attempt:
        """Run one validated configuration, whatever comes of it: its record says whether it ran, ran out of memory,
        failed, took too long, or lost its process (`outcome`), and on a card whether the process was fresh. Where
        `timed_runs` is given the run is profiled: over time, and by so many runs more on the clock.

        Raises MeasurementError where not even the environment could be asked for.
        """
        environment = self.environment(device)
        self._running(device)
        fresh = self._runs == 0
        message = ""
        try:
            answer = self._answer_to_run(model, run, device, history, timed_runs)
            if "error" in answer:
                message = answer["error"]
                first = message.partition("\n")[0][:_LONGEST_ERROR]
                answer = {"measured": {"environment": environment, "outcome": "failed", "error": first}}
        except _Ended as ended:
            message = ended.message
            answer = {"measured": {"environment": environment, **ended.outcome}}
        measured = answer["measured"]
        events = measured.pop("history", None)
        if device.backend == "cuda":
            measured["process"] = "fresh" if fresh else "shared"
        return Attempt(make_record(model, run, device, measured), message, events)

    def environment(self, device: Device) -> dict[str, Any]:
        """What the bytes of a run on `device` can depend on here. Raises MeasurementError where none can be made."""
        check_real(device)
        if device not in self._environments:
            answer = self._start(device)
            if "error" in answer:
                raise MeasurementError(answer["message"], answer["hint"])
            self._environments[device] = answer["environment"]
        return self._environments[device]

    def _start(self, device: Device) -> dict[str, Any]:
        """Have a process that is ready: importing torch and making a context is not the run's time."""
        answer = self._ask(device, {"device": fields(device)}, START_LIMIT, f"the process that looks at {device.name}")
        self._started = True
        return answer

    def replace(self) -> None:
        """End the process. The next run gets a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if self._reader is not None:
                self._reader.join()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _answer_to_run(
        self, model: Model, run: Run, device: Device, history: bool = False, timed_runs: int | None = None
    ) -> dict[str, Any]:
        self._running(device)
        if self.time_limit is not None and not self._started:
            self._start(device)
        request: dict[str, Any] = {"model": fields(model), "run": fields(run), "device": fields(device)}
        request |= {"kind": kind_of_record(run), "history": history, "timed_runs": timed_runs}
        answer = self._ask(device, request, self.time_limit, f"the process that ran {model.name}")
        self._runs += 1
        # What an error leaves behind on a card is unknown, and the next run has to find its memory empty.
        if device.backend == "cuda" and ("error" in answer or answer["left_bytes"] or _by_library(answer["measured"])):
            self.replace()
        return answer

    def _ask(self, device: Device, request: dict[str, Any], limit: float | None, who: str) -> dict[str, Any]:
        process = self._running(device)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=limit)
        except BrokenPipeError:
            line = None
        except queue.Empty:
            self.replace()
            raise _Ended(
                {"outcome": "timed_out", "time_limit_seconds": limit}, f"{who} did not end within {limit:g} seconds"
            ) from None
        if line is None:
            raise self._death(who)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self, device: Device) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None or self._device != device.name:
            self.replace()
            self._device = device.name
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memplan.measure.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # Threads that wait without spinning: on a busy machine the other way is several times slower.
                env={"OMP_WAIT_POLICY": "passive", **os.environ, **_only(device)},
                text=True,
                encoding="utf-8",
            )
            self._runs, self._started = 0, False
            self._answers = queue.SimpleQueue()
            # A pipe cannot be waited for with a time limit on every system; a queue can.
            self._reader = threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True)
            self._reader.start()
        return self._process

    def _death(self, who: str) -> _Ended:
        """What is known of a child that died while it was asked."""
        assert self._process is not None
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == -9:
            how += " (out of memory, most likely)"
        said = ""
        if self._errors is not None:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            said = ": " + " | ".join(lines[-_KEPT:]) if lines else ""
        self.replace()
        cause = {"signal": -code} if code < 0 else {"exit_code": code}
        return _Ended({"outcome": "killed", **cause}, f"{who} {how}{said}")


def check_real(device: Device) -> None:
    """Raises NotModelledError for a card by name: only what this machine has can be run on."""
    if device.backend != "cpu" and not device.name.startswith("local"):
        raise NotModelledError(
            f"real runs on {device.name} are not possible by name", "--device local runs on the card of this machine"
        )


def _only(device: Device) -> dict[str, str]:
    """What hides all cards but the one from a process. The first one needs nothing hidden."""
    if device.backend == "cpu" or device.name == "local":
        return {}
    from memplan.measure.local import uuid_of

    return {"CUDA_VISIBLE_DEVICES": uuid_of(device.name)}


def _by_library(measured: dict[str, Any]) -> bool:
    return bool(measured.get("out_of_memory", {}).get("asked_by") == "library")


def _read(lines: IO[str], answers: queue.SimpleQueue[str | None]) -> None:
    for line in lines:
        answers.put(line)
    answers.put(None)
