"""Whose line an allocation comes from."""

from __future__ import annotations

import pytest

from memplan.explain.frames import Stacks

from .simulated import Entry, frame

TORCH = frame("linear", 5, "/venv/lib/python3.11/site-packages/torch/nn/functional.py")
RELATIVE = frame("backward", 395, "torch/autograd/__init__.py")
SOURCE = frame("relu", 5, "/home/me/pytorch/torch/nn/functional.py")
CPP = {"filename": "/build/aten/src/ATen/Context.cpp", "line": 1, "name": "at::empty"}
NOWHERE = {"filename": "??", "line": 0, "name": "start_thread"}
STANDARD = frame("inner", 81, "/usr/lib/python3.11/contextlib.py")
WINDOWS = frame("inner", 81, r"C:\Python311\Lib\contextlib.py")
FROZEN = frame("_run", 88, "<frozen runpy>")
LIBRARY = frame("forward", 40, "/venv/lib/python3.11/site-packages/transformers/models/gpt2.py")
OWN = frame("step", 12, "/home/me/train.py")
OWN_LIB = frame("block", 3, "/home/me/lib/block.py")
NOTEBOOK = frame("<module>", 2, "<ipython-input-3>")


@pytest.mark.parametrize(
    ("stack", "inner", "caller"),
    [
        ([TORCH, OWN], OWN, None),
        ([RELATIVE, OWN], OWN, None),
        ([CPP, NOWHERE, TORCH, SOURCE, STANDARD, FROZEN, OWN], OWN, None),
        ([TORCH, LIBRARY, OWN], LIBRARY, OWN),
        ([WINDOWS, NOTEBOOK], NOTEBOOK, None),
        ([OWN_LIB, OWN], OWN_LIB, None),
        ([TORCH, LIBRARY], LIBRARY, None),
        ([CPP, TORCH], None, None),
        ([], None, None),
    ],
)
def test_the_innermost_line_outside_of_torch(stack: list[Entry], inner: Entry | None, caller: Entry | None) -> None:
    origin = Stacks().origin(stack)
    if inner is None:
        assert origin is None
        return
    assert origin is not None
    assert origin.frame == (inner["filename"], inner["line"], inner["name"])
    assert (origin.caller and origin.caller.file) == (caller["filename"] if caller else None)


def test_a_line_is_shown_short() -> None:
    origin = Stacks().origin([LIBRARY])
    assert origin is not None and origin.frame.short == "models/gpt2.py:40 forward"


@pytest.mark.parametrize("strange", [None, 5, "text", [None], [{"filename": 5}], [{"line": 1, "name": "x"}], [[]]])
def test_frames_that_are_none(strange: object) -> None:
    stacks = Stacks()
    assert stacks.key(strange) == () and stacks.origin(strange) is None and stacks.phase(strange) == ""


def test_code_that_leaves_no_doubt_says_the_phase() -> None:
    optimizer = frame("step", 1, "/x/site-packages/torch/optim/adam.py")
    engine = frame("_engine_run_backward", 1, "/x/site-packages/torch/autograd/graph.py")
    assert Stacks().phase([TORCH, optimizer, OWN]) == "optimizer_step"
    assert Stacks().phase([engine, OWN]) == "backward"
    assert Stacks().phase([TORCH, OWN]) == ""
    assert Stacks().phase([frame("step", 1, "/home/me/optim/adam.py")]) == ""
