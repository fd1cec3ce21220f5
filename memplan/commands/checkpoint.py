"""`memplan checkpoint MODEL`: how long the files of a checkpoint are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memplan.commands import options
from memplan.commands.run_options import with_run

if TYPE_CHECKING:
    from memplan.checkpoint.sizes import Checkpoint

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@with_run(
    "mode", "micro_batch_size", "sequence_length", "source_length", "target_length", "gradient_accumulation_steps",
    "attention", "gradient_clipping", "recompute", "recompute_every", "loss", "loss_chunks", "lora_dropout", "padding",
    "prompt_length", "new_tokens", "cache", "cache_dtype", "cache_block_size", "logits", "sampling",
    "quantization_group_size",
)  # fmt: skip
def command(
    model: options.Model,
    *,
    run: dict[str, Any],
    step: Annotated[
        str,
        typer.Option("--step", metavar="N", help="Steps that have been taken: a larger number needs more digits."),
    ] = "1000",
    max_shard_size: Annotated[
        str,
        typer.Option(
            "--max-shard-size", metavar="SIZE", help="Of save_pretrained, for models of transformers: 50GB or 500MB."
        ),
    ] = "50GB",
    settings: options.Settings = None,
    implementation: options.Implementation = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write the files for real and show both sides; needs torch.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with integer bytes instead of text.")] = False,
) -> int:
    """Say how long the files of a checkpoint are, to the byte: weights alone, and all that training needs to go on,
    written by torch.save and in safetensors.

    With --verify exit code 1 where a file that is really written has another length.

    Example: memplan checkpoint llama-3-8b --precision bf16 --master-weights megatron
    """
    from memplan.checkpoint.sizes import checkpoint, run_of_any_length
    from memplan.commands.output import colour, columns, write
    from memplan.commands.request import read

    steps = options.size("--step", step)
    shard_bytes = _shard_bytes(max_shard_size)
    configuration, run_keys, _ = read(model, settings or [], implementation)
    training = run_of_any_length(configuration, {**run_keys, **run})
    result = checkpoint(configuration, training, steps, shard_bytes)
    written, libraries = _write_for_real(result) if verify else (None, {})
    if as_json:
        from memplan.report.checkpoint import checkpoint_to_json

        write(checkpoint_to_json(result, written, libraries))
    else:
        from memplan.report.checkpoint import render_checkpoint

        write(render_checkpoint(result, written, libraries, width=columns(), colour=colour()))
    return 0 if written is None or written == result.sizes else 1


def _shard_bytes(text: str) -> int:
    """`50GB` as bytes; powers of 1,000, as the library has them."""
    from memplan.errors import ConfigurationError

    number = text.strip().upper()
    unit = next((unit for unit in ("KB", "MB", "GB", "TB", "B") if number.endswith(unit)), "")
    digits = number.removesuffix(unit).strip()
    try:
        size = int(float(digits) * _UNITS[unit or "B"])
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise ConfigurationError(f"--max-shard-size: must be a size, not {text[:40]!a}", "for example 50GB or 500MB")
    return size


def _write_for_real(checkpoint: "Checkpoint") -> tuple[dict[tuple[str, str, str], int], dict[str, str]]:
    """Bytes of every file, and the releases of what wrote them."""
    import importlib.util
    import os
    import sys
    import tempfile
    from contextlib import redirect_stdout

    from memplan.errors import MissingDependencyError
    from memplan.measure.disk import check_room

    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "verifying writes real checkpoints, and torch is not installed", 'pip install "memplan[torch]"'
        )
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported, as in memplan/measure/child.py
    with tempfile.TemporaryDirectory(prefix="memplan-") as folder, redirect_stdout(sys.stderr):
        check_room(checkpoint, folder)
        from memplan.measure.checkpoint import libraries, write_checkpoint

        model = checkpoint.model
        sizes = write_checkpoint(model, checkpoint.run, checkpoint.step, checkpoint.max_shard_bytes, folder)
        return sizes, libraries(model)
