"""The twin wings: memplan/transformer and memplan/reference are the same model, file for file and name for name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import memplan
from memplan.ops.backend import Backend
from memplan.ops.module import Module, ModuleList
from memplan.ops.trace import Trace
from memplan.transformer.model import Transformer as SizesOnly
from memplan.transformer.sizes import Sizes

from ..strategies import Case, cases

torch = pytest.importorskip("torch")
from memplan.reference.model import Transformer as Reference  # noqa: E402  (imports torch)

WINGS = Path(memplan.__file__).parent
FILES = sorted(path.name for path in (WINGS / "reference").glob("*.py"))
EXTRA = {
    "layers.py",  # what torch.nn brings ready-made
    "program.py",  # the whole step, or writing, traced
    "sizes.py",  # the names the formulas are spelled with
    "steps.py",  # which steps of decode are traced
}

Signatures = dict[str, list[str]]


def classes(wing: str, file: str) -> dict[str, Signatures]:
    """Class name -> method name -> parameter names."""
    tree = ast.parse((WINGS / wing / file).read_text(encoding="utf-8"))
    return {
        item.name: {
            method.name: [argument.arg for argument in method.args.args + method.args.kwonlyargs]
            for method in item.body
            if isinstance(method, ast.FunctionDef)
        }
        for item in tree.body
        if isinstance(item, ast.ClassDef)
    }


def functions(wing: str, file: str) -> Signatures:
    """Public function -> parameter names."""
    tree = ast.parse((WINGS / wing / file).read_text(encoding="utf-8"))
    return {
        item.name: [argument.arg for argument in item.args.args + item.args.kwonlyargs]
        for item in tree.body
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
    }


def test_the_wings_have_the_same_files() -> None:
    sizes_only = {path.name for path in (WINGS / "transformer").glob("*.py")}
    assert sizes_only - EXTRA == set(FILES)
    assert sizes_only >= EXTRA


@pytest.mark.parametrize("file", FILES)
def test_the_same_classes_in_the_same_order(file: str) -> None:
    assert list(classes("transformer", file)) == list(classes("reference", file))


@pytest.mark.parametrize("file", FILES)
def test_forward_takes_the_same_arguments(file: str) -> None:
    ours, theirs = classes("transformer", file), classes("reference", file)
    assert {name: methods.get("forward") for name, methods in ours.items()} == {
        name: methods.get("forward") for name, methods in theirs.items()
    }


@pytest.mark.parametrize("file", FILES)
def test_every_public_function_has_its_twin(file: str) -> None:
    """The sizes-only one may take more (the trace, the sizes) or less (a mark, a dtype)."""
    if file == "training.py":
        assert set(functions("transformer", file)) - {"flatten"} == set(functions("reference", file))
    else:
        assert set(functions("transformer", file)) == set(functions("reference", file))


def named_parameters(module: Module) -> list[tuple[str, tuple[int, ...]]]:
    """Every parameter of a sizes-only model once, in PyTorch's order, under its name with the layer's number."""
    found: dict[int, tuple[str, tuple[int, ...]]] = {}

    def walk(module: Module, path: str) -> None:
        children: list[tuple[str, Module]] = []
        if isinstance(module, ModuleList):
            children = [(f"{path}{index}.", layer) for index, layer in enumerate(module.layers)]
        for name, member in module.members.items():
            if isinstance(member, Module):
                children.append((f"{path}{name}.", member))
            else:
                found.setdefault(id(member), (path + name, tuple(int(size) for size in member.shape)))
        for below, child in children:
            walk(child, below)

    walk(module, "")
    return list(found.values())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_parameters_have_the_same_names_shapes_and_order(case: Case) -> None:
    model, run, _ = case
    with torch.device("meta"):
        reference = Reference(model, run.attention, run.recompute)
    theirs = [(name, tuple(parameter.shape)) for name, parameter in reference.named_parameters()]
    trace = Trace(Backend("cpu", 1))
    sizes_only = SizesOnly(trace, model, Sizes(model, run), run.attention, run.recompute, every_layer=True)
    trace.recording = False
    assert named_parameters(sizes_only) == theirs
