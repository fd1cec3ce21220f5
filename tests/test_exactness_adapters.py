"""The promise for adapters and quantised weights: the estimate of a training step is the run in real PyTorch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.config.adapters import linear_paths
from memplan.config.devices import load_device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import backend_of, estimate
from memplan.ops.backend import Backend
from memplan.transformer.program import trace_training

from .strategies import FRESH, Case, Choices, make_case
from .test_expansion import BACKENDS, assert_spelled_out

torch = pytest.importorskip("torch")
from memplan.reference.adapters import add_adapters  # noqa: E402  (imports torch)
from memplan.reference.model import Transformer as Reference  # noqa: E402
from memplan.reference.quantised import QuantisedLinear, make_quantised, quantise  # noqa: E402

from .test_exactness import residuals  # noqa: E402

EXAMPLES = 60
MANY = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def adapted(choose: Choices, case: Case) -> Case:
    """The case with adapters, on whole or quantised weights."""
    model, run, device = case
    paths = linear_paths(model)
    names = sorted({path.rpartition(".")[2] for path in paths} | {path.partition("*.")[2] for path in paths} - {""})
    targets: tuple[str, ...] = tuple({choose.one_of(*names) for _ in range(choose.one_of(1, 2, 3, 6))})
    quantization = choose.one_of("none", "none", "int8", "nf4", "nf4")
    if model.num_experts:
        quantization = "none"
    run = replace(
        run,
        lora_rank=choose.one_of(1, 2, 3, 8, 17),
        lora_targets=() if choose.whether() and not model.kv_lora_rank else targets,
        lora_dropout=choose.one_of(0.0, 0.0, 0.1),
        lora_dtype=choose.one_of("fp32", "bf16"),
        weight_quantization=quantization,
        double_quantization=quantization != "nf4" or choose.whether(),
    )
    return Case(model, validate_run(model, run, device), device)


@st.composite
def adapted_cases(draw: st.DrawFn, *, most_layers: int = 6, most_threads: int = 3) -> Case:
    """A model with adapters, a run of it, and the CPU with some threads."""
    choose = Choices(draw(st.binary(min_size=128, max_size=128)))
    return adapted(choose, make_case(choose, most_layers, most_threads))


@settings(FRESH, max_examples=EXAMPLES)
@given(case=adapted_cases())
def test_the_estimate_is_the_run(case: Case) -> None:
    assert residuals(case) == {}


@MANY
@given(case=adapted_cases(most_layers=9))
def test_composed_layers_are_the_layers_one_by_one(case: Case) -> None:
    """Also where the first layer is not in the graph, so that what all share is freed in the second one."""
    composed, full = (
        trace_training(case.model, case.run, backend_of(case.device), every_layer).moments()
        for every_layer in (False, True)
    )
    for phase, moments in composed.items():
        for ours, theirs in zip(moments, full[phase], strict=True):
            assert ours.size == theirs.size
            for component in {*ours.components, *theirs.components}:
                assert ours.components.get(component, 0) == theirs.components.get(component, 0)


@MANY
@given(case=adapted_cases(most_layers=9), backend=BACKENDS)
def test_composed_layers_can_be_spelled_out(case: Case, backend: Backend) -> None:
    composed, full = (trace_training(case.model, case.run, backend, every_layer) for every_layer in (False, True))
    composed.micro_batches = full.micro_batches = 1
    assert_spelled_out(composed, full)


def reference(case: Case) -> torch.nn.Module:
    """The model that is trained, by its shapes alone."""
    with torch.device("meta"):
        model = Reference(case.model, case.run.attention, case.run.recompute)
        if case.run.precision == "bf16":
            model = model.to(torch.bfloat16)
        quantise(model, case.run.weight_quantization, double=case.run.double_quantization)
        add_adapters(model, case.run)
    return model


@MANY
@given(case=adapted_cases())
def test_totals_are_those_of_the_model(case: Case) -> None:
    """Bytes of all parameters, of the gradients of those that are trained, and how many there are of both: a quantised
    weight counts as one, its statistics do not."""
    totals, model = estimate(*case).totals, reference(case)
    every = list(model.parameters())
    trained = [each for each in every if each.requires_grad]
    assert totals.parameters_bytes == sum(each.nbytes for each in every)
    assert totals.gradients_bytes == sum(each.nbytes for each in trained)
    assert totals.trainable_parameter_count == sum(each.numel() for each in trained)
    plain = replace(case.run, lora_rank=0, lora_targets=(), lora_dropout=0.0, lora_dtype="fp32")
    plain = replace(plain, weight_quantization="none", double_quantization=True)
    adapters = totals.trainable_parameter_count
    assert totals.parameter_count == estimate(case.model, plain, case.device).totals.parameter_count + adapters


@MANY
@given(case=adapted_cases())
def test_the_names_of_linear_layers(case: Case) -> None:
    with torch.device("meta"):
        model = Reference(case.model, case.run.attention, case.run.recompute)
    names = [name.split(".") for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)]
    starred = (".".join("*" if part.isdigit() else part for part in name) for name in names)
    assert set(starred) == set(linear_paths(case.model))


# ---- formats that are for writing tokens: their products, as part of a training step


SMALL = validate_model(
    Transformer(
        architecture="decoder",
        vocab_size=50,
        hidden_size=32,
        num_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        positions="rotary",
        norm="rmsnorm",
        activation="swiglu",
    )
)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed", "fp16-mixed"])
@pytest.mark.parametrize(("kind", "group"), [("gptq", 16), ("gptq", 8), ("awq", 16), ("fp8", 128)])
def test_products_of_every_format(monkeypatch: pytest.MonkeyPatch, precision: str, kind: str, group: int) -> None:
    import memplan.measure.run
    import memplan.transformer.program
    from memplan.transformer.quantised import quantise as quantise_sizes

    monkeypatch.setattr(memplan.measure.run, "quantise", lambda model, *_, **__: quantise(model, kind, group))
    monkeypatch.setattr(
        memplan.transformer.program, "quantise", lambda model, *_, **__: quantise_sizes(model, kind, group)
    )
    device = load_device("cpu:2")
    run = TrainingRun(micro_batch_size=2, sequence_length=9, lora_rank=3, precision=precision)  # type: ignore[arg-type]
    assert residuals(Case(SMALL, validate_run(SMALL, run, device), device)) == {}


SHAPES = [(64, 64), (48, 40), (7, 10), (5, 3), (1, 1), (300, 100), (257, 129), (1024, 24)]  # out, in


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("double", [False, True])
def test_nf4_is_stored_as_bitsandbytes_has_it(outputs: int, inputs: int, double: bool) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    theirs = bitsandbytes.nn.Linear4bit(inputs, outputs, False, compress_statistics=double, quant_type="nf4").to("cpu")
    state = theirs.weight.quant_state
    expected = [theirs.weight.data, state.absmax, state.code]
    if double:
        expected += [state.offset, state.state2.absmax, state.state2.code]
    assert tensors(make_quantised(torch.nn.Linear(inputs, outputs, False), "nf4", 128, double)) == described(expected)


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_int8_is_stored_as_bitsandbytes_has_it(outputs: int, inputs: int) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    theirs = bitsandbytes.nn.Linear8bitLt(inputs, outputs, False, has_fp16_weights=False).to("cpu")
    ours = make_quantised(torch.nn.Linear(inputs, outputs, False), "int8", 128, True)
    assert tensors(ours) == described([theirs.weight.data, theirs.weight.SCB])


def tensors(layer: QuantisedLinear) -> list[tuple[tuple[int, ...], str]]:
    return described(list(layer.parameters()))


def described(tensors: list[torch.Tensor]) -> list[tuple[tuple[int, ...], str]]:
    return sorted((tuple(each.shape), str(each.dtype)) for each in tensors)


@pytest.mark.parametrize("kind", ["int8", "nf4", "gptq", "awq", "fp8"])
def test_what_is_made_whole_again_is_near_the_weight(kind: str) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 64)
    for double in (False, True):
        made = make_quantised(linear, kind, 16, double).dequantised(torch.float32)
        assert made.shape == linear.weight.shape
        assert (made - linear.weight).abs().max() < 0.2 * linear.weight.abs().max()


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_product_is_that_of_the_weight_it_stands_for(kind: str) -> None:
    torch.manual_seed(0)
    layer = make_quantised(torch.nn.Linear(24, 16), kind, 128, True)
    x = torch.randn(2, 5, 24, requires_grad=True)
    layer(x).square().sum().backward()
    plain = x.detach().clone().requires_grad_()
    torch.nn.functional.linear(plain, layer.dequantised(torch.float32), layer.bias).square().sum().backward()
    assert torch.allclose(x.grad, plain.grad, atol=1e-5)
