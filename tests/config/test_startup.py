"""The estimate's path through the configuration imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("tomllib", "json", "difflib", "torch", "importlib.resources", "memplan.config.huggingface", "tempfile")


def test_a_preset_and_a_card_load_without_heavy_modules() -> None:
    code = f"""
import sys
before = set(sys.modules)  # an editable install has loaded some of them already
from memplan.config.devices import load_device
from memplan.config.load import build_run, load_model
from memplan.config.validate import validate_run
model = load_model("llama-3-8b")
validate_run(model, build_run(model, {{"sequence_length": 128}}), load_device("h100-80gb"))
print([name for name in {HEAVY!r} if name in sys.modules and name not in before])
"""
    done = subprocess.run([sys.executable, "-I", "-c", _with_path(code)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def _with_path(code: str) -> str:
    return f"import sys; sys.path[:] = {sys.path!r}\n{code}"
