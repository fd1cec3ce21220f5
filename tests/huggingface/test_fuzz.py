"""Mutated config.json files of every type: whatever comes in, an estimate or an error that can be printed comes out.

MEMPLAN_MUTANTS=10000 pytest tests/huggingface/test_fuzz.py    for more of them
"""

from __future__ import annotations

import copy
import json
import os
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.library.model import LibraryModel, validate_library_model
from memplan.config.load import load_model
from memplan.errors import MemplanError
from memplan.estimate import estimate

from ..config.test_fuzz import ODD_VALUES, check_message
from .small import SMALL, small_run

MUTANTS = int(os.environ.get("MEMPLAN_MUTANTS", "600"))
BLOCKS = 10
MORE_KEYS = ("quantization_config", "is_decoder", "architectures", "num_labels", "rope_scaling", "_name_or_path", "")


def config_of(model: LibraryModel) -> dict[str, Any]:
    """What a config.json of the model would say."""
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    for name in ("implementation", "head_class", "name"):
        del values[name]
    return {**values, "architectures": [model.head_class]}


CONFIGS = [config_of(validate_library_model(model)) for model in SMALL.values()]


def mutant(chance: random.Random) -> dict[str, Any]:
    config = copy.deepcopy(chance.choice(CONFIGS))
    for _ in range(chance.randint(1, 3)):
        key = chance.choice((*config, *MORE_KEYS))
        kind = chance.random()
        if kind < 0.2:
            config.pop(key, None)
        elif kind < 0.35:
            config[key] = config.get(chance.choice(tuple(config) or ("x",)))
        elif kind < 0.6 and isinstance(config.get(key), int):
            config[key] = chance.choice((config[key] + 1, config[key] * 2, config[key] // 2, 1, 3, 12))
        else:
            config[key] = chance.choice(ODD_VALUES)
    return config


@pytest.mark.parametrize("block", range(BLOCKS))
def test_mutated_configs(block: int, tmp_path: Path) -> None:
    """The seed of a failure is in its traceback."""
    path, device = tmp_path / "config.json", load_device("cpu")
    for seed in range(MUTANTS // BLOCKS * block, MUTANTS // BLOCKS * (block + 1)):
        chance = random.Random(seed)
        try:
            path.write_text(json.dumps(mutant(chance)))
        except ValueError:  # an integer that Python itself does not spell
            continue
        try:
            model = load_model(path)
            assert isinstance(model, LibraryModel)
            run = small_run(model, attention=chance.choice(("naive", "sdpa")), padding=chance.random() < 0.3)
            result = estimate(model, run, device)
        except MemplanError as error:
            check_message(error)
        else:
            assert result.totals.parameter_count > 0
            for phase in result.phases:
                assert sum(phase.at_peak.values()) == phase.peak_allocated_bytes
                assert all(size >= 0 for size in phase.at_peak.values())
