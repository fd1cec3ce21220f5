"""Writing with a model: the prompt at once (prefill), then one token after another (decode)."""

from __future__ import annotations

import torch
from torch import Tensor

from memplan.config.generation import writes
from memplan.config.inference import InferenceRun, Sampling
from memplan.config.model import Transformer as Configuration
from memplan.reference.cache import Cache, make_cache
from memplan.reference.masks import attention_mask
from memplan.reference.model import Prompt, Transformer
from memplan.reference.training import Mark


class Writer:
    """A model that writes: what it keeps of the tokens so far, and where the next ones stand."""

    def __init__(self, model: Transformer, config: Configuration, run: InferenceRun) -> None:
        self.model = model
        self.config = config
        self.run = run
        self.cache: Cache | None = None
        self.real: Tensor | None = None  # [B, tokens so far], where there is padding
        self.places: Tensor | None = None  # of the next tokens, [B, 1], where padding makes them differ
        self.memory_mask: Tensor | None = None

    def new_cache(self, device: torch.device) -> Cache:
        """An empty one."""
        return make_cache(self.config, self.run, device)

    def prefill(self, prompt: Prompt) -> Tensor:
        """Logits of the prompt's last token, [B, V], or of every one, [B, S, V]."""
        self.cache = self.new_cache(prompt.tokens.device)
        self.real = prompt.real
        memory: Tensor | None = None
        if self.model.encoder is not None:
            memory = self.model.encoder(self.model.token_embedding(prompt.source), prompt.source_real)
            assert memory is not None
            self.memory_mask = attention_mask(memory, prompt.source_real, causal=False, kernel=self.model.kernel)
        places: Tensor | int = 0
        if prompt.real is not None:
            places = (prompt.real.cumsum(1) - 1).clamp(min=0)  # padding stands at 0 too, where nobody looks
            self.places = places[:, -1:] + 1
        return self.logits(prompt.tokens, places, memory, self.run.logits == "all")

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] after one token more of each sequence, [B, 1]."""
        assert self.cache is not None
        places: Tensor | int = self.cache.length
        if self.real is not None and self.places is not None:
            places = self.places
            self.places = places + 1
            self.real = torch.cat((self.real, self.real.new_ones(tokens.shape)), dim=1)
        return self.logits(tokens, places, None, False)

    def logits(self, tokens: Tensor, places: Tensor | int, memory: Tensor | None, every: bool) -> Tensor:
        """Logits after these tokens, [B, S]."""
        model = self.model
        assert model.decoder is not None
        x = model.decoder(model.token_embedding(tokens), self.real, None, memory, self.memory_mask, self.cache, places)
        logits: Tensor = model.head(x if every else x.select(1, -1), self.real)
        return logits


def choose(logits: Tensor, sampling: Sampling) -> Tensor:
    """The next token of each sequence, [B, 1], by the last logits: the likeliest one, or one drawn."""
    if logits.dim() == 3:
        logits = logits.select(1, -1)
    if sampling == "greedy":
        return logits.argmax(dim=-1, keepdim=True)
    shares = torch.softmax(logits.float(), dim=-1)
    return torch.multinomial(shares, 1)


def generate(writer: Writer, prompt: Prompt, mark: Mark) -> Tensor:
    """The new tokens [B, new_tokens]; the logits where none are asked for. `mark` is told where each phase begins.

    The model is in evaluation mode. What it has kept and written is alive when the last phase ends.
    """
    run = writer.run
    with torch.inference_mode():
        mark("prefill")
        if not writes(writer.config):
            logits: Tensor = writer.model(prompt)
            mark("end")
            return logits
        logits = writer.prefill(prompt)
        if not run.new_tokens:
            mark("end")
            return logits
        written = prompt.tokens.new_empty(run.micro_batch_size, run.new_tokens)
        tokens = choose(logits, run.sampling)
        del logits
        written[:, :1] = tokens
        for number in range(1, run.new_tokens):
            if number == 1:
                mark("decode")
            tokens = choose(writer.step(tokens), run.sampling)
            written[:, number : number + 1] = tokens
        mark("end")
        return written
