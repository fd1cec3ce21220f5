"""The releases of the library transformers that this wing holds for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.config.inference import InferenceRun
from memplan.config.runs import Run
from memplan.errors import NotModelledError

if TYPE_CHECKING:
    from memplan.config.library.model import LibraryModel

RELEASES = ("5.23",)
"""Held against real runs, every birth of a step (tests/huggingface)."""


def check_release(version: str) -> None:
    """Raises NotModelledError for a release of the library that the wing has not been held against."""
    release = ".".join(version.split(".")[:2])
    if release not in RELEASES:
        raise NotModelledError(
            f"memplan knows the models of transformers {', '.join(RELEASES)}, not of {version}",
            f'pip install "transformers=={RELEASES[-1]}.*"',
        )


OLDEST, NEWEST = (2, 9), (2, 14)
"""The releases of PyTorch that ran them. Before, x[:, i] was a slice of all rows first, whose gradient is a tensor of
its own wherever a model writes so (torch/csrc/autograd/python_variable_indexing.cpp), and some masks of one token went
to the math kernel."""


def check_torch(release: tuple[int, int]) -> None:
    """Raises NotModelledError for a release of PyTorch before OLDEST."""
    if release < OLDEST:
        raise NotModelledError(
            f"models of transformers are modelled for PyTorch {_named(OLDEST)} and newer, not for {_named(release)}",
            f"--torch {_named(OLDEST)}, or newer",
        )


def assumptions(model: LibraryModel, torch: tuple[int, int], run: Run | None = None) -> list[str]:
    """What an estimate of the library's model takes for granted, by the rules of that release of PyTorch. A `run` is
    one of training where it is not given."""
    name = f"{model.head_class} of transformers {' or '.join(RELEASES)} in eager PyTorch"
    if isinstance(run, InferenceRun):
        lines = _of_generation(model, run, name)
    else:
        lines = [
            f"{name}, trained by a loop of one's own: each step a function that holds the model's outputs, logits "
            "among them, until it ends; use_cache=False",
            "labels are given to the model, which computes its own loss; without padding no attention_mask is passed",
        ]
    if torch > NEWEST:
        held = f"PyTorch {_named(OLDEST)} to {_named(NEWEST)} alone"
        lines.append(f"models of the library have been held against real runs of {held}")
    return lines


def _named(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


def _of_generation(model: LibraryModel, run: InferenceRun, name: str) -> list[str]:
    kind = "StaticCache" if run.cache == "static" else "DynamicCache"
    both = model.architecture == "encoder-decoder"
    lines = [
        f"{name}, in evaluation without gradients by the loop of the library's documentation, not by generate(): the "
        "model is called with past_key_values, and what it returned is held until it returns again",
        f"the cache is made beforehand with the model's configuration ({kind}"
        + (", one for self- and one for cross-attention" if both else "")
        + (
            f", with room for prompt and new tokens, {run.prompt_length + run.new_tokens}"
            if run.cache == "static"
            else ""
        )
        + "); it is the second run of a process that counts",
    ]
    if run.logits == "last" and not model.keeps_logits and run.prompt_length > 1:
        lines.append(f"{model.head_class} has no logits_to_keep: the prompt's logits are all made")
    if not run.padding:
        lines.append("without padding no attention_mask is passed")
    return lines
