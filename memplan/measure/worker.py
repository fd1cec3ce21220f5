"""The child process that runs PyTorch: requests come in as lines of JSON, results go out as lines of JSON.

Started as `python -m memplan.measure.worker`. Results have a channel of their own; whatever PyTorch prints goes to
standard error, where the parent keeps it for the case that something fails.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        from memplan.measure.run import measure_training

        return {
            "measured": measure_training(
                Transformer(**request["model"]), TrainingRun(**request["run"]), Device(**request["device"])
            )
        }
    except Exception as error:  # the parent decides what a failure means
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
