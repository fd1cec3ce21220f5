"""Run a suite on the simulated card and keep its records.

python -m tests.simulated_card.record SUITE --out FOLDER [--device NAME]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from memplan.measure.history import write
from memplan.measure.prediction import Rules
from memplan.measure.recording import history_file
from memplan.measure.suite import tasks
from memplan.ops.backend import release
from memplan.profiles import make_record, record_path, save

from .card import make_card, run_for_real


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--device", default="h100-80gb")
    arguments = parser.parse_args()
    device, card = make_card(arguments.device)
    import torch

    for task in tasks(arguments.suite, device, Rules(release(torch.__version__))):
        model, run = task.case.model, task.case.run
        measured = run_for_real(model, run, card, task.history)
        events = measured.pop("history", None)
        record = make_record(model, run, device, measured)
        if events is not None:
            file = history_file(arguments.out / record_path(record))
            file.parent.mkdir(parents=True, exist_ok=True)
            write(events, file)
            record["history"] = file.name
        save(record, arguments.out)
        print(measured["outcome"], model.name, run.attention, run.precision, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # PyTorch's threads do not end on a card whose events never come
