"""Writing with a model: the prompt at once (prefill), then one token after another (decode)."""

from __future__ import annotations

from collections.abc import Iterable

from memplan.config.generation import writes
from memplan.config.inference import InferenceRun, Sampling
from memplan.config.model import Transformer as Configuration
from memplan.ledger import SKIPPED
from memplan.ops.activation import softmax
from memplan.ops.elementwise import add, subtract, to
from memplan.ops.limits import clamp
from memplan.ops.routing import running_sum
from memplan.ops.sampling import argmax, multinomial
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import cat, select, slice_from
from memplan.transformer.cache import Cache, make_cache
from memplan.transformer.masks import attention_mask
from memplan.transformer.model import Prompt, Transformer
from memplan.transformer.sizes import Sizes


class Writer:
    """A model that writes: what it keeps of the tokens so far, and where the next ones stand."""

    def __init__(self, model: Transformer, config: Configuration, run: InferenceRun, sizes: Sizes) -> None:
        self.model = model
        self.config = config
        self.run = run
        self.sizes = sizes
        self.cache: Cache | None = None
        self.real: Tensor | None = None  # [B, tokens so far], where there is padding
        self.places: Tensor | None = None  # of the next tokens, [B, 1], where padding makes them differ
        self.memory_mask: Tensor | None = None

    def new_cache(self) -> Cache:
        """An empty one."""
        assert self.model.decoder is not None
        return make_cache(self.model.trace, self.config, self.run, self.sizes, self.model.decoder.layers)

    def prefill(self, prompt: Prompt) -> Tensor:
        """Logits of the prompt's last token, [B, V], or of every one, [B, S, V]."""
        self.cache = self.new_cache()
        self.real = prompt.real
        memory: Tensor | None = None
        if self.model.encoder is not None:
            memory = self.model.encoder(self.model.token_embedding(prompt.source), prompt.source_real)
            assert memory is not None
            self.memory_mask = attention_mask(memory, prompt.source_real, False, self.model.kernel)
        places: Tensor | int = 0
        if prompt.real is not None:
            places = clamp(subtract(running_sum(prompt.real, "int64"), 1), 0, None)
            self.places = add(slice_from(places, 1, places.shape[1] - 1), 1)
        return self.logits(prompt.tokens, places, memory, self.run.logits == "all")

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] after one token more of each sequence, [B, 1]."""
        assert self.cache is not None
        places: Tensor | int = self.cache.length
        if self.real is not None and self.places is not None:
            places = self.places
            self.places = add(places, 1)
            length = self.sizes.tokens(self.real.shape[1] + 1)
            self.real = cat((self.real, empty(tokens.trace, tokens.shape, "bool", "aten::new_ones")), 1, length)
        return self.logits(tokens, places, None, False)

    def logits(self, tokens: Tensor, places: Tensor | int, memory: Tensor | None, every: bool) -> Tensor:
        """Logits after these tokens, [B, S]."""
        model = self.model
        assert model.decoder is not None
        x = model.decoder(model.token_embedding(tokens), self.real, None, memory, self.memory_mask, self.cache, places)
        logits: Tensor = model.head(x if every else select(x, 1), self.real)
        return logits

    def jump(self, tokens: int, stride: int) -> None:
        """As if so many tokens had been written, one by one; of what is kept every `stride`-th state is made."""
        assert self.model.decoder is not None and self.cache is not None
        left = tokens
        while left:
            grown = min(stride, left)
            self.cache.jump(grown, self.model.decoder.layers)
            left -= grown
        if self.real is not None:
            length = self.sizes.tokens(self.real.shape[1] + tokens)
            self.real = empty(self.real.trace, (self.real.shape[0], length), "bool", "aten::cat")


def choose(logits: Tensor, sampling: Sampling) -> Tensor:
    """The next token of each sequence, [B, 1], by the last logits: the likeliest one, or one drawn."""
    if len(logits.shape) == 3:
        logits = select(logits, 1)
    if sampling == "greedy":
        return argmax(logits)
    shares = softmax(to(logits, "fp32"))
    return multinomial(shares)


def generate(writer: Writer, prompt: Prompt, steps: Iterable[int], stride: int) -> Tensor:
    """The new tokens [B, new_tokens]; the logits where none are asked for. Of the steps of decode those numbered
    `steps` are traced, in rising order, and of those between them what is kept of every `stride`-th one."""
    run, trace = writer.run, writer.model.trace
    trace.enter_phase("prefill")
    if not writes(writer.config):
        logits: Tensor = writer.model(prompt)
        trace.enter_phase("end")
        return logits
    logits = writer.prefill(prompt)
    if not run.new_tokens:
        trace.enter_phase("end")
        return logits
    written = empty(trace, (writer.sizes.batch, writer.sizes.new_tokens), "int64", "aten::new_empty")
    tokens = choose(logits, run.sampling)
    del logits
    done = 0
    for number in steps:
        if number > done + 1:
            trace.enter_phase(SKIPPED)
            writer.jump(number - done - 1, stride)
        if number > done + 1 or number == 1:
            trace.enter_phase("decode")
        tokens = choose(writer.step(tokens), run.sampling)
        done = number
    trace.enter_phase("end")
    return written
