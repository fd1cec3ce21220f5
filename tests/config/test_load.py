"""Presets, TOML files and overrides: what is good loads, what is bad says file, line, key and what would be right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from memplan.config.load import build_run, load_model, load_request, parse_override
from memplan.errors import ConfigurationError

from .conftest import refused

GOOD = """\
device = "h100-80gb"

[model]
preset = "gpt2"
num_layers = 4  # a smaller one

[run]
micro_batch_size = 2
sequence_length = 512
"""


def written(folder: Path, text: str | bytes, name: str = "model.toml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


# presets and overrides


def test_a_preset_with_overrides() -> None:
    assert load_model("gpt2").name == "gpt2"
    model = load_model("gpt2", {"num_attention_heads": 8})
    assert (model.num_key_value_heads, model.head_dim) == (8, 96)  # defaults are resolved after the overrides
    assert model.name == "gpt2 (modified)"
    assert load_model("gpt2", {"num_layers": 12}).name == "gpt2"
    assert load_model("gpt2", {"num_layers": 4, "name": "tiny"}).name == "tiny"


def test_an_unknown_preset() -> None:
    with refused("model: 'gtp2' is neither a preset nor a file", 'did you mean "gpt2"?', "`memplan presets`"):
        load_model("gtp2")
    with refused("cannot be had from the Hugging Face hub", 'or the preset "llama-3-8b"'):
        load_model("meta-llama/Llama-3-8B")


@pytest.mark.parametrize("source", ["", "zzz", "\0", "a\0b.toml", "x" * 5000, "x" * 5000 + ".toml", "\udcff.json", "."])
def test_sources_that_are_nothing(source: str) -> None:
    with pytest.raises(ConfigurationError):
        load_model(source)


@pytest.mark.parametrize("source", [None, 3, b"gpt2", ["gpt2"]])
def test_sources_that_are_not_names(source: Any) -> None:
    with refused("model: must be a name or a path"):
        load_model(source)


def test_unknown_and_wrong_overrides() -> None:
    with refused("n_layers: is not a known key", 'did you mean "num_layers"?'):
        load_model("gpt2", {"n_layers": 3})
    with refused("2 problems", "num_layers: must be a whole number, not 'four'", "hidden_siz: is not a known key"):
        load_model("gpt2", {"num_layers": "four", "hidden_siz": 3})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attention_dropout=0", ("attention_dropout", 0)),
        ("attention_dropout = 0.5", ("attention_dropout", 0.5)),
        ("activation=swiglu", ("activation", "swiglu")),
        ('activation="swiglu"', ("activation", "swiglu")),
        ("tie_embeddings=false", ("tie_embeddings", False)),
        ("vocab_size=50_257", ("vocab_size", 50257)),
        ("name=a=b", ("name", "a=b")),
        ("num_layers=012", ("num_layers", "012")),
        ("num_layers=1\nother=2", ("num_layers", "1\nother=2")),
        ("num_layers=" + "9" * 5000, ("num_layers", "9" * 5000)),
        ("num_layers=" + "[" * 100_000, ("num_layers", "[" * 100_000)),
    ],
)
def test_overrides_are_read_as_toml(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["", "num_layers", "=3", "num_layers=", " = "])
def test_overrides_that_are_not_key_and_value(text: str) -> None:
    with refused("must be key=value"):
        parse_override(text)


# TOML requests


def test_a_good_request(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    model, run, device = load_request(path)
    assert (model.num_layers, model.hidden_size, model.name) == (4, 768, "gpt2 (modified)")
    assert run == {"micro_batch_size": 2, "sequence_length": 512}
    assert device == "h100-80gb"
    assert load_model(path) == model == load_model(Path(path))
    assert load_model(path, {"num_layers": 5}).num_layers == 5


def test_a_whole_model_without_run_or_device(tmp_path: Path) -> None:
    text = """[model]
architecture = "encoder-decoder"
vocab_size = 100
hidden_size = 8
num_layers = 1
num_attention_heads = 2
intermediate_size = 16
positions = "sinusoidal"
"""
    model, run, device = load_request(written(tmp_path, "\ufeff" + text))
    assert (model.name, model.num_encoder_layers, run, device) == ("custom", 1, {}, None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD.replace("num_layers", "num_layer"), (":5: num_layer: is not a known key", 'did you mean "num_layers"?')),
        (
            GOOD.replace("sequence_length", "seq_len"),
            (":9: seq_len: is not a known", 'did you mean "sequence_length"?'),
        ),
        (GOOD.replace("micro_batch_size", "batch"), (":8: batch: is not", 'did you mean "micro_batch_size"?')),
        (GOOD.replace("device", "devise"), (":1: devise: is not a known key", 'did you mean "device"?')),
        (GOOD.replace("[run]", "[runs]"), (":7: runs: is not a known key", 'did you mean "run"?')),
        (GOOD.replace("preset", "hidden_size = 770\npreset"), (":3: num_attention_heads: hidden_size 770",)),
        (GOOD.replace("= 4 ", "= 4.5 "), (":5: num_layers: must be a whole number, not 4.5",)),
        (GOOD.replace("= 4 ", "= 0 "), (":5: num_layers: must be at least 1, not 0",)),
        (GOOD.replace("= 512", "= 0"), (":9: sequence_length: must be at least 1, not 0",)),
        (GOOD.replace("= 512", "= '512'"), (":9: sequence_length: must be a whole number, not '512'",)),
        (GOOD.replace("= 512", "= 1979-05-27"), (":9: sequence_length: must be a whole number, not a date",)),
        (GOOD.replace('"h100-80gb"', "80"), (":1: device: must be a name",)),
        (
            GOOD.replace("gpt2", "gpt-2"),
            (":4: preset: must be the name of a preset, not 'gpt-2'", '"gpt2"', "presets`"),
        ),
        (GOOD.replace('"gpt2"', "2"), (":4: preset: must be the name of a preset, not 2",)),
        (GOOD + "num_layers = 3\n", (":10: num_layers: belongs under [model]",)),
        ("precision = 'bf16'\n" + GOOD, (":1: precision: belongs under [run]",)),
        (GOOD.replace("[run]", "[run]\ndevice = 'cpu'"), (":8: device: belongs above the first heading",)),
        ("model = 3\n", (":1: model: must be a table under a [model] heading, not 3",)),
        ("[[model]]\npreset = 'gpt2'\n", (":1: model: must be a table under a [model] heading, not a list",)),
        ("run = []\n[model]\npreset = 'gpt2'\n", (":1: run: must be a table",)),
        ("[run]\nsequence_length = 1\n", ("model: is missing: name a preset",)),
        ("[model]\n", ("7 problems", ":1: vocab_size: is missing", ":1: architecture: is missing")),
        ("model = {preset = 'gpt2', num_layers = 0}\n", (":1: num_layers: must be at least 1",)),
        ("model.preset = 'gpt2'\nmodel.num_layers = 0\n", (":2: num_layers: must be at least 1",)),
        ("[model]\npreset = 'gpt2'\n'num_layers' = 0\n", (":3: num_layers: must be at least 1",)),
    ],
)
def test_a_bad_request_says_file_line_key(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = written(tmp_path, text)
    with refused(path, *parts):
        load_request(path)
    with refused(path, *parts):
        load_model(path)


def test_a_request_says_every_error_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("= 4 ", "= -4 ").replace("= 512", "= 0.5").replace("device", "devices") + "colour = 'red'\n"
    with refused("4 problems", ":1: devices", ":5: num_layers", ":9: sequence_length", ":10: colour"):
        load_request(written(tmp_path, text))


def test_an_unknown_preset_is_not_followed_by_what_it_would_have_given(tmp_path: Path) -> None:
    text = GOOD.replace("gpt2", "gpt-2").replace("= 4 ", "= -4 ")
    with pytest.raises(ConfigurationError) as caught:
        load_request(written(tmp_path, text))
    assert str(caught.value).startswith("2 problems")


def test_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_request(written(tmp_path, GOOD), {"num_layers": 0})
    assert str(caught.value) == "num_layers: must be at least 1, not 0"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("the file is empty",)),
        (b" \n\n", ("the file is empty",)),
        (b"\x80\x02}q\x00", (":1: not a text file",)),
        (b"[model]\n\xff\xfe", (":2: not a text file",)),
        (b"a\0b", ("binary",)),
        (b"[model\n", (":1:7: not valid TOML",)),
        (b"[model]\nnum_layers = \n", (":2:14: not valid TOML",)),
        (b"[model]\npreset = 'gpt2", (":2:15: not valid TOML",)),
        (b"[model]\nnum_layers = 1\nnum_layers = 2\n", (":3:15: not valid TOML",)),
        (b"[model]\nnum_layers = " + b"9" * 5000, ("thousands of digits",)),
        (b"[model]\nnum_layers = 0x" + b"f" * 5000, (":2: num_layers: a whole number of about ", "2**63 - 1")),
        (b"model = " + b"[" * 100_000, ("nested too deeply",)),
        (b"#" * (17 * 2**20), ("larger than 16 MiB",)),
    ],
)
def test_malformed_toml(tmp_path: Path, content: bytes, parts: tuple[str, ...]) -> None:
    path = written(tmp_path, content)
    with refused(path, *parts):
        load_model(path)


def test_paths_that_hold_no_request(tmp_path: Path) -> None:
    with refused("no-such.toml: no such file"):
        load_model(str(tmp_path / "no-such.toml"))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with refused("folder.toml: is a directory"):
        load_request(folder)
    with refused("a directory without a config.json"):
        load_model(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who can be denied a file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    os.chmod(path, 0)
    with refused(path, "cannot be read"):
        load_model(path)


# runs


def test_a_run_from_options() -> None:
    run = build_run(load_model("llama-3-8b"), {"sequence_length": 128, "precision": "bf16", "momentum": None})
    assert (run.sequence_length, run.precision, run.micro_batch_size) == (128, "bf16", 1)


@pytest.mark.parametrize(
    ("preset", "options", "parts"),
    [
        ("gpt2", {}, ("sequence_length: is missing", "--sequence-length")),
        ("t5-base", {}, ("--source-length", "--target-length")),
        ("t5-base", {"sequence_length": 8}, ("--source-length and --target-length",)),
        ("gpt2", {"sequence_length": 0}, ("sequence_length: must be at least 1, not 0",)),
        ("gpt2", {"sequence_length": 0, "micro_batch_size": 0, "momentum": 0.5}, ("3 problems",)),
        ("gpt2", {"sequence_length": 8, "seq": 3}, ("seq: is not a known key",)),
        ("gpt2", {"sequence_length": 8, "precision": "fp8"}, ("precision: must be one of",)),
        ("gpt2", {"sequence_length": 2000}, ("1024 learned positions",)),
        ("gpt2", {"sequence_length": False}, ("sequence_length: must be a whole number, not false",)),
    ],
)
def test_bad_options(preset: str, options: dict[str, object], parts: tuple[str, ...]) -> None:
    with refused(*parts):
        build_run(load_model(preset), options)
