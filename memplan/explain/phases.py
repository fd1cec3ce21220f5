"""The phase of a recorded moment, where it is certain: a mark of memplan's own, a range that PyTorch noted, or code."""

from __future__ import annotations

from memplan.explain.frames import Stacks
from memplan.explain.recording import Recording
from memplan.explain.story import Story

RANGES = (("Optimizer.step#", "optimizer_step"), ("Optimizer.zero_grad#", "zero_grad"))
"""What PyTorch notes by itself (torch/optim/optimizer.py, profile_hook_step): beginning of the name -> phase."""


def phase_at_peak(story: Story, stacks: Stacks) -> tuple[str, str]:
    """The phase and what says so; two empty texts where nothing does."""
    recording, event = story.recording, story.peak.event
    if event < 0:
        return "", ""
    births = sum(1 for each in recording.events[:event] if each.action == "alloc")
    marked = [(step, phase) for step, phase, before in recording.marks if before <= births]
    if marked:
        step, phase = marked[-1]
        return phase, f"the history's mark, step {step}"
    time = recording.events[event].time
    name = _range_at(recording, time) if isinstance(time, int) else ""
    for beginning, phase in RANGES:
        if name.startswith(beginning):
            return phase, f"PyTorch's own range {name}"
    phase = stacks.phase(recording.events[event].frames)
    return (phase, "its stack") if phase else ("", "")


def _range_at(recording: Recording, time: int) -> str:
    """The innermost range that a time lies in."""
    opened: list[str] = []
    for at, stage, name in recording.annotations:
        if at > time:
            break
        if stage == "START":
            opened.append(name)
        elif name in opened:
            opened.reverse()
            opened.remove(name)
            opened.reverse()
    return opened[-1] if opened else ""
