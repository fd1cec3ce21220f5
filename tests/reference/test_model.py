"""The whole model: heads, pooling, tied weights, recomputation, the training step."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from memplan.config import presets  # noqa: E402
from memplan.config.devices import load_device  # noqa: E402
from memplan.config.load import load_model  # noqa: E402
from memplan.config.parameters import parameter_count  # noqa: E402
from memplan.config.run import TrainingRun  # noqa: E402
from memplan.config.validate import validate_model  # noqa: E402
from memplan.estimate import estimate  # noqa: E402
from memplan.reference.model import Transformer  # noqa: E402
from memplan.reference.training import compute_loss, make_optimizer, training_step  # noqa: E402

from .small import BATCH, LENGTH, MODELS, REAL, build, configuration, make_batch  # noqa: E402


def silent(phase: str) -> None:
    """A mark nobody reads."""


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_has_its_published_parameters(name: str) -> None:
    """In PyTorch, in the estimate's ledger, and in closed form."""
    config = validate_model(load_model(name))
    with torch.device("meta"):
        model = Transformer(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    lengths = {"sequence_length": 2}
    if config.architecture == "encoder-decoder":
        lengths = {"source_length": 2, "target_length": 2}
    expected = estimate(config, TrainingRun(attention="naive", **lengths), load_device("cpu"))
    assert count == parameter_count(config) == expected.totals.parameter_count
    assert expected.totals.parameters_bytes == 4 * count


@pytest.mark.parametrize("head", ["language_modelling", "token_classification", "classification"])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_logits_have_the_shape_of_the_head(architecture: str, head: str) -> None:
    config = configuration(architecture=architecture, head=head, num_labels=5)
    logits = build(config)(make_batch(config))
    expected = {
        "language_modelling": (BATCH, LENGTH, config.vocab_size),
        "token_classification": (BATCH, LENGTH, 5),
        "classification": (BATCH, 5),
    }
    assert logits.shape == expected[head]


def hidden_and_pooled(config: Any, padding: bool) -> tuple[Tensor, Tensor]:
    """What the stack hands to the head, and what the head makes of it before its last layer."""
    model = build(config)
    seen: dict[str, Tensor] = {}
    stack = model.encoder or model.decoder
    assert stack is not None
    stack.register_forward_hook(lambda module, inputs, output: seen.update(hidden=output.detach()))
    last = model.head.classifier
    last.register_forward_pre_hook(lambda module, inputs: seen.update(pooled=inputs[0].detach()))
    model(make_batch(config, padding))
    return seen["hidden"], seen["pooled"]


@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_pooling(architecture: str, padding: bool) -> None:
    for pooling in ("first", "mean"):
        config = configuration(architecture=architecture, head="classification", pooling=pooling)
        hidden, pooled = hidden_and_pooled(config, padding)
        assert hidden.shape == (BATCH, LENGTH, config.hidden_size)
        if pooling == "first":
            expected = hidden[:, 0]
        else:
            lengths = REAL if padding else (LENGTH,) * BATCH
            expected = torch.stack([row[:real].mean(dim=0) for row, real in zip(hidden, lengths, strict=True)])
        torch.testing.assert_close(pooled, expected)


def test_the_last_position_is_pooled() -> None:
    hidden, pooled = hidden_and_pooled(
        configuration(architecture="decoder", head="classification", pooling="last"), padding=False
    )
    torch.testing.assert_close(pooled, hidden[:, -1])


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal", "relative"])
def test_a_class_token_stands_in_front(positions: str) -> None:
    """One more position, trained, and the head sees the input through it alone."""
    config = configuration(
        architecture="encoder", head="classification", pooling="class_token", positions=positions, num_labels=3,
        max_positions=LENGTH + 1 if positions == "learned" else 0,
    )  # fmt: skip
    hidden, pooled = hidden_and_pooled(config, padding=False)
    assert hidden.shape == (BATCH, 1 + LENGTH, config.hidden_size)
    torch.testing.assert_close(pooled, hidden[:, 0])
    model, batch = build(config), make_batch(config, padding=True)
    model(batch).sum().backward()
    assert model.encoder is not None
    gradient = model.encoder.input.class_token.grad
    assert gradient.shape == (1, 1, config.hidden_size)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("pooling", ["class_token", "first", "mean"])
@pytest.mark.parametrize("kernel", ["naive", "flash"])
def test_a_classification_does_not_see_padding(pooling: str, kernel: str) -> None:
    config = configuration(architecture="encoder", head="classification", pooling=pooling, num_labels=3)
    model, batch = build(config, kernel), make_batch(config, padding=True)
    before = model(batch)
    batch.tokens[~batch.real] = 0
    torch.testing.assert_close(model(batch), before, rtol=0, atol=1e-6)


def test_the_pooler_is_dense_and_tanh() -> None:
    config = configuration(architecture="encoder", head="classification", pooling="first", pooler=True)
    model = build(config)
    hidden, pooled = hidden_and_pooled(config, padding=False)
    torch.testing.assert_close(pooled, torch.tanh(model.head.pooler(hidden[:, 0])))


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
@pytest.mark.parametrize("name", [*MODELS, "t5-like"])
def test_recomputation_changes_no_number(name: str, precision: str) -> None:
    """With dropout, whose random numbers are drawn again from the same state."""
    changes = MODELS.get(name, {"architecture": "encoder-decoder", "positions": "relative", "attention_dropout": 0.2})
    config = configuration(**{**changes, "residual_dropout": 0.3, "embedding_dropout": 0.1})
    run = TrainingRun(precision=precision)  # type: ignore[arg-type]
    batch = make_batch(config, padding=True)
    results = []
    for recompute in ("none", "full"):
        model = build(config, recompute=recompute)  # type: ignore[arg-type]
        torch.manual_seed(3)
        loss = compute_loss(model, batch, run, silent)
        loss.backward()
        results.append((loss.detach(), gradients(model), torch.rand(1)))
    (loss, expected, random), (other_loss, seen, other_random) = results
    assert torch.equal(loss, other_loss)
    assert torch.equal(random, other_random), "the generator goes on as if nothing had been drawn twice"
    for parameter, gradient in expected.items():
        assert torch.equal(gradient, seen[parameter]), parameter


def test_tied_embeddings_share_their_memory_and_add_their_gradients() -> None:
    for name in ("decoder", "encoder-decoder", "bert-like encoder"):
        tied = build(configuration(**{**MODELS[name], "tie_embeddings": True}))
        untied = build(configuration(**MODELS[name]))
        assert tied.head.projection.weight is tied.token_embedding.weight
        assert untied.head.projection.weight.data_ptr() != untied.token_embedding.weight.data_ptr()
        untied.load_state_dict(tied.state_dict())
        batch = make_batch(configuration(**MODELS[name]))
        for model in (tied, untied):
            compute_loss(model, batch, TrainingRun(), silent).backward()
        together = untied.token_embedding.weight.grad + untied.head.projection.weight.grad
        torch.testing.assert_close(tied.token_embedding.weight.grad, together)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_norm_placement(placement: str) -> None:
    """A post-norm stack ends in its last layer's norm, a pre-norm stack in one of its own."""
    model = build(configuration(architecture="decoder", norm_placement=placement))
    batch = make_batch(configuration(architecture="decoder"))
    assert model.decoder is not None
    assert (model.decoder.norm is None) == (placement == "post")
    last = model.decoder.norm or model.decoder.layers[-1].feedforward_norm
    hidden: list[Tensor] = []
    model.decoder.register_forward_hook(lambda module, inputs, output: hidden.append(output))
    model(batch)
    normalised = (hidden[0] - last.bias) / last.weight
    torch.testing.assert_close(normalised.mean(dim=-1), torch.zeros(BATCH, LENGTH), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised.var(dim=-1, correction=0), torch.ones(BATCH, LENGTH), rtol=0, atol=1e-2)


def test_the_loss_is_the_mean_cross_entropy_of_real_labels() -> None:
    config = configuration(architecture="decoder")
    model, batch = build(config), make_batch(config, padding=True)
    batch.labels[~batch.real] = -100
    logits = model(batch)
    expected = -torch.log_softmax(logits, dim=-1)[batch.real].gather(1, batch.labels[batch.real].unsqueeze(1)).mean()
    marks: list[str] = []
    loss = compute_loss(model, batch, TrainingRun(), marks.append)
    torch.testing.assert_close(loss, expected)
    assert marks == ["forward", "loss"]
    assert torch.equal(F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()), loss)


def test_accumulated_micro_batches_are_one_batch() -> None:
    """Gradients of two equal micro-batches, each half as heavy, are those of one."""
    config = configuration(architecture="decoder")
    batch = make_batch(config)
    seen = []
    for steps in (1, 2):
        model = build(config)
        run = TrainingRun(gradient_accumulation_steps=steps, optimizer="sgd")
        marks: list[str] = []
        training_step(model, make_optimizer(model, run), batch, run, marks.append)
        assert marks == ["zero_grad", *["forward", "loss", "backward"] * steps, "optimizer_step", "end"]
        seen.append(gradients(model))
    for name, gradient in seen[0].items():
        torch.testing.assert_close(seen[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", ["for-loop", "foreach", "fused"])
@pytest.mark.parametrize(
    ("optimizer", "momentum", "kind"),
    [("adamw", 0.0, "AdamW"), ("adam", 0.0, "Adam"), ("sgd", 0.0, "SGD"), ("sgd", 0.9, "SGD")],
)
def test_every_optimizer_lowers_the_loss(optimizer: str, momentum: float, kind: str, implementation: str) -> None:
    config = configuration(architecture="decoder")
    model, batch = build(config), make_batch(config)
    run = TrainingRun(
        optimizer=optimizer, momentum=momentum, optimizer_implementation=implementation  # type: ignore[arg-type]
    )  # fmt: skip
    steps = make_optimizer(model, run)
    assert type(steps).__name__ == kind
    assert (steps.defaults["foreach"], steps.defaults["fused"]) == (
        implementation == "foreach",
        implementation == "fused",
    )
    assert steps.defaults.get("momentum", momentum) == momentum
    losses = [training_step(model, steps, batch, run, silent).item() for _ in range(8)]
    assert losses[-1] < losses[0]
