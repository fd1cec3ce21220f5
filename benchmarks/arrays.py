"""A million combinations priced as arrays, beside a hundred priced one by one in the same run.

python benchmarks/arrays.py [PRESET]
"""

from __future__ import annotations

import random
import sys
import time

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.estimate import estimate
from memplan.sweep.arrays import price

BATCHES = range(1, 501)
LENGTHS = range(8, 4008, 8)
ONE_BY_ONE = 100


def main(preset: str) -> None:
    """Print seconds of processor time, and how often both agree."""
    model = load_model(preset, {"attention_dropout": 0.0} | ({"max_positions": 4000} if "gpt2" in preset else {}))
    cpu = load_device("cpu")
    begin = time.process_time()
    found = {}
    for attention in ("naive", "flash"):
        for recompute in ("none", "full"):
            run = TrainingRun(sequence_length=1, attention=attention, recompute=recompute)  # type: ignore[arg-type]
            found[attention, recompute] = price(
                model, run, cpu, {"micro_batch_size": BATCHES, "sequence_length": LENGTHS}
            )
    arrays = time.process_time() - begin
    count = sum(each.bytes.size for each in found.values())
    print(f"{count:,} combinations as arrays: {arrays:.2f} s, {sum(each.regions for each in found.values())} traces")
    draw = random.Random(0)
    begin, same = time.process_time(), 0
    for _ in range(ONE_BY_ONE):
        (attention, recompute), prices = draw.choice(list(found.items()))
        row, column = draw.randrange(len(BATCHES)), draw.randrange(len(LENGTHS))
        run = TrainingRun(
            micro_batch_size=BATCHES[row],
            sequence_length=LENGTHS[column],
            attention=attention,  # type: ignore[arg-type]
            recompute=recompute,  # type: ignore[arg-type]
        )
        same += estimate(model, run, cpu).tiers.allocated_bytes == prices.bytes[row, column]
    single = time.process_time() - begin
    print(f"{ONE_BY_ONE} one by one: {single:.2f} s; the same bytes in {same} of {ONE_BY_ONE}")
    whole = single / ONE_BY_ONE * count
    print(f"a million one by one would take {whole:,.0f} s: {whole / arrays:,.0f} times as long")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "gpt2")
