"""The suite `boundary`: the largest micro-batch that is predicted to fit a card, and one more, both really run.

The first has to fit, the second has to run out. Each sequence takes a percent or more of an 80 GB card, so that a
prediction that is a percent off is off by one. A pair runs together, the quickest pairs first: an interrupted suite
has whole pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from memplan.config.device import Device
from memplan.config.load import load_preset
from memplan.config.model import Transformer
from memplan.config.run import Attention, Precision
from memplan.measure.effort import seconds
from memplan.measure.prediction import DEFAULT, Prediction, Rules, predict
from memplan.measure.suites.case import Case, Change, Task, lengths, offered
from memplan.measure.suites.families import BERT, GPT, LLAMA, ORIGINAL, T5

MOST = 2**20
"""Micro-batches are searched up to here."""

_SOME = 5  # sequences that show what one more takes

_FUSED: Change = {"optimizer_implementation": "fused"}
_FOREACH: Change = {"optimizer_implementation": "foreach"}
_SGD: Change = {"optimizer": "sgd", "momentum": 0.9, "optimizer_implementation": "foreach"}

_ROWS: tuple[tuple[str, Transformer | str, Change, int, Attention, Precision, Change], ...] = (
    # what it shows, base or preset, changes of the model, tokens, attention, precision, the rest of the run
    ("all scores", GPT, {}, 4096, "naive", "bf16", _FOREACH),
    ("all scores", GPT, {}, 4096, "naive", "fp32", {}),
    ("all scores, dropout", GPT, {"attention_dropout": 0.1}, 4096, "naive", "bf16-mixed", {}),
    ("gpt2", "gpt2", {}, 1024, "flash", "bf16-mixed", _FUSED),
    ("gpt2-medium", "gpt2-medium", {}, 1024, "efficient", "bf16", _FUSED),
    ("all scores, recompute", GPT, {}, 4096, "naive", "bf16-mixed", {"recompute": "full"}),
    ("gpt2-xl", "gpt2-xl", {}, 1024, "flash", "bf16-mixed", _FUSED),
    ("bert-large", "bert-large", {}, 512, "efficient", "bf16-mixed", _FUSED),
    ("bert-like, padding", BERT, {}, 1024, "naive", "fp32", {"padding": True}),
    ("original-transformer-like", ORIGINAL, {}, 4096, "efficient", "fp16-mixed", _FUSED),
    ("t5-like", T5, {}, 2048, "naive", "bf16", _FUSED),
    ("t5-large", "t5-large", {}, 512, "naive", "bf16-mixed", _FOREACH),
    ("wide vocabulary", LLAMA, {"vocab_size": 256_000, "num_layers": 2}, 1024, "efficient", "fp32", _FUSED),
    ("long and deep", LLAMA, {"num_layers": 16}, 8192, "flash", "bf16", _FUSED),
    ("llama-3.2-1b", "llama-3.2-1b", {}, 2048, "flash", "bf16-mixed", _FUSED),
    ("llama-3.2-1b", "llama-3.2-1b", {}, 1024, "efficient", "fp16-mixed", _FOREACH),
    ("llama-2-7b", "llama-2-7b", {}, 1024, "flash", "bf16", _SGD),
)


def largest(fits: Callable[[int], bool], most: int = MOST, start: int = 1) -> int:
    """The largest number from 1 to `most` that `fits`, which holds up to some number and never beyond; 0 if none does.

    From `start` on it steps wider and wider towards the answer, then halves what lies between: the nearer the start,
    the fewer questions.
    """
    start = min(max(start, 1), most)
    fit, too_many, step = 0, most + 1, 1
    if fits(start):
        fit = start
        while fit + step < too_many:
            if not fits(fit + step):
                too_many = fit + step
                break
            fit, step = fit + step, 2 * step
    else:
        too_many = start
        while too_many - step > fit:
            if fits(too_many - step):
                fit = too_many - step
                break
            too_many, step = too_many - step, 2 * step
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        if fits(middle):
            fit = middle
        else:
            too_many = middle
    return fit


def largest_micro_batch(case: Case, device: Device, rules: Rules = DEFAULT) -> int:
    """The largest micro-batch of the case that is predicted to fit the device; 0 where not even one sequence is."""

    def prediction(size: int) -> Prediction:
        return predict(case.model, replace(case.run, micro_batch_size=size), device, rules)

    few, more = prediction(1).needed_bytes, prediction(_SOME).needed_bytes
    room = device.available_bytes - few
    start = 1 + room * (_SOME - 1) // max(more - few, 1)  # nearly every byte beyond the first sequence is a sequence's
    return largest(lambda size: prediction(size).fits(device), MOST, start)


def tasks(device: Device, rules: Rules = DEFAULT) -> Iterator[Task]:
    """For each configuration that the device takes two tasks. A model that does not fit at all has no boundary."""
    pairs = []
    for name, base, model, tokens, attention, precision, rest in _ROWS:
        chosen = load_preset(base) if isinstance(base, str) else base
        run: Change = {**lengths(chosen, tokens), "attention": attention, "precision": precision, **rest}
        for case in offered(chosen, name, model, run, device):
            size = largest_micro_batch(case, device, rules)
            if 0 < size < MOST:
                pairs.append([Case(case.model, replace(case.run, micro_batch_size=size + more)) for more in (0, 1)])
    for pair in sorted(pairs, key=lambda pair: seconds(pair[0].model, pair[0].run, 0)):
        yield from map(Task, pair)
