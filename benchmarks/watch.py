"""What watching a training run adds to a step on the CPU, outside of the steps that are recorded.

    python benchmarks/watch.py [STEPS]

One model is trained for real. Its steps are bare and watched in turn (`watch.step()` behind the optimizer's), so that
both meet the same machine; medians are compared, and the time that the watch itself takes is measured beside them: a
difference of medians is as noisy as the machine, a call is not. The step that is recorded, and the one before it, are
told apart. Exits 1 where the calls take 1 % of a step or more. Needs torch.
"""

from __future__ import annotations

import platform
import sys
import time
from statistics import median

import torch

from memplan.config.load import load_preset
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.measure.run import make_batch
from memplan.measure.watching import watch
from memplan.measure.watching.place import device_at
from memplan.reference.model import Transformer
from memplan.reference.training import make_optimizer, training_step

BOUND = 1.0  # percent of a step

SIZES = {"num_layers": 5, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512, "vocab_size": 4000}


def main() -> int:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    model = load_preset("gpt2", {**SIZES, "attention_dropout": 0.0, "name": "small gpt2"})
    asked = TrainingRun(micro_batch_size=4, sequence_length=128)
    run = validate_run(model, asked, device_at(torch.device("cpu")))
    torch.manual_seed(0)
    module = Transformer(model, run.attention)
    optimizer, batch = make_optimizer(module, run), make_batch(model, run)

    def step() -> float:
        start = time.perf_counter()
        training_step(module, optimizer, batch, run, lambda phase: None)
        return time.perf_counter() - start

    for _ in range(5):
        step()
    bare, watched, calls, recorded = [], [], [], []
    start = time.perf_counter()
    with watch(model, run) as watching:
        begun = time.perf_counter() - start
        for number in range(1, steps + 1):
            if number > 2:
                bare.append(step())
            taken = step()
            start = time.perf_counter()
            watching.step()
            call = time.perf_counter() - start
            if number <= 2:
                recorded.append(taken + call)
            else:
                watched.append(taken + call)
                calls.append(call)
    print(f"{model.name}, {steps} steps, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"Python {platform.python_version()}")  # fmt: skip
    share = 100 * sum(calls) / sum(watched)
    print(f"{'':34}{'ms':>9}{'%':>9}")
    print(f"{'a bare step, median':34}{1e3 * median(bare):9.2f}")
    print(f"{'a watched step, median':34}{1e3 * median(watched):9.2f}{100 * (median(watched) / median(bare) - 1):9.2f}")
    print(f"{'watch.step() in it, mean':34}{1e3 * sum(calls) / len(calls):9.4f}{share:9.4f}")
    print(f"{'the longest of them':34}{1e3 * max(calls):9.4f}")
    print(f"{'the step before the recorded one':34}{1e3 * recorded[0]:9.2f}")
    print(f"{'the recorded step, with reading':34}{1e3 * recorded[1]:9.2f}")
    print(f"{'beginning, with the plan':34}{1e3 * begun:9.2f}")
    print(f"\nwatch.step() takes {share:.4f} % of a step, and less than {BOUND:g} % is asked for")
    return int(share >= BOUND or 1e3 * median(bare) < 50)


if __name__ == "__main__":
    sys.exit(main())
