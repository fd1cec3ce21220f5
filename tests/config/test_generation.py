"""Which runs that write are refused, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.commands.request import resolve
from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import build_run, load_model
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, NotModelledError

GPT2, LLAMA, T5, BERT = (load_model(name) for name in ("gpt2", "llama-3.2-1b", "t5-small", "bert-base"))
CPU, H100 = load_device("cpu"), load_device("h100-80gb")


def generate(model: Any, **options: Any) -> Any:
    return build_run(model, {"mode": "generate", **options})


def str_or_nothing(value: object) -> str:
    return value if isinstance(value, str) else ""


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (GPT2, {}, "prompt_length: is missing: say how many tokens, with --prompt-length"),
    (GPT2, {"prompt_length": 0}, "prompt_length: must be at least 1, not 0"),
    (GPT2, {"prompt_length": 1000, "new_tokens": 25}, "new_tokens: 1000 [+] 25 tokens are more than .* 1024 positions"),
    (GPT2, {"prompt_length": 1025}, "prompt_length: 1025 tokens are more than the model's 1024 positions"),
    (GPT2, {"prompt_length": 5, "source_length": 5}, "source_length: must be left out: only an encoder-decoder"),
    (GPT2, {"prompt_length": 5, "sequence_length": 5}, 'sequence_length: belongs to mode = "train"; say prompt_length'),
    (GPT2, {"prompt_length": 5, "optimizer": "adamw"}, 'optimizer: belongs to mode = "train"'),
    (GPT2, {"prompt_length": 5, "precision": "bf16-mixed"}, "precision: must be one of fp32, bf16, fp16"),
    (GPT2, {"prompt_length": 5, "cache": "block"}, "cache: must be one of dynamic, static, paged"),
    (GPT2, {"prompt_length": 5, "cache_block_size": 32}, "cache_block_size: must be left out: only cache = paged"),
    (GPT2, {"prompt_length": 5, "cache": "paged", "cache_block_size": 0}, "cache_block_size: must be at least 1"),
    (GPT2, {"prompt_length": 5, "sampling": "sampled"}, "sampling: must be left out: no token is chosen"),
    (T5, {"new_tokens": 5}, "source_length: is missing: say how many tokens the encoder reads"),
    (BERT, {"prompt_length": 5, "new_tokens": 5}, "new_tokens: must be left out: an encoder writes nothing"),
    (BERT, {"prompt_length": 5, "cache": "static"}, "cache: must be left out: an encoder writes nothing"),
    (BERT, {"prompt_length": 5, "logits": "all"}, "logits: must be left out: an encoder writes nothing"),
    (
        replace(LLAMA, head="classification"),
        {"prompt_length": 5, "new_tokens": 5},
        'new_tokens: must be left out: a model with head = "classification" writes nothing',
    ),
]


@pytest.mark.parametrize(("model", "options", "message"), WRONG, ids=str_or_nothing)
def test_what_contradicts_itself_is_refused_by_key(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        generate(model, **options)


UNKNOWN: list[tuple[Any, dict[str, Any], Any, str]] = [
    (replace(LLAMA, sliding_window=8), {"cache": "paged"}, CPU, "cache: paged is not modelled with a sliding window"),
    (LLAMA, {"new_tokens": 2, "sampling": "sampled"}, H100, "sampling: sampled is modelled on the CPU only"),
    (LLAMA, {"padding": True, "attention": "naive"}, H100, "padding: counting the real tokens"),
    (
        LLAMA,
        {"cache": "static", "attention": "flash", "precision": "bf16"},
        H100,
        "attention: flash takes no mask on CUDA, which a static cache needs",
    ),
    (replace(LLAMA, num_experts=2, num_experts_per_token=1), {}, H100, "num_experts = 2: the router's operations"),
    (
        replace(GPT2, positions="relative", max_positions=0),
        {"attention": "flash"},
        CPU,
        "attention: flash with positions",
    ),
]


@pytest.mark.parametrize(("model", "options", "device", "message"), UNKNOWN, ids=str_or_nothing)
def test_what_has_no_rule_is_refused_by_name(model: Any, options: dict[str, Any], device: Any, message: str) -> None:
    model = validate_model(model)
    with pytest.raises(NotModelledError, match=message):
        validate_run(model, generate(model, prompt_length=5, **options), device)


def test_a_static_cache_takes_the_efficient_kernel_on_a_card() -> None:
    run = InferenceRun(prompt_length=5, new_tokens=5, precision="bf16")
    assert validate_run(LLAMA, run, H100).attention == "flash"
    assert validate_run(LLAMA, replace(run, cache="static"), H100).attention == "efficient"


def test_a_decoder_starts_from_one_token_where_no_prompt_is_given() -> None:
    assert generate(T5, source_length=8, new_tokens=4).prompt_length == 1
    assert generate(T5, source_length=8, new_tokens=4, prompt_length=3).prompt_length == 3


def test_training_refuses_what_belongs_to_generation() -> None:
    with pytest.raises(ConfigurationError, match='new_tokens: belongs to mode = "generate": give --mode generate'):
        build_run(GPT2, {"sequence_length": 8, "new_tokens": 4})


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mode: must be train or generate, not 'serve'"):
        build_run(GPT2, {"mode": "serve", "prompt_length": 4})


def file_with(folder: Path, run: str) -> str:
    path = folder / "request.toml"
    path.write_text(f'[model]\npreset = "gpt2"\n\n[run]\n{run}')
    return str(path)


def test_a_file_can_ask_for_a_run_that_writes(tmp_path: Path) -> None:
    path = file_with(tmp_path, 'mode = "generate"\nprompt_length = 7\nnew_tokens = 3\ncache = "static"\n')
    _, run, _ = resolve(path, [], None, {"new_tokens": 5})
    assert isinstance(run, InferenceRun)
    assert (run.prompt_length, run.new_tokens, run.cache) == (7, 5, "static")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ('mode = "serve"\n', ":5: mode: must be train or generate, not 'serve'"),
        ("prompt_length = 7\n", ':5: prompt_length: belongs to mode = "generate"'),
        ('mode = "generate"\nsequence_length = 7\n', ':6: sequence_length: belongs to mode = "train"'),
        ('mode = "generate"\nprompt_length = 0\n', ":6: prompt_length: must be at least 1, not 0"),
        ('mode = "generate"\nprompt_lenth = 5\n', ':6: prompt_lenth: is not a known key; did you mean "prompt_length"'),
    ],
)
def test_a_file_is_refused_by_line(tmp_path: Path, run: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(file_with(tmp_path, run), [], None, {})
