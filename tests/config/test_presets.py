"""Each preset is the published model: its parameter count in closed form is the published one, exactly."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from memplan.config import presets, shipped
from memplan.config.load import load_model
from memplan.config.parameters import parameter_count

FOLDER = Path(presets.__file__).parent
PUBLISHED = {
    "attention-is-all-you-need": 63_082_496,
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "llama-2-70b": 68_976_648_192,
    "llama-2-7b": 6_738_415_616,
    "llama-3-70b": 70_553_706_496,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-small": 60_506_624,
    "tinyllama-1.1b": 1_100_048_384,
}


def test_the_published_table_is_complete() -> None:
    assert presets.names() == tuple(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert parameter_count(model) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_comment_gives_source_and_count(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    assert re.search(r"^# architecture: https://\S+", text, re.MULTILINE)
    assert f"# parameters: {PUBLISHED[name]:,}\n" in text


@pytest.mark.parametrize("path", [*FOLDER.glob("*.toml"), FOLDER.parent / "cards.toml"], ids=lambda path: path.stem)
def test_the_flat_reader_agrees_with_tomllib(path: Path) -> None:
    read = shipped.read_tables(str(path))
    with path.open("rb") as file:
        expected = tomllib.load(file)
    assert {**read.pop(""), **read} == expected


@pytest.mark.parametrize("name", ["gpt3", "../cards", "", "gpt2.toml", "__init__"])
def test_no_such_preset(name: str) -> None:
    with pytest.raises(KeyError):
        presets.read(name)


def test_dropouts_are_the_published_ones() -> None:
    def dropouts(name: str) -> tuple[float, float, float]:
        model = load_model(name)
        return model.embedding_dropout, model.attention_dropout, model.residual_dropout

    for name in ("gpt2", "gpt2-xl", "bert-base", "bert-large", "t5-small", "t5-large"):
        assert dropouts(name) == (0.1, 0.1, 0.1)
    assert dropouts("attention-is-all-you-need") == (0.1, 0.0, 0.1)
    assert dropouts("llama-3-8b") == (0.0, 0.0, 0.0)
