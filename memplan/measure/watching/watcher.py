"""A training run beside its plan, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from torch.optim.optimizer import register_optimizer_step_post_hook

from memplan.config.fields import did_you_mean, show
from memplan.errors import ConfigurationError, MeasurementError
from memplan.measure.watching import judging
from memplan.measure.watching.book import Book
from memplan.measure.watching.ends import ending_of
from memplan.measure.watching.findings import LOGGER, Finding, Findings
from memplan.measure.watching.marks import NAMES
from memplan.measure.watching.oncard import OnCard
from memplan.measure.watching.pace import Pace
from memplan.measure.watching.plan import Plan
from memplan.measure.watching.process import peak_resident_bytes, resident_bytes
from memplan.measure.watching.reader import Reader
from memplan.measure.watching.record import Kept, write
from memplan.measure.watching.settings import Settings
from memplan.measure.watching.subject import Subject, ranks_of_run
from memplan.measure.watching.window import Recorded, Window

BatchT = TypeVar("BatchT")

_running: list[Watch] = []
"""The watch that runs in this process, if any: there is one of everything that it listens at."""


class Watch:
    """One training run that is watched. Use it as a context manager, once; memplan.measure.watching.watch makes it."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.settings = settings
        self._findings = Findings(settings.on_drift)
        self._kept = Kept(loop=subject.loop_name or settings.loop, findings=self._findings.told)
        self.hears_of_end = True  # whether it is told how the run ends, whatever happens
        self._state = "new"
        self._card: OnCard | None = None
        self._window = Window(0, None, self._called, self._stepped)
        self._book = Book(subject, settings, self._kept, None)
        self._reader = Reader(self._kept, None, settings.warn)
        self._pace = Pace()
        self._saved = time.monotonic()
        self._updates = 0  # of any optimizer, where steps() counts them

    # what a loop calls

    def __enter__(self) -> Watch:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def step(self) -> None:
        """An optimizer step is over: to be called at the end of each, behind `optimizer.step()`. Raises DriftError
        where on_drift="raise" asks for it."""
        self._check_running("step()")
        self._kept.steps += 1
        over = self._window.over
        self._window.end_step(self._kept.steps, self.subject.module)
        found: list[Finding] = []
        if self._window.over and not over:
            found += self._window_over()
        if self._card is not None:
            self._card.ask_driver()
        if self._pace.due:
            with self._pace.looking():
                found += self._reader.read()
        self._tell(found)
        if time.monotonic() - self._saved > self.settings.save_every:
            self._save()

    def steps(self, loader: Iterable[BatchT]) -> Iterator[BatchT]:
        """The batches of `loader`. Behind each in which an optimizer took its step, `step()` is called."""
        self._check_running("steps()")
        hook = register_optimizer_step_post_hook(self._updated)
        try:
            for batch in loader:
                before = self._updates
                yield batch
                if self._updates > before:
                    self.step()
        finally:
            hook.remove()

    def phase(self, name: str) -> None:
        """The phase of that name begins: zero_grad, forward, loss, backward or optimizer_step; `end` is where a step is
        over. What a loop does not say is seen from outside. Takes no time but in the steps that are recorded."""
        if self._window.is_open:
            if name not in NAMES:
                close = did_you_mean(str(name), NAMES)
                raise ConfigurationError(f"phase: must be one of {', '.join(NAMES)}, not {show(name)}{close}")
            self._window.mark(name)

    # what can be asked

    @property
    def plan(self) -> Plan | None:
        """The plan, once there is one."""
        return self._kept.plan

    @property
    def recorded(self) -> Recorded | None:
        """The step that was recorded, once there is one."""
        return self._window.recorded

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far."""
        return tuple(self._findings.told)

    def summary(self) -> str:
        """What came of it so far, in a few lines."""
        return judging.summary(self._kept)

    # what callbacks call as well

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._state == "running"

    def begin(self) -> None:
        """The training begins. Raises ConfigurationError where another watch runs, or this one has ended."""
        self.check_new()
        if _running and not _running[0].hears_of_end:
            _running[0].end(MeasurementError("another training began before this one was known to have ended"))
        if _running:
            raise ConfigurationError(
                f"watch: {_running[0].subject.name} is watched already: a process has one watch at a time",
                "leave the inner one out, or end the outer one before",
            )
        target = self.settings.target
        if target is not None and not target.is_dir() and not target.parent.is_dir():
            raise ConfigurationError(f"record: there is no folder {target.parent}", "mkdir -p makes it")
        place = self.subject.where()
        if place.type == "cuda":
            self._card = OnCard(place.index or 0, self.settings.reset_peaks)
        self._reader = Reader(self._kept, self._card, self.settings.warn)
        counted = None if self._card is None else self._card.counted
        self._window = Window(self.settings.recorded_step, counted, self._called, self._stepped)
        self._window.observed.optimizers = list(self.subject.optimizers)
        self._window.observed.autocast = self.subject.autocast
        _running.append(self)
        self._state = "running"
        try:
            self._book = Book(self.subject, self.settings, self._kept, self._card)
            self._book.begin()
            if self.subject.known:
                self._plan()
            self._window.begin(self.subject.module)
            if self._window.given_up:
                self._tell(self._window_over())
        except BaseException:
            self._stop()
            raise

    def check_new(self) -> None:
        """Raises ConfigurationError where this watch has been used."""
        if self._state != "new":
            what = "is running already" if self._state == "running" else "has ended"
            raise ConfigurationError(f"watch: this watch {what}: each is used once", "memplan.watch(...) makes another")

    def take(self, subject: Subject) -> None:
        """What is watched is known now."""
        self.check_new()
        self.subject = subject
        self._kept.loop = subject.loop_name or self.settings.loop

    def begin_step(self) -> None:
        """A step begins here, where that is known better than by the end of the one before."""
        self._window.begin_step()

    def end(self, error: BaseException | None = None) -> None:
        """The training is over, or `error` was raised in it. What was seen is written."""
        if self._state != "running":
            return
        self._reader.sum_up()
        self._stop()
        self._kept.ending = ending_of(error, self._kept.steps)
        self._kept.process = {"resident_bytes": resident_bytes(), "peak_resident_bytes": peak_resident_bytes()}
        self._save()
        LOGGER.info(self.summary())

    def _stop(self) -> None:
        self._window.close()
        self._window.forget()
        self._reader.close()
        if self._card is not None:
            self._card.close()
        self._state = "ended"
        _running.clear()

    # what is seen

    def _called(self) -> None:
        """The model is called, in a step that is looked at."""
        if self._kept.plan is None and (self.subject.known_at_call or self.subject.run is not None):
            self._plan()

    def _stepped(self) -> None:
        """An optimizer has taken its step, in a step that is looked at."""
        if self._kept.plan is None:
            self._plan()

    def _updated(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        self._updates += 1

    def _plan(self) -> None:
        found = self._book.plan(self._window.observed)
        self._save()
        self._tell(found)

    def _window_over(self) -> list[Finding]:
        """Nothing is looked at any more: a step was recorded, or will not be."""
        window = self._window
        if window.recorded is None:
            message = f"no step of {self.subject.name} is recorded: {window.given_up}"
            found = [Finding("not_recorded", self._kept.steps, message)]
        else:
            found = self._book.recorded(window.recorded, window.observed)
        if self._card is not None and window.observed.modules:
            self._reader.follow(window.observed.modules[0], window.observed.inputs)
        self._save()
        return found

    # what is told

    def _tell(self, found: Iterable[Finding | None]) -> None:
        for finding in found:
            if finding is not None:
                self._findings.tell(finding)

    def _save(self) -> None:
        """Write the record as it is now. That it cannot be written stops no training."""
        self._saved = time.monotonic()
        target = self.settings.target
        if target is None:
            return
        rank, ranks = ranks_of_run()
        if ranks > 1 and not target.is_dir():  # each has a record of its own
            target = target.with_name(f"{target.stem}.rank{rank}{target.suffix}")
        try:
            write(self._kept, target)
        except MeasurementError as error:
            self._tell([Finding("not_recorded", self._kept.steps, error.message, "record")])

    def _check_running(self, what: str) -> None:
        if self._state != "running":
            why = "has not begun" if self._state == "new" else "has ended"
            raise ConfigurationError(f"watch: {what}: the watch {why}", "with memplan.watch(...) as watch: ...")
