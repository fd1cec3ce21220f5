"""Experts: each token gets what the experts it is sent to make of it, as long as there is room."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from memplan.reference.experts import Experts  # noqa: E402

from .small import configuration  # noqa: E402


def make_experts(number: int, chosen: int, activation: str = "swiglu") -> Experts:
    torch.manual_seed(0)
    changes = {"num_experts": number, "num_experts_per_token": chosen, "feedforward_bias": False}
    return Experts(configuration(architecture="decoder", activation=activation, **changes))


def by_hand(experts: Experts, x: Tensor) -> Tensor:
    """Token by token and expert by expert."""
    tokens = x.flatten(0, 1)
    shares = (tokens @ experts.router.weight.T).softmax(-1)
    best = shares.argsort(-1, descending=True)[:, : experts.chosen]
    output = torch.zeros_like(tokens)
    for expert in range(experts.experts):
        sent = [number for number in range(len(tokens)) if expert in best[number]]
        sent.sort(key=lambda number: -shares[number, expert].item())
        for number in sent[: -(-len(tokens) * experts.chosen // experts.experts)]:
            inner = experts.activation(tokens[number] @ (experts.gate or experts.up).weight[expert])
            if experts.gate is not None:
                inner = inner * (tokens[number] @ experts.up.weight[expert])
            output[number] += shares[number, expert] * (inner @ experts.down.weight[expert])
    return output.view_as(x)


@pytest.mark.parametrize(("number", "chosen"), [(1, 1), (4, 1), (4, 2), (5, 3), (3, 3)])
@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_tokens_get_what_their_experts_make_of_them(number: int, chosen: int, activation: str) -> None:
    experts = make_experts(number, chosen, activation)
    x = torch.randn(3, 11, 24)
    torch.testing.assert_close(experts(x), by_hand(experts, x), rtol=1e-4, atol=1e-5)


def test_router_and_experts_are_trained() -> None:
    experts = make_experts(4, 2)
    experts(torch.randn(3, 11, 24)).square().sum().backward()
    for name, parameter in experts.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
