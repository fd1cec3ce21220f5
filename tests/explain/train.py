"""Training loops as people write them, with what goes wrong in them. record.py runs them under PyTorch's own recording
of the allocator; the line numbers of this file are in the snapshots that it writes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.measure.materialise import build_model
from memplan.measure.run import make_batch
from memplan.reference.training import make_optimizer, training_step


def train(model: Any, batch: Any, optimizer: Any, run: TrainingRun, steps: int) -> None:
    for _ in range(steps):
        training_step(model, optimizer, batch, run, lambda phase: None)


def keep_features(model: Any, batch: Any, optimizer: Any, steps: int) -> None:
    """Two leaks: features of every step in a list, and logits for a later look."""
    features, seen = [], []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        logits = model(batch)
        loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), batch.labels.view(-1))
        features.append(logits.detach()[..., :512].clone())
        seen.append(logits.detach())
        del logits
        loss.backward()
        optimizer.step()


def vary_lengths(model: Any, optimizer: Any, config: Transformer, run: TrainingRun, lengths: list[int]) -> None:
    """Batches as long as their longest sequence."""
    from dataclasses import replace

    for length in lengths:
        one = replace(run, sequence_length=length)
        batch = make_batch(config, one, torch.device("cuda"))
        training_step(model, optimizer, batch, one, lambda phase: None)


def beside(model: Any, batch: Any, optimizer: Any, run: TrainingRun, steps: int) -> None:
    """A pool of one's own, and another stream that reads what this one has made."""
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        table = torch.empty(3_000_000, device="cuda")
    other = torch.cuda.Stream()
    for _ in range(steps):
        training_step(model, optimizer, batch, run, lambda phase: None)
        copied = torch.empty(1_500_000, device="cuda")
        with torch.cuda.stream(other):
            doubled = copied * 2
        copied.record_stream(other)
        del copied, doubled
    del table


def train_library(config: Any, steps: int) -> Any:
    """A model of the library transformers, in the loop of its documentation."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(**config)).to("cuda")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        tokens = torch.randint(config["vocab_size"], (4, 128), generator=generator).to("cuda")
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def prepare(config: Transformer, run: TrainingRun) -> tuple[Any, Any, Any]:
    device = torch.device("cuda")
    model = build_model(config, run, device)
    return model, make_optimizer(model, run), make_batch(config, run, device)
