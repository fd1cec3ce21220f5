"""One file per command: options eager, bodies import late, thin. To add a command, add its file and a line here."""

from __future__ import annotations

COMMANDS = {
    "estimate": "Estimate the memory of one training step",
    "verify": "Run a training step for real and show it beside the estimate",
    "presets": "List the models that memplan knows by name",
    "devices": "List the cards that memplan knows by name",
}
"""Name -> one line of help, in the order of `memplan --help`. `memplan NAME` runs the function `command` of
memplan.commands.NAME; no other command's file is imported."""
