"""The files of a checkpoint as text and as JSON, beside those that were written for real where there are some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.checkpoint.sizes import TORCH
from memplan.huggingface.releases import RELEASES
from memplan.profiles import fields
from memplan.report.layout import Page, Row
from memplan.report.words import exact, model_in_words, spaced
from memplan.units import GB, human

if TYPE_CHECKING:
    from memplan.checkpoint.sizes import Checkpoint, Saving

SCHEMA_VERSION = 1

Written = Mapping[tuple[str, str, str], int]
"""Bytes of files that were written for real, by what is saved, format and name."""

_RUN = ("precision", "optimizer", "optimizer_implementation", "momentum", "gradient_scaling", "master_weights")
"""What of a TrainingRun shows in a checkpoint."""

_FORMATS = {"torch_save": "torch.save", "safetensors": "safetensors"}


def render_checkpoint(
    checkpoint: Checkpoint,
    written: Written | None = None,
    libraries: Mapping[str, str] | None = None,
    *,
    width: int = 80,
    colour: bool = False,
) -> str:
    """Parts and sums of both kinds of checkpoint, then every file; with `written` the real one beside each, and the
    releases of the `libraries` that wrote it."""
    page = Page(width, colour)
    page.paragraph("", model_in_words(checkpoint.model, checkpoint.parameter_count), "bold")
    page.paragraph("", _run_in_words(checkpoint))
    page.skip()
    _sums(page, checkpoint)
    for form, name in _FORMATS.items():
        page.title(f"Files in {name}")
        _files(page, checkpoint, form)
    page.title("What is in them")
    for line in _contents(checkpoint):
        page.paragraph("- ", line)
    if written is not None:
        page.title("Beside files that were written")
        _beside(page, checkpoint, written)
        releases = ", ".join(f"{name} {release}" for name, release in (libraries or {}).items())
        page.paragraph("on disk:  ", f"written by {releases}")
    return page.text()


def _run_in_words(checkpoint: Checkpoint) -> str:
    run = checkpoint.run
    momentum = f", momentum {run.momentum:g}" if run.momentum else ""
    parts = ["checkpoint", run.precision, f"{run.optimizer} ({run.optimizer_implementation}{momentum})"]
    if run.master_weights != "none":
        parts.append("fp32 master weights")
    return ", ".join([*parts, f"after {checkpoint.step:,} {'step' if checkpoint.step == 1 else 'steps'}"])


def _sums(page: Page, checkpoint: Checkpoint) -> None:
    """Tensors are the same in both formats; what is round them is not."""
    alone, whole = checkpoint.weights, checkpoint.training_state
    rows = [_row(name, size, size) for name, size in checkpoint.parts.items()]
    tensors = whole["torch_save"].tensors
    weights = tensors["parameters"] + tensors["buffers"]
    rows.append(_row("weights", weights, weights, style="bold", rule=True))
    for name in ("optimizer_state", "master_weights", "generator_state"):
        if tensors[name]:
            rows.append(_row(spaced(name), 0, tensors[name]))
    for form, name in _FORMATS.items():
        rows.append(_row(f"overhead, {name}", alone[form].overhead, whole[form].overhead, rule=form == "torch_save"))
        rows.append(_row(f"total, {name}", alone[form].size, whole[form].size, style="bold"))
    sizes = [saving["torch_save"].size for saving in (alone, whole)]
    count = max(checkpoint.parameter_count, 1)
    rows.append(Row(["in binary units, torch.save", *map(human, sizes)], "dim", rule=True))
    rows.append(Row(["in GB (10^9 bytes)", *(f"{size / GB:,.2f}" for size in sizes)], "dim"))
    rows.append(Row(["bytes a parameter", *(f"{size / count:.4f}" for size in sizes)], "dim"))
    page.table(["bytes", "weights alone", "training state"], rows)


def _row(name: str, alone: int, whole: int, style: str = "", rule: bool = False) -> Row:
    return Row([name, *(f"{size:,}" if size else "-" for size in (alone, whole))], style, rule)


def _files(page: Page, checkpoint: Checkpoint, form: str) -> None:
    """Each file once: in safetensors the training state has those of the weights, and one more."""
    files = [*checkpoint.weights[form].files]
    files += [file for file in checkpoint.training_state[form].files if file not in files]
    rows = [Row([file.name, human(file.size), f"{file.size:,}", f"{sum(file.overhead.values()):,}"]) for file in files]
    page.table(["file", "size", "bytes", "overhead"], rows)


def _contents(checkpoint: Checkpoint) -> list[str]:
    run, model = checkpoint.run, checkpoint.model
    keys = ["model", "optimizer"]
    training = checkpoint.training_state["torch_save"].files[0]
    if "scaler" in training.overhead:
        keys.append(f"scaler ({training.overhead['scaler']:,} bytes of the pickle)")
    if run.master_weights != "none":
        keys.append("master_weights (a list of fp32 tensors; no layout of DeepSpeed's or Megatron's own)")
    keys += ["step (a number)", "rng_state (of the CPU's generator)"]
    lines = [
        "model.pt: torch.save(model.state_dict(), ...), tied weights once",
        f"checkpoint.pt: torch.save of a dictionary with {', '.join(keys)}",
    ]
    if hasattr(model, "head_class"):
        lines.append(
            f"model*.safetensors: save_pretrained of transformers {RELEASES[-1]} with max_shard_size "
            f"{checkpoint.max_shard_bytes:,} bytes, without its config.json and generation_config.json"
        )
    else:
        lines.append('model.safetensors: safetensors.torch.save_file with {"format": "pt"}, tied weights once')
    lines += [
        "optimizer.pt: torch.save of what checkpoint.pt has beside the model: safetensors holds tensors alone",
        f"written by PyTorch {TORCH[0]}.{TORCH[1]} with all tensors on the CPU; each record of torch.save is named "
        "after its file, so that a longer one costs some bytes more",
    ]
    return lines


def _beside(page: Page, checkpoint: Checkpoint, written: Written) -> None:
    expected = checkpoint.sizes
    rows = []
    for key in [*expected, *(key for key in written if key not in expected)]:
        if key[0] == "training_state" and ("weights", *key[1:]) in expected:
            continue  # the same file as above
        here, there = expected.get(key, 0), written.get(key, 0)
        difference = f"{here - there:+,}" if here != there else "0"
        rows.append(Row([key[2], f"{here:,}", f"{there:,}", difference], "" if here == there else "bold red"))
    page.table(["bytes", "memplan", "on disk", "difference"], rows)
    page.skip()
    exactly = expected == dict(written)
    worst = max((abs(expected.get(key, 0) - written.get(key, 0)) for key in {*expected, *written}), default=0)
    verdict = "exact: 0 bytes of difference in every file" if exactly else f"differs: by up to {exact(worst)} in a file"
    page.paragraph("verdict:  ", verdict, "bold green" if exactly else "bold red")


def checkpoint_to_json(
    checkpoint: Checkpoint, written: Written | None = None, libraries: Mapping[str, str] | None = None
) -> str:
    """The document of version 1, with one line feed at its end. Keys may be added; those that are here stay."""
    run = checkpoint.run
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "request": {
            "model": fields(checkpoint.model),
            "run": {name: getattr(run, name) for name in _RUN},
            "step": checkpoint.step,
            "max_shard_bytes": checkpoint.max_shard_bytes,
        },
        "parameter_count": checkpoint.parameter_count,
        "parts": dict(checkpoint.parts),
        "weights": {form: _saving(saving) for form, saving in checkpoint.weights.items()},
        "training_state": {form: _saving(saving) for form, saving in checkpoint.training_state.items()},
        "contents": _contents(checkpoint),
    }
    if written is not None:
        expected = checkpoint.sizes
        keys = [*expected, *(key for key in written if key not in expected)]
        document["verification"] = {
            "verdict": "exact" if expected == dict(written) else "differs",
            "libraries": dict(libraries or {}),
            "files": [
                {
                    "saved": key[0],
                    "format": key[1],
                    "name": key[2],
                    "estimated_bytes": expected.get(key),
                    "written_bytes": written.get(key),
                }
                for key in keys
            ],
        }
    return json.dumps(document, indent=2) + "\n"


def _saving(saving: Saving) -> dict[str, Any]:
    tensors = saving.tensors
    return {
        "total_bytes": saving.size,
        "weights_bytes": tensors["parameters"] + tensors["buffers"],
        "optimizer_bytes": tensors["optimizer_state"] + tensors["master_weights"],
        "overhead_bytes": saving.overhead,
        "tensors": tensors,
        "files": [
            {
                "name": file.name,
                "size_bytes": file.size,
                "tensors": dict(file.tensors),
                "overhead": dict(file.overhead),
            }
            for file in saving.files
        ],
    }
