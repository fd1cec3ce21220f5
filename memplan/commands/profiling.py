"""The work behind `memplan profile` and `memplan report`: runs made or read, and what is written of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.config.model import Transformer
from memplan.errors import ConfigurationError, MeasurementError, MemplanError, MissingDependencyError, nearest
from memplan.profiled import LENGTH_FIELDS, Profile, Side, curves_of, measured_side, predicted_side

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.exporting.placed import PlacedTimeline
    from memplan.profiles import Record

FORMATS = ("text", "html", "markdown", "json", "svg", "snapshot", "trace")
ENDINGS = {
    ".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".svg": "svg", ".pickle": "snapshot",
    ".pkl": "snapshot", ".txt": "text",
}  # fmt: skip

USUAL_LENGTH = 1024
"""Tokens of a run whose length is not given, where the model takes as many."""

USUAL_NEW_TOKENS = 32

SHORTER = (4, 2)
"""A curve's further real runs are of the length divided by these."""


def targets_of(outputs: Sequence[str], html: str | None) -> list[tuple[str, str]]:
    """Each format and the file it goes to. A file without a format has the one that its name ends in."""
    targets = [("html", html)] if html else []
    for output in outputs:
        form, equals, target = output.partition("=")
        if not equals:
            form, target = ENDINGS.get(os.path.splitext(output)[1].lower(), ""), output
        if form not in FORMATS:
            close = nearest(form, FORMATS) if equals else None
            hint = f"did you mean {close}?" if close else f"KIND=FILE, with one of {', '.join(FORMATS)}"
            raise ConfigurationError(f"--output: {output[:60]!a} has no format that memplan writes", hint)
        if not target:
            raise ConfigurationError(
                f"--output: {output[:60]!a} names no file", "for example --output html=report.html"
            )
        targets.append((form, target))
    files = [target for _, target in targets]
    twice = next((target for target in files if files.count(target) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"--output: {twice[:60]!a} is written twice", "give each format its own file")
    for target in files:
        if os.path.isdir(target) or not os.path.isdir(os.path.dirname(target) or "."):
            raise ConfigurationError(f"cannot write {target[:80]!a}: no such folder, or a folder itself")
    return targets


def requests(
    source: str,
    settings: Sequence[str],
    choose: Callable[[str | None], Device],
    given: Mapping[str, object],
    attention: Sequence[str],
    implementation: str | None,
) -> list[tuple[Model, Run, Device]]:
    """One request for each kind of attention. `choose` is given the device that a TOML file names, if any. A length
    that is not given is USUAL_LENGTH, or the longest that the model takes. On the CPU, where PyTorch's flash kernel has
    no dropout, several kinds run without it in attention, and so does flash where it was not asked for."""
    from memplan.commands.request import read
    from memplan.config.load import build_run
    from memplan.config.validate import validate_run

    model, keys, named = read(source, settings, implementation)
    device = choose(named)
    run_keys = {**_usual(model, {**keys, **given}), **keys, **given}
    kinds = attention or [str(run_keys.get("attention") or "sdpa")]
    if (
        device.backend == "cpu"
        and isinstance(model, Transformer)
        and {"flash", "sdpa"} & set(kinds)
        and (len(kinds) > 1 or not attention)
        and model.attention_dropout
        and run_keys.get("mode", "train") == "train"
        and not any(text.partition("=")[0].strip() == "attention_dropout" for text in settings)
    ):
        model, _, _ = read(source, [*settings, "attention_dropout=0"], implementation)
        print("attention_dropout: 0 in all runs, as PyTorch's flash kernel on the CPU has none", file=sys.stderr)
    found = []
    for kind in kinds:
        run = build_run(model, {**run_keys, "attention": kind})
        found.append((model, validate_run(model, run, device), device))
    return found


def _usual(model: Model, given: Mapping[str, object]) -> dict[str, object]:
    """The lengths that are not given."""
    longest = model.max_positions if isinstance(model, Transformer) else model.most_positions
    length = min(USUAL_LENGTH, longest or USUAL_LENGTH)
    image = 0 if isinstance(model, Transformer) else model.tokens_of_an_image
    if image:
        return {"sequence_length": image}
    names: tuple[str, ...] = ("sequence_length",)
    if model.architecture == "encoder-decoder":
        names = ("source_length", "target_length")
    if given.get("mode") == "generate":
        new = int(str(given.get("new_tokens", min(USUAL_NEW_TOKENS, max(length // 2, 1)))))
        prompt = max(min(length // 2, (longest or USUAL_LENGTH) - new), 1)
        usual: dict[str, object] = {"prompt_length": prompt, "new_tokens": new}
        return usual | ({"source_length": length} if model.architecture == "encoder-decoder" else {})
    if model.architecture == "encoder-decoder":
        length = max(length // 2, 1)
    return dict.fromkeys(names, length)


def default_device(name: str | None) -> Device:
    """The device of that name; without one, the card of this machine, or the CPU where there is none."""
    from memplan.commands.request import load_device

    if name is not None:
        return load_device(name)
    try:
        return load_device("local")
    except MemplanError:
        return load_device("cpu")


class Profiler:
    """Runs made one after the other. What has been measured when it is interrupted is in `sides`, and its records are
    in `out`."""

    def __init__(self, runs: int, out: str | None) -> None:
        self.runs = runs
        self.out = None if out is None else Path(out)
        self.sides: list[Side] = []
        self.others: list[Record] = []  # of other lengths

    def profile(self, asked: Sequence[tuple[Model, Run, Device]], lengths: Sequence[int] | None) -> None:
        """Measure every run, and its shorter (or other) lengths for the curve, by their peaks alone."""
        from memplan.commands.progress import progress
        from memplan.measure.child import Child

        main = [(request, True) for request in asked]
        jobs = main + [(request, False) for request in _other_lengths(asked, lengths)]
        with Child() as child:
            for (model, run, device), whole in progress(jobs, lambda job: _job(*job)):
                attempt = child.attempt(model, run, device, timed_runs=self.runs if whole else None)
                if self.out is not None:
                    from memplan.profiles import save

                    save(attempt.record, self.out)
                if not whole:
                    self.others.append(attempt.record)
                elif "phases" in attempt.record and not attempt.message:
                    self.sides.append(measured_side(attempt.record))
                else:
                    outcome = str(attempt.record.get("outcome", "failed")).replace("_", " ")
                    why = attempt.message or f"the run ended: {outcome}"
                    side = predicted_side(model, run, device, run.attention, failure=why)
                    self.sides.append(replace(side, record=attempt.record))

    def result(self) -> Profile:
        """What there is so far."""
        return Profile(tuple(self.sides), curves_of(self.sides, self.others))


def _job(request: tuple[Model, Run, Device], whole: bool) -> str:
    model, run, _ = request
    length = next(f"{getattr(run, name):,}" for name in LENGTH_FIELDS if getattr(run, name, 0))
    return f"{model.name}, {run.attention}, {length} tokens{', timed' if whole else ''}"


def _other_lengths(
    asked: Sequence[tuple[Model, Run, Device]], lengths: Sequence[int] | None
) -> list[tuple[Model, Run, Device]]:
    from memplan.config.validate import validate_run

    found = []
    for model, run, device in asked:
        field = next(name for name in LENGTH_FIELDS if getattr(run, name, 0))
        length = getattr(run, field)
        others = [length // share for share in SHORTER] if lengths is None else lengths
        for other in sorted({each for each in others if each and each != length}):
            changed: dict[str, Any] = {field: other}
            try:
                shorter = validate_run(model, replace(run, **changed), device)
            except MemplanError:
                if lengths is not None:
                    raise
                continue
            found.append((model, shorter, device))
    return found


def profile_module(
    name: str, inputs: Sequence[str], device: str | None, given: Mapping[str, object], runs: int
) -> Profile:
    """A module of the user's own, in this process."""
    from importlib.util import find_spec

    from memplan.commands.tracing import load_request

    request = load_request(name, inputs, device or "cpu", given)
    if find_spec("torch") is None:
        raise MissingDependencyError(
            "profiling runs a module, and torch is not installed", 'pip install "memplan[torch]"'
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    with redirect_stdout(sys.stderr):  # standard output belongs to the result, whatever the user's code prints
        from memplan.measure.tracing.program import profile_module

        return Profile((profile_module(request.name, request.inputs, request.run, request.device, runs),))


def recorded(files: Sequence[str]) -> Profile:
    """A profile of records. Raises MeasurementError for what is none."""
    from memplan.profiles import read, read_all

    records: list[Record] = []
    for name in files:
        path = Path(name)
        if not path.is_dir():
            records.append(read(path))
            continue
        found, problems = read_all(path)
        if problems:
            raise MeasurementError(problems[0][1])
        records += [record for _, record in found]
    if not records:
        raise MeasurementError(
            f"there are no records in {', '.join(files)}", "memplan profile MODEL --out DIR keeps some"
        )
    whole = [record for record in records if "memory_over_time" in record] or records
    names = [record["request"]["run"]["attention"] for record in whole]
    sides = []
    for number, record in enumerate(whole):
        alone = names.count(names[number]) == 1
        sides.append(measured_side(record, "" if alone else f"{names[number]} ({record['request']['model']['name']})"))
    return Profile(tuple(sides), curves_of(sides, [record for record in records if record not in whole]))


def are_records(sources: Sequence[str]) -> bool:
    """Whether the first of them is a record, or a folder of records: not a model's config.json or its folder."""
    import json

    path = Path(sources[0])
    if path.is_dir():
        return not (path / "config.json").exists()
    if path.suffix.lower() != ".json":
        return False
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads it as a model says what is wrong
    return isinstance(found, dict) and "request" in found and "schema_version" in found


def predicted(
    source: str,
    settings: Sequence[str],
    device: str | None,
    given: Mapping[str, object],
    attention: Sequence[str],
    implementation: str | None,
) -> Profile:
    """What is predicted of a model, without a run."""
    from memplan.commands.request import load_device

    def choose(named: str | None) -> Device:
        return load_device(device or named or "cpu")

    asked = requests(source, settings, choose, given, attention, implementation)
    sides = tuple(predicted_side(model, run, where, run.attention) for model, run, where in asked)
    return Profile(sides, curves_of(sides))


def lengths_of(text: str | None) -> list[int] | None:
    """What --lengths says; None where it says nothing."""
    from memplan.commands.options import size

    if text is None:
        return None
    return [] if text.strip() == "none" else [size("--lengths", each) for each in text.split(",")]


def write_all(profile: Profile, title: str, targets: Sequence[tuple[str, str]]) -> None:
    """Every file that was asked for. Snapshots and traces are of one run: of several, each has a file that is named for
    it, `plan-naive.pickle`."""
    from memplan.exporting.perfetto import trace_text
    from memplan.exporting.snapshot import snapshot_bytes
    from memplan.profiles import write_bytes, write_text

    for form, target in targets:
        path = Path(target)
        if form not in ("snapshot", "trace"):
            write_text(path, rendered(profile, title, form), "the report")
            continue
        for side in profile.sides:
            one = path if len(profile.sides) == 1 else path.with_stem(f"{path.stem}-{_slug(side.name)}")
            if form == "snapshot":
                write_bytes(one, snapshot_bytes(placed_of(side)), "the snapshot")
            else:
                write_text(one, trace_text(placed_of(side), f"{title}, {side.name}"), "the trace")


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)


def placed_of(side: Side) -> PlacedTimeline:
    """The predicted timeline of a run with its addresses."""
    from memplan.exporting.placed import place, placed_on_cpu
    from memplan.ops.backend import CURRENT, release
    from memplan.traced import TraceEstimate

    found = side.estimate
    if isinstance(found, TraceEstimate):
        return placed_on_cpu(side.timeline)
    version = release(side.environment["torch"]) if side.environment else CURRENT
    settings = str(side.environment.get("allocator_settings") or "")
    return place(found.model, found.run, found.device, version, settings)


def rendered(profile: Profile, title: str, form: str) -> str:
    """A profile in one format, as text."""
    if form == "html":
        from memplan.report.page import render_page

        # What is reserved is drawn where there is a caching allocator.
        cards = [side for side in profile.sides if side.estimate.device.backend == "cuda"]
        return render_page(profile, title=title, placed={side.name: placed_of(side) for side in cards})
    if form == "svg":
        from memplan.report.page import render_svg

        return render_svg(profile)
    if form == "json":
        import json

        from memplan.report.page.data import profile_to_dict

        return json.dumps(profile_to_dict(profile), indent=1) + "\n"
    from memplan.report.profile import profile_to_markdown, render_profile

    return profile_to_markdown(profile, title=title) if form == "markdown" else render_profile(profile)


def show(targets: Sequence[tuple[str, str]]) -> None:
    """Open the first HTML file in the reader's browser."""
    import webbrowser

    page = next((target for form, target in targets if form == "html"), None)
    if page is None:
        raise ConfigurationError("--open shows an HTML file, and none is written", "give --html FILE")
    if not webbrowser.open(Path(page).resolve().as_uri()):
        print(f"no browser could be started: open {page}", file=sys.stderr)
