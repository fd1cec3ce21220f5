"""What the suites are made of."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.config.devices import load_device
from memplan.errors import ConfigurationError
from memplan.measure.prediction import predict
from memplan.measure.recording import Planned, plan
from memplan.measure.suite import ONLY_ON_THE_CPU, SUITES, matching, suite, tasks
from memplan.measure.suites.boundary import largest
from memplan.measure.suites.case import Case, Task
from memplan.measure.suites.core import FRESH
from memplan.profiles import file_name, make_record
from memplan.units import GIB, MIB

from .fakes import ENVIRONMENT

H100 = load_device("h100-80gb")
CPU = load_device("cpu")

CARD_SUITES = ("core", "boundary", "snapshots")
MOST_SECONDS = {"core": 8 * 60, "boundary": 8 * 60, "snapshots": 4 * 60}


@cache
def on_h100(name: str) -> list[Task]:
    return tasks(name, H100)


def on_its_device(name: str) -> list[Task]:
    return tasks(name, CPU) if name in ONLY_ON_THE_CPU else on_h100(name)


@pytest.fixture(scope="module")
def core() -> list[Planned]:
    return plan(on_h100("core"), H100)


@pytest.fixture(scope="module")
def boundary() -> list[Planned]:
    return plan(on_h100("boundary"), H100)


@pytest.mark.parametrize("name", SUITES)
def test_every_case_has_a_file_of_its_own(name: str) -> None:
    cases = [task.case for task in on_its_device(name)]
    names = [file_name(make_record(*case, H100, {"environment": ENVIRONMENT})) for case in cases]
    assert len(set(names)) == len(cases) == len(set(cases))
    assert len({task.title for task in on_its_device(name)}) == len(cases)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_always_the_same(name: str) -> None:
    assert on_its_device(name) == on_its_device(name)


@pytest.mark.parametrize("name", ONLY_ON_THE_CPU)
def test_what_is_for_the_cpu_alone(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is for the CPU"):
        tasks(name, H100)


@pytest.mark.parametrize("name", CARD_SUITES)
def test_a_suite_takes_minutes(name: str, core: list[Planned], boundary: list[Planned]) -> None:
    planned = {"core": core, "boundary": boundary}.get(name) or plan(on_h100(name), H100)
    assert sum(each.seconds for each in planned) < MOST_SECONDS[name]


def test_core_has_at_least_240_configurations_of_every_size(core: list[Planned]) -> None:
    assert len(core) >= 240
    allocated = sorted(each.prediction.allocated_bytes for each in core)
    assert allocated[0] < 100 * MIB
    assert allocated[-1] > 70 * GIB
    sizes = [100 * MIB * 2**power for power in range(10)]  # 100 MiB, 200 MiB, ... 50 GiB
    for low, high in pairwise(sizes):
        assert sum(low <= size < high for size in allocated) >= 4
    assert sum(each.prediction.needed_bytes > 70 * GIB for each in core) >= 4


def test_core_fits_the_card_it_is_made_for(core: list[Planned]) -> None:
    assert {each.expected for each in core} == {"ran"}
    assert max(each.prediction.needed_bytes for each in core) < 0.985 * H100.capacity_bytes


def test_core_has_every_option() -> None:
    cases = suite("core", H100)
    runs, models = [case.run for case in cases], [case.model for case in cases]
    assert {model.architecture for model in models} == {"encoder", "decoder", "encoder-decoder"}
    assert {model.positions for model in models} == {"learned", "sinusoidal", "rotary", "relative"}
    assert {model.norm for model in models} == {"layernorm", "rmsnorm"}
    assert {model.norm_placement for model in models} == {"pre", "post"}
    assert {model.activation for model in models} == {"relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu"}
    assert {model.head for model in models} == {"language_modelling", "classification", "token_classification"}
    assert {model.pooling for model in models} == {"class_token", "first", "last", "mean"}
    assert {model.tie_embeddings for model in models} == {True, False}
    assert {run.attention for run in runs} == {"naive", "flash", "efficient"}
    assert {run.precision for run in runs} == {"fp32", "bf16", "bf16-mixed", "fp16-mixed"}
    assert {run.recompute for run in runs} == {"none", "full"}
    assert {run.padding for run in runs} == {True, False}
    assert {run.gradient_accumulation_steps for run in runs} >= {1, 2, 3, 4}
    optimizers = {(run.optimizer, bool(run.momentum), run.optimizer_implementation) for run in runs}
    kinds = (("adamw", False), ("adam", False), ("sgd", False), ("sgd", True))
    assert optimizers >= {(*kind, how) for kind in kinds for how in ("for-loop", "foreach", "fused")}
    assert {run.sequence_length for run in runs} >= {128 * 2**power for power in range(9)}
    assert {run.micro_batch_size for run in runs} >= {1, 2, 4, 8, 16, 32, 64}
    assert {model.head_dim for model in models} >= {32, 40, 64, 80, 96, 128, 256}
    assert {model.vocab_size for model in models} >= {500, 50257, 128256, 256000}
    assert any(model.num_key_value_heads < model.num_attention_heads for model in models)
    assert any(model.attention_dropout for model in models)
    names = {model.name for model in models}
    assert names >= {
        "gpt2",
        "gpt2-medium",
        "gpt2-large",
        "gpt2-xl",
        "bert-large",
        "llama-3.2-1b",
        "llama-3-8b",
        "t5-base",
    }


def test_core_has_every_kernel_in_every_precision_it_runs_in() -> None:
    pairs = {(case.run.attention, case.run.precision) for case in suite("core", H100)}
    every = {(kernel, precision) for kernel in ("naive", "efficient", "flash") for precision in PRECISIONS}
    assert pairs == every - {("flash", "fp32")}


PRECISIONS = ("fp32", "bf16", "bf16-mixed", "fp16-mixed")


def test_an_interrupted_core_has_a_little_of_everything() -> None:
    first = [task.case for task in tasks("core", H100)[:60]]
    assert {case.model.architecture for case in first} == {"encoder", "decoder", "encoder-decoder"}
    assert {case.run.attention for case in first} == {"naive", "flash", "efficient"}
    assert {case.run.precision for case in first} == set(PRECISIONS)
    assert {case.run.recompute for case in first} == {"none", "full"}
    assert any(case.model.name.endswith(FRESH) for case in first)


def test_what_runs_in_a_process_of_its_own_runs_behind_others_too() -> None:
    all_tasks = tasks("core", H100)
    shared = {task.case for task in all_tasks if not task.fresh}
    fresh = [task.case for task in all_tasks if task.fresh]
    assert len(fresh) >= 3
    for case in fresh:
        assert Case(replace(case.model, name=case.model.name.removesuffix(FRESH)), case.run) in shared


@pytest.mark.parametrize("name", ["t4", "v100-32gb", "rtx-4090", "b200"])
def test_other_cards_have_suites_too(name: str) -> None:
    card = load_device(name)
    cases = [case for each in ("quick", "core", "snapshots") for case in suite(each, card)]
    old = float(card.compute_capability) < 8
    assert ("flash" in {case.run.attention for case in cases}) is not old
    assert len(cases) > 200


def test_a_boundary_is_a_pair_of_neighbours(boundary: list[Planned]) -> None:
    assert len(boundary) >= 24
    assert len(boundary) % 2 == 0
    for less, more in zip(boundary[::2], boundary[1::2], strict=True):
        (model, run), (same, larger) = less.task.case, more.task.case
        assert same == model
        assert larger == replace(run, micro_batch_size=run.micro_batch_size + 1)
        assert (less.expected, more.expected) == ("ran", "out_of_memory")
        assert less.prediction.needed_bytes <= H100.capacity_bytes < more.prediction.needed_bytes


def test_boundaries_lie_elsewhere_on_a_smaller_card(boundary: list[Planned]) -> None:
    card = load_device("rtx-3090")
    smaller = plan(tasks("boundary", card), card)
    assert len(smaller) >= 24
    assert [each.expected for each in smaller] == ["ran", "out_of_memory"] * (len(smaller) // 2)
    assert max(each.task.case.run.micro_batch_size for each in smaller) < max(
        each.task.case.run.micro_batch_size for each in boundary
    )


def test_what_others_hold_is_not_free() -> None:
    task = tasks("snapshots", H100)[1]
    prediction = predict(*task.case, H100)
    busy = replace(H100, used_by_others_bytes=H100.capacity_bytes - prediction.needed_bytes + 1)  # type: ignore[call-arg]
    assert prediction.fits(H100)
    assert not prediction.fits(busy)


@given(limit=st.integers(0, 5000), most=st.integers(1, 4096), start=st.integers(-5, 6000))
def test_the_search_finds_the_largest_that_fits(limit: int, most: int, start: int) -> None:
    asked: list[int] = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= limit

    assert largest(fits, most, start) == min(limit, most)
    assert len(asked) <= 2 * most.bit_length() + 2
    assert len(asked) == len(set(asked))
    assert all(1 <= number <= most for number in asked)


def test_a_search_that_starts_near_asks_little() -> None:
    asked: list[int] = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= 1000

    assert largest(fits, start=998) == 1000
    assert len(asked) <= 5


def test_snapshots_are_small_and_stand_alone() -> None:
    snapshots = tasks("snapshots", H100)
    assert len(snapshots) >= 6
    assert all(task.fresh and task.history for task in snapshots)
    assert all(task.case.model.num_layers == 2 for task in snapshots)
    assert {task.case.run.attention for task in snapshots} == {"naive", "flash", "efficient"}


def test_only_the_quick_suite_is_for_the_cpu() -> None:
    assert {case.run.attention for case in suite("quick", CPU)} == {"naive", "flash"}
    for name in CARD_SUITES:
        with pytest.raises(ConfigurationError, match=f"the suite {name} is for cards, not for cpu"):
            suite(name, CPU)


def test_an_unknown_suite_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="'cores' is not a suite") as error:
        suite("cores", H100)
    assert error.value.hint is not None
    assert error.value.hint.startswith("did you mean core?")


def test_a_pattern_chooses() -> None:
    quick = tasks("quick", CPU)
    assert {task.case.model.name for task in matching(quick, "LLAMA-LIKE bf16")} == {
        "llama-like bf16",
        "llama-like bf16-mixed",
    }
    assert {task.case.run.attention for task in matching(quick, "*, flash, *")} == {"flash"}
    assert matching(quick, None) == quick
    with pytest.raises(ConfigurationError, match=r"none of \d+ configurations matches 'gpt5'"):
        matching(quick, "gpt5")
