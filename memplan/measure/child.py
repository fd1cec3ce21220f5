"""Real runs in a child process: the parent stays free of torch, and survives whatever happens to the run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import IO

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError, MissingDependencyError, NotModelledError
from memplan.profiles import Record, fields, make_record

_KEPT = 4  # last lines of what a dead child said


class Child:
    """A process that measures one configuration after another. Use it as a context manager."""

    def __init__(self) -> None:
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError(
                "verifying runs the real thing, and torch is not installed", 'pip install "memplan[torch]"'
            )
        self._errors: IO[bytes] | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def measure(self, model: Transformer, run: TrainingRun, device: Device) -> Record:
        """Run one validated configuration and return its record. Raises MeasurementError where the run fails; the next
        call then starts a new process."""
        if device.backend != "cpu":
            raise NotModelledError(f"real runs on {device.name} are not possible yet", "--device cpu")
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        request = {"model": fields(model), "run": fields(run), "device": fields(device)}
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise MeasurementError(self._obituary(model))
        answer = json.loads(line)
        if "error" in answer:
            raise MeasurementError(f"the real run of {model.name} failed: {answer['error']}")
        return make_record(model, run, device, answer["measured"])

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memplan.measure.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # Threads that wait without spinning: on a busy machine the other way is several times slower.
                env={"OMP_WAIT_POLICY": "passive", **os.environ},
                text=True,
                encoding="utf-8",
            )
        return self._process

    def _obituary(self, model: Transformer) -> str:
        """What is known of a child that died while running `model`."""
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
        self._stop()
        return f"the process that ran {model.name} {how}{said}"

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None
