"""Naive and flash attention are the same function; masks hide what they should and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from memplan.reference.attention import soft_cap  # noqa: E402
from memplan.reference.model import Batch, Transformer  # noqa: E402

from .small import (  # noqa: E402
    BATCH,
    LENGTH,
    MODELS,
    REAL,
    SOURCE,
    SOURCE_REAL,
    build,
    configuration,
    make_batch,
    with_token,
)

KERNELS = ("naive", "flash")
EXACT = {"rtol": 0.0, "atol": 1e-6}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def logits_and_gradients(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and the gradients of a weighted sum of them."""
    logits = model(batch)
    torch.manual_seed(7)
    (logits * torch.randn_like(logits)).sum().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def logits_of(model: Transformer, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float64, 1e-9)], ids=["fp32", "fp64"])
@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", MODELS)
def test_naive_and_flash_agree(name: str, padding: bool, dtype: torch.dtype, tolerance: float) -> None:
    """In every logit and in the gradient of every parameter; in fp64 but for the last digits."""
    config = configuration(**MODELS[name])
    batch = make_batch(config, padding)
    logits, gradients = logits_and_gradients(build(config, "naive").to(dtype), batch)
    flash_logits, flash_gradients = logits_and_gradients(build(config, "flash").to(dtype), batch)
    torch.testing.assert_close(flash_logits, logits, rtol=0, atol=tolerance / 1000)
    assert gradients.keys() == flash_gradients.keys()
    for parameter, gradient in gradients.items():
        difference, scale = (flash_gradients[parameter] - gradient).abs().max(), gradient.abs().max()
        if parameter.endswith("key.bias") and (config.positions != "rotary" or "cross_attention" in parameter):
            # It moves all scores of a query alike, which softmax does not see: 0, and what is left is rounding.
            weight = gradients[parameter.replace("bias", "weight")].abs().max()
            assert max(scale, difference) < tolerance * weight, parameter
        else:
            assert scale > 0, parameter
            assert difference < tolerance * scale, parameter


@pytest.mark.parametrize("scale_attention", [True, False])
def test_both_kernels_scale_alike(scale_attention: bool) -> None:
    config = configuration(**MODELS["decoder"], scale_attention=scale_attention)
    batch = make_batch(config)
    naive, flash = (logits_of(build(config, kernel), batch) for kernel in ("naive", "flash"))
    torch.testing.assert_close(flash, naive, **CLOSE)
    other = configuration(**MODELS["decoder"], scale_attention=not scale_attention)
    assert (logits_of(build(other), batch) - naive).abs().max() > 1e-3


def test_a_soft_cap_bends_large_scores_and_leaves_small_ones() -> None:
    x = torch.linspace(-20, 20, 41)
    capped = soft_cap(x, 5.0)
    assert (capped.abs() < 5).all()
    assert (capped.diff() > 0).all()
    torch.testing.assert_close(soft_cap(x, 1e4), x, rtol=1e-4, atol=1e-4)
    loose, tight, none = (
        logits_of(
            build(configuration(**MODELS["decoder"], attention_soft_cap=cap)),
            make_batch(configuration(**MODELS["decoder"])),
        )
        for cap in (1e4, 0.01, 0)
    )
    torch.testing.assert_close(loose, none, **CLOSE)
    assert (tight - none).abs().max() > 1e-3


class Operations(TorchDispatchMode):
    """The operations that really run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", MODELS)
def test_flash_runs_the_flash_kernel_and_naive_does_not(name: str, padding: bool) -> None:
    config = configuration(**MODELS[name])
    for kernel in KERNELS:
        with Operations() as seen:
            logits_and_gradients(build(config, kernel), make_batch(config, padding))
        attention = {name for name in seen.names if "dot_product" in name}
        forward = "aten::_scaled_dot_product_flash_attention_for_cpu"
        assert attention == ({forward, forward + "_backward"} if kernel == "flash" else set())


def test_flash_fails_where_the_kernel_cannot_run() -> None:
    """PyTorch's CPU kernel has no dropout: an error, and not quietly another kernel."""
    config = configuration(**MODELS["decoder"], attention_dropout=0.1)
    model, batch = build(config, "flash"), make_batch(config)
    with pytest.raises(RuntimeError, match="No available kernel"), pytest.warns(UserWarning):
        model(batch)
    model.eval()
    torch.testing.assert_close(logits_of(model, batch), logits_of(build(config).eval(), batch), **CLOSE)


DECODERS = [name for name in MODELS if "decoder" in name and "latent" not in name]  # latent attention is rotary alone
POSITIONS = [(kernel, positions) for kernel in KERNELS for positions in ("learned", "sinusoidal", "rotary")]


@pytest.mark.parametrize(("kernel", "positions"), [*POSITIONS, ("naive", "relative")])
@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_does_not_see_the_future(name: str, padding: bool, kernel: str, positions: str) -> None:
    max_positions = 40 if positions == "learned" else 0
    config = configuration(**{**MODELS[name], "positions": positions, "max_positions": max_positions})
    model, batch = build(config, kernel), make_batch(config, padding)
    before = logits_of(model, batch)
    for position in (LENGTH - 1, LENGTH // 2, 1):
        changed = replace(batch, tokens=with_token(batch.tokens, 0, position, config.vocab_size))
        after = logits_of(model, changed)
        torch.testing.assert_close(after[0, :position], before[0, :position], **EXACT)
        torch.testing.assert_close(after[1:], before[1:], **EXACT)
        differs = (after[0, position:] - before[0, position:]).abs().amax(dim=-1)
        assert (differs > 1e-5).all(), "the token itself and every later one see the change"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["encoder", "bert-like encoder"])
def test_an_encoder_sees_everything(name: str, kernel: str) -> None:
    config = configuration(**MODELS[name])
    model, batch = build(config, kernel), make_batch(config)
    before = logits_of(model, batch)
    for position in range(LENGTH):
        after = logits_of(model, replace(batch, tokens=with_token(batch.tokens, 1, position, config.vocab_size)))
        assert ((after[1] - before[1]).abs().amax(dim=-1) > 1e-5).all()
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **EXACT)


@pytest.mark.parametrize("window", [1, 2, 5, LENGTH, LENGTH + 7])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_window_is_what_a_query_sees(kernel: str, architecture: str, window: int) -> None:
    """One layer looks back at `window` tokens, its own included; an encoder as far ahead."""
    config = configuration(architecture=architecture, sliding_window=window, num_layers=1)
    model, batch = build(config, kernel), make_batch(config)
    before = logits_of(model, batch)
    for position in range(LENGTH):
        after = logits_of(model, replace(batch, tokens=with_token(batch.tokens, 1, position, config.vocab_size)))
        differs = (after[1] - before[1]).abs().amax(dim=-1) > 1e-6
        ahead = torch.arange(LENGTH) - position
        sees = (ahead if architecture == "decoder" else ahead.abs()) < window
        assert torch.equal(differs, sees & (ahead >= 0) if architecture == "decoder" else sees)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", ["encoder-decoder", "llama-like encoder-decoder"])
def test_cross_attention_sees_the_whole_source_and_no_padding(name: str, padding: bool, kernel: str) -> None:
    config = configuration(**MODELS[name])
    model, batch = build(config, kernel), make_batch(config, padding)
    before = logits_of(model, batch)
    assert batch.source is not None
    for sequence in range(BATCH):
        for position in range(SOURCE):
            source = with_token(batch.source, sequence, position, config.vocab_size)
            differs = (logits_of(model, replace(batch, source=source)) - before).abs().amax(dim=-1)  # [B, S]
            others = [other for other in range(BATCH) if other != sequence]
            assert (differs[others] <= 1e-6).all()
            if padding and position >= SOURCE_REAL[sequence]:
                assert (differs[sequence] <= 1e-6).all()
            else:
                assert (differs[sequence] > 1e-6).all(), "every target position looks at every real source token"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing_for_real_tokens(name: str, kernel: str) -> None:
    config = configuration(**MODELS[name])
    model, batch = build(config, kernel), make_batch(config, padding=True)
    before = logits_of(model, batch)
    for sequence, real in enumerate(REAL):
        for position in range(real, LENGTH):
            changed = replace(batch, tokens=with_token(batch.tokens, sequence, position, config.vocab_size))
            after = logits_of(model, changed)
            torch.testing.assert_close(after[sequence, :real], before[sequence, :real], **EXACT)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MODELS)
def test_a_padded_sequence_is_the_sequence_alone(name: str, kernel: str) -> None:
    """Real positions have the logits that the sequence has without its padding."""
    config = configuration(**MODELS[name])
    model, batch = build(config, kernel), make_batch(config, padding=True)
    padded = logits_of(model, batch)
    for sequence, real in enumerate(REAL):
        row = slice(sequence, sequence + 1)
        source = None if batch.source is None else batch.source[row, : SOURCE_REAL[sequence]]
        types = None if batch.token_types is None else batch.token_types[row, :real]
        alone = Batch(batch.tokens[row, :real], batch.labels[row, :real], token_types=types, source=source)
        torch.testing.assert_close(logits_of(model, alone)[0], padded[sequence, :real], **CLOSE)


def test_each_key_value_head_serves_its_group() -> None:
    """Grouped-query attention is multi-head attention with each key-value head written out once per query head."""
    grouped = configuration(**MODELS["decoder"], num_key_value_heads=2)
    whole = configuration(**MODELS["decoder"])
    few, many = build(grouped), build(whole)
    group = grouped.num_attention_heads // grouped.num_key_value_heads

    def spread(weight: Tensor) -> Tensor:
        heads = weight.unflatten(0, (grouped.num_key_value_heads, grouped.head_dim))
        return heads.repeat_interleave(group, dim=0).flatten(0, 1)

    state = few.state_dict()
    for name, weight in state.items():
        if ".attention.key." in name or ".attention.value." in name:
            state[name] = spread(weight)
    many.load_state_dict(state)
    batch = make_batch(whole)
    torch.testing.assert_close(logits_of(many, batch), logits_of(few, batch), **CLOSE)
