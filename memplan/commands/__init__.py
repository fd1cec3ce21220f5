"""One file per command: options eager, bodies import late, thin. To add a command, add its file and a line here."""

from __future__ import annotations

COMMANDS = {
    "estimate": "Estimate the memory of one training step",
    "checkpoint": "Say how long the files of a checkpoint are",
    "check": "Check that the jobs of a repository keep to their cards and budgets",
    "baseline": "Keep what the checks need now, to compare with later",
    "diff": "Show what changed between two baselines, revisions or configurations",
    "plan": "Rank the settings that fit a card",
    "sweep": "Estimate a grid of settings",
    "trace": "Estimate a training step of any PyTorch module",
    "verify": "Run a training step for real and show it beside the estimate",
    "profile": "Run a job for real and show its memory over time, predicted and measured",
    "report": "Write a report of a job, or of recorded runs: HTML, Markdown, JSON, SVG",
    "explain": "Say what a PyTorch memory snapshot holds, and what to change",
    "oom": "Find the tensor behind an out-of-memory message",
    "measure": "Run training steps for real and record what they need",
    "profiles": "List the recorded runs, and what is missing",
    "presets": "List the models that memplan knows by name",
    "devices": "List the cards that memplan knows by name",
    "completion": "Print a script that completes commands, presets and devices in a shell",
    "schema": "Print the JSON Schemas of what memplan reads and writes",
}
"""Name -> one line of help, in the order of `memplan --help`. `memplan NAME` runs the function `command` of
memplan.commands.NAME; no other command's file is imported."""
