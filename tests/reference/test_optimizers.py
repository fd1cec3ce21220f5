"""What the optimizers of the reference wing do to the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from memplan.config.run import TrainingRun  # noqa: E402
from memplan.reference.lion import Lion  # noqa: E402
from memplan.reference.masters import MainGradients, MasterWeights  # noqa: E402
from memplan.reference.optimizers import InBackward, Together  # noqa: E402
from memplan.reference.training import make_optimizer, update  # noqa: E402

RUN = TrainingRun(sequence_length=4, precision="bf16")


class Small(nn.Module):
    """An embedding, two numbered layers, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11)

    def forward(self, tokens: Any) -> Any:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(self.norm(x)).float().logsumexp(-1).mean()


def model(dtype: Any = torch.float32) -> Small:
    torch.manual_seed(0)
    return Small().to(dtype)


def train(module: Small, run: TrainingRun, steps: int = 3) -> Any:
    """Some steps, and the optimizer."""
    optimizer = make_optimizer(module, run)
    tokens = torch.arange(8) % 11
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(run.gradient_accumulation_steps):
            (module(tokens) / run.gradient_accumulation_steps).backward()
        update(optimizer, run, None)
    return optimizer


def weights(module: Small) -> list[Any]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_lion_goes_by_signs() -> None:
    """https://arxiv.org/abs/2302.06675, algorithm 2, written out."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = Lion([parameter], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    expected, momentum = parameter.detach().clone(), torch.zeros(3)
    for gradient in (torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-20.0, 2.0, 3.0])):
        parameter.grad = gradient.clone()
        optimizer.step()
        direction = torch.sign(0.9 * momentum + 0.1 * gradient)
        expected = expected - 0.1 * (direction + 0.5 * expected)
        momentum = 0.99 * momentum + 0.01 * gradient
    torch.testing.assert_close(parameter.detach(), expected)
    torch.testing.assert_close(optimizer.state[parameter]["momentum"], momentum)


def test_updates_in_the_backward_pass_are_the_same_ones() -> None:
    plain, early = model(), model()
    run = replace(RUN, precision="fp32")
    train(plain, run)
    optimizer = train(early, replace(run, optimizer_in_backward=True))
    assert isinstance(optimizer, InBackward)
    assert all(parameter.grad is None for parameter in early.parameters())
    for ours, theirs in zip(weights(early), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["deepspeed", "megatron"])
def test_weights_are_rounded_masters(kind: Any) -> None:
    module = model(torch.bfloat16)
    optimizer = train(module, replace(RUN, master_weights=kind))
    assert isinstance(optimizer, MainGradients if kind == "megatron" else MasterWeights)
    for parameter, master in zip(module.parameters(), optimizer.masters, strict=True):
        assert master.dtype == torch.float32
        assert torch.equal(parameter.detach(), master.detach().bfloat16())
        assert (master.grad is None) == (kind == "deepspeed")
        assert (parameter.grad is None) == (kind == "megatron")


def test_main_gradients_add_up_in_fp32() -> None:
    """Two micro-batches alike: twice the half of a gradient."""
    once, twice = model(torch.bfloat16), model(torch.bfloat16)
    run = replace(RUN, master_weights="megatron")
    one = train(once, run, steps=1)
    other = train(twice, replace(run, gradient_accumulation_steps=2), steps=1)
    for first, second in zip(one.masters, other.masters, strict=True):
        torch.testing.assert_close(second.grad, first.grad, rtol=2e-2, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch 2.9 brought Muon")
def test_muon_is_for_the_matrices_of_layers() -> None:
    module = model()
    optimizer = make_optimizer(module, replace(RUN, precision="fp32", optimizer="muon"))
    assert isinstance(optimizer, Together)
    muon, adamw = optimizer.parts
    matrices = [parameter for group in muon.param_groups for parameter in group["params"]]
    assert [id(each) for each in matrices] == [id(layer.weight) for layer in module.layers]
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(list(module.parameters())) - 2


def test_gradients_are_clipped_before_the_step() -> None:
    module = model()
    run = replace(RUN, precision="fp32", optimizer="sgd", gradient_clipping=1e-3)
    train(module, run, steps=1)
    norm = torch.linalg.vector_norm(torch.stack([parameter.grad.norm() for parameter in module.parameters()]))
    assert norm <= 1.001e-3
