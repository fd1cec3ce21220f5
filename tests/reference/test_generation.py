"""What a model writes with a cache is what it writes without one, whatever the cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.config.devices import load_device  # noqa: E402
from memplan.config.inference import InferenceRun  # noqa: E402
from memplan.config.model import Transformer as Configuration  # noqa: E402
from memplan.config.validate import validate_run  # noqa: E402
from memplan.reference.generation import Writer, choose, generate  # noqa: E402
from memplan.reference.model import Batch, Prompt, Transformer  # noqa: E402

from .small import LATENT, LLAMA, build, configuration, mask  # noqa: E402

BATCH, PROMPT, NEW = 3, 7, 9
REAL = (7, 4, 1)
SOURCE, SOURCE_REAL = 6, (2, 6, 3)

MODELS: dict[str, dict[str, Any]] = {
    "rotary": {"architecture": "decoder", **LLAMA},
    "learned": {"architecture": "decoder", "positions": "learned", "max_positions": 20},
    "sinusoidal": {"architecture": "decoder", "positions": "sinusoidal", "scale_embeddings": True},
    "relative": {"architecture": "decoder", "positions": "relative", "relative_buckets": 8},
    "alibi": {"architecture": "decoder", "positions": "alibi"},
    "latent": {"architecture": "decoder", **LATENT},
    "parallel": {"architecture": "decoder", "parallel_blocks": True, "num_key_value_heads": 1},
    "window": {"architecture": "decoder", "sliding_window": 10},
    "small window": {"architecture": "decoder", "sliding_window": 3, "positions": "alibi"},
    "window of one": {"architecture": "decoder", "sliding_window": 1},
    "encoder-decoder": {"architecture": "encoder-decoder", "num_encoder_layers": 3, **LLAMA},
    "t5-like": {"architecture": "encoder-decoder", "positions": "relative", "scale_attention": False},
}
CACHES: tuple[dict[str, Any], ...] = (
    {"cache": "dynamic"},
    {"cache": "static"},
    {"cache": "paged", "cache_block_size": 4},
)


def make_prompt(config: Configuration, padding: bool) -> Prompt:
    torch.manual_seed(5)
    prompt = Prompt(torch.randint(0, config.vocab_size, (BATCH, PROMPT)))
    if padding:
        prompt.real = mask(REAL, PROMPT).flip(1)
    if config.architecture == "encoder-decoder":
        prompt.source = torch.randint(0, config.vocab_size, (BATCH, SOURCE))
        prompt.source_real = mask(SOURCE_REAL, SOURCE) if padding else None
    return prompt


def make_run(config: Configuration, **changes: Any) -> InferenceRun:
    lengths = {"source_length": SOURCE} if config.architecture == "encoder-decoder" else {}
    run = InferenceRun(micro_batch_size=BATCH, prompt_length=PROMPT, new_tokens=NEW, **lengths, **changes)
    return validate_run(config, run, load_device("cpu"))


def logits_with(model: Transformer, config: Configuration, prompt: Prompt, run: InferenceRun) -> tuple[Any, Any]:
    """Greedy tokens [B, N], and the logits by which each was chosen, [B, N, V]."""
    seen = []
    writer = Writer(model, config, run)
    with torch.inference_mode():
        logits = writer.prefill(prompt)
        tokens = [choose(logits, "greedy")]
        seen.append(logits)
        for _ in range(NEW - 1):
            seen.append(writer.step(tokens[-1]))
            tokens.append(choose(seen[-1], "greedy"))
    return torch.cat(tokens, 1), torch.stack(seen, 1)


def logits_without(model: Transformer, prompt: Prompt, tokens: Any) -> Any:
    """The same logits from one forward pass over prompt and written tokens, each sequence by itself: without padding
    and without a cache."""
    found = []
    for row in range(BATCH):
        real = prompt.tokens[row] if prompt.real is None else prompt.tokens[row][prompt.real[row]]
        whole = torch.cat((real, tokens[row, :-1])).unsqueeze(0)
        batch = Batch(whole, whole)
        if prompt.source is not None:
            kept = slice(None) if prompt.source_real is None else prompt.source_real[row]
            batch.source = prompt.source[row][kept].unsqueeze(0)
        with torch.inference_mode():
            found.append(model(batch)[0, len(real) - 1 :])
    return torch.stack(found)


def usable(config: Configuration, changes: dict[str, Any], attention: str) -> bool:
    if changes["cache"] == "paged" and config.sliding_window:
        return False
    return attention == "naive" or config.positions != "relative"


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("attention", ["naive", "flash"])
@pytest.mark.parametrize("changes", CACHES, ids=lambda changes: changes["cache"])
@pytest.mark.parametrize("name", MODELS)
def test_a_cache_changes_no_number(name: str, changes: dict[str, Any], attention: Any, padding: bool) -> None:
    config = configuration(**MODELS[name])
    if not usable(config, changes, attention):
        pytest.skip("refused by name")
    model = build(config, attention).eval()
    prompt = make_prompt(config, padding)
    tokens, logits = logits_with(model, config, prompt, make_run(config, attention=attention, **changes))
    torch.testing.assert_close(logits, logits_without(model, prompt, tokens), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", CACHES, ids=lambda changes: changes["cache"])
@pytest.mark.parametrize(("dtype", "far"), [("bf16", 0.05), ("fp16", 0.01), ("int8", 0.05), ("fp8", 0.3)])
@pytest.mark.parametrize("name", ["rotary", "latent", "encoder-decoder"])
def test_a_narrow_cache_is_near(name: str, dtype: Any, far: float, changes: dict[str, Any]) -> None:
    """By the share of the logits' own spread that they are off; and off they are."""
    config = configuration(**MODELS[name])
    model = build(config).eval()
    prompt = make_prompt(config, True)
    tokens, logits = logits_with(model, config, prompt, make_run(config, cache_dtype=dtype, **changes))
    expected = logits_without(model, prompt, tokens)
    off = (logits - expected).std() / expected.std()
    assert 0 < float(off) < far


def test_generate_returns_what_the_steps_choose() -> None:
    config = configuration(**MODELS["rotary"])
    model, prompt = build(config).eval(), make_prompt(config, True)
    run = make_run(config, attention="naive")
    phases: list[str] = []
    written = generate(Writer(model, config, run), prompt, phases.append)
    assert torch.equal(written, logits_with(model, config, prompt, run)[0])
    assert phases == ["prefill", "decode", "end"]


@pytest.mark.parametrize("logits", ["last", "all"])
def test_prefill_alone_gives_the_logits(logits: Any) -> None:
    config = configuration(**MODELS["rotary"])
    model, prompt = build(config).eval(), make_prompt(config, False)
    run = replace(make_run(config, attention="naive"), new_tokens=0, logits=logits)
    phases: list[str] = []
    found = generate(Writer(model, config, run), prompt, phases.append)
    with torch.inference_mode():
        whole = model(Batch(prompt.tokens, prompt.tokens))
    torch.testing.assert_close(found, whole if logits == "all" else whole[:, -1])
    assert phases == ["prefill", "end"]


def test_sampled_tokens_follow_their_shares() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, -torch.inf]]).expand(4000, 3)
    counts = choose(logits, "sampled").flatten().bincount(minlength=3) / 4000
    torch.testing.assert_close(counts, torch.softmax(logits[0], -1), atol=0.03, rtol=0)
