"""The files of a checkpoint and their bytes: weights alone, and everything a training run needs to go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memplan.checkpoint.archive import archive
from memplan.checkpoint.pickling import PickleSize
from memplan.checkpoint.safetensors import header_size
from memplan.checkpoint.saved import Entry, ModelState, SavedTensor, state_dict
from memplan.checkpoint.sharding import SHARD_BYTES, index_size, weight_shards
from memplan.checkpoint.training import training_state
from memplan.checkpoint.tree import model_state
from memplan.config.validate import run_from, validate_model
from memplan.errors import ConfigurationError, NotModelledError

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.run import TrainingRun

COMPONENTS = ("parameters", "buffers", "optimizer_state", "master_weights", "generator_state")
"""What the tensors of a checkpoint belong to. All else in its files is overhead."""

STEP = 1000
"""Steps that have been taken, where nobody says how many."""

MOST_STEPS = 2**63 - 1

TORCH = (2, 13)
"""The release of PyTorch whose files these are."""

WEIGHTS_FILE, TRAINING_FILE, OPTIMIZER_FILE = "model.pt", "checkpoint.pt", "optimizer.pt"
INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file. `tensors` are its bytes by component, `overhead` all others by what they are: `pickle` (names, sizes,
    settings of the optimizer), `scaler` (the part of the pickle that a GradScaler adds), `headers` (of the archive's
    records, or of safetensors), `filler` (by which records are aligned), `index`."""

    name: str
    tensors: Mapping[str, int]
    overhead: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self.tensors.values()) + sum(self.overhead.values())


@dataclass(frozen=True, slots=True)
class Saving:
    """One way to save: its files, and sums over them."""

    files: tuple[CheckpointFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def tensors(self) -> dict[str, int]:
        """Bytes of tensors by component, every name of COMPONENTS."""
        return {name: sum(file.tensors.get(name, 0) for file in self.files) for name in COMPONENTS}

    @property
    def overhead(self) -> int:
        """Bytes that are no tensor's."""
        return sum(sum(file.overhead.values()) for file in self.files)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The bytes of a model's checkpoint, in both formats."""

    model: Model
    run: TrainingRun
    step: int
    max_shard_bytes: int
    parameter_count: int
    parts: Mapping[str, int]  # bytes of parameters and saved buffers by module, each storage once
    weights: Mapping[str, Saving]  # by format: torch_save, safetensors
    training_state: Mapping[str, Saving]

    @property
    def savings(self) -> dict[tuple[str, str], Saving]:
        """By what is saved (weights, training_state) and format."""
        both = (("weights", self.weights), ("training_state", self.training_state))
        return {(what, form): saving for what, by_format in both for form, saving in by_format.items()}

    @property
    def sizes(self) -> dict[tuple[str, str, str], int]:
        """Bytes of every file, by what is saved, format and name."""
        return {(*key, file.name): file.size for key, saving in self.savings.items() for file in saving.files}


def checkpoint(model: Model, run: TrainingRun, step: int = STEP, max_shard_bytes: int = SHARD_BYTES) -> Checkpoint:
    """The checkpoint of a model as it is trained by `run`, whose lengths and batch size do not matter, after `step`
    steps, saved from the CPU.

    Raises ConfigurationError for a step or a size that cannot be, NotModelledError for a state that memplan has no
    rule for.
    """
    model = validate_model(model)
    run = run_of_any_length(model, {name: getattr(run, name) for name in run.__dataclass_fields__})
    refuse_unmodelled(run)
    if not 1 <= step <= MOST_STEPS:
        raise ConfigurationError(f"step: must be at least 1 and below 2**63, not {step}")
    if max_shard_bytes < 1:
        raise ConfigurationError(f"max_shard_size: must be at least 1 byte, not {max_shard_bytes}")
    state = model_state(model, run)
    rest = training_state(run, state.parameters, step)
    named = state_dict(state)
    weights = _weights_in_safetensors(state, getattr(model, "head_class", None), max_shard_bytes)
    beside = _in_torch_save(OPTIMIZER_FILE, rest, [], rest)
    everything = _in_torch_save(TRAINING_FILE, {"model": named, **rest}, state.distinct, rest)
    return Checkpoint(
        model=model,
        run=run,
        step=step,
        max_shard_bytes=max_shard_bytes,
        parameter_count=sum(entry.tensor.numel for entry in state.parameters),
        parts=_parts(state.distinct),
        weights={
            "torch_save": Saving((_in_torch_save(WEIGHTS_FILE, named, state.distinct, {}),)),
            "safetensors": Saving(weights),
        },
        training_state={
            "torch_save": Saving((everything,)),
            "safetensors": Saving((*weights, beside)),
        },
    )


_LENGTHS = ("sequence_length", "source_length", "target_length")


def run_of_any_length(model: Model, settings: Mapping[str, object]) -> TrainingRun:
    """A checked run of these settings; lengths that are left out (or 0) are made up, since they leave no trace in what
    is saved."""
    names: tuple[str, ...] = ("sequence_length",)
    if model.architecture == "encoder-decoder":
        names = ("source_length", "target_length")
    elif getattr(model, "tokens_of_an_image", 0):
        names = ()
    given = {name: value for name, value in settings.items() if name not in _LENGTHS or value != 0}
    return run_from(model, {**dict.fromkeys(names, 1), **given})


_DECIDES = ("frozen", "frozen_layers", "lora_rank", "weight_quantization", "optimizer_in_backward")


def refuse_unmodelled(run: TrainingRun) -> None:
    """Raises NotModelledError for a run whose state is saved in a way that memplan does not know."""
    for name in _DECIDES:
        value = getattr(run, name)
        if value != type(run).__dataclass_fields__[name].default:
            raise NotModelledError(f"{name}: what is saved with {_shown(value)} is not modelled yet")


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value).lower()


def _in_torch_save(name: str, saved: Any, entries: Iterable[Entry], rest: Mapping[str, Any]) -> CheckpointFile:
    """The file that torch.save writes for one object: `entries` of a model in it, and the `rest` of a training run."""
    pickle = PickleSize.of(saved)
    file = archive(name.rpartition(".")[0], pickle.size, pickle.storages)
    overhead = {"pickle": pickle.size}
    if "scaler" in rest:
        overhead["pickle"] = PickleSize.of({key: value for key, value in saved.items() if key != "scaler"}).size
        overhead["scaler"] = pickle.size - overhead["pickle"]
    overhead |= {"headers": file.headers, "filler": file.filler}
    return CheckpointFile(name, {**_by_kind(entries), **_by_component(rest)}, overhead)


def _weights_in_safetensors(
    state: ModelState, head_class: str | None, max_shard_bytes: int
) -> tuple[CheckpointFile, ...]:
    shards = weight_shards(state, head_class, max_shard_bytes)
    buffers = {id(entry.tensor) for entry in state.entries if entry.kind == "buffer"}
    files = []
    for name, shard in shards.items():
        header = header_size({piece.name: piece.tensor for piece in shard})
        sizes = {"parameters": 0, "buffers": 0}
        for piece in shard:
            sizes["buffers" if id(piece.tensor) in buffers else "parameters"] += piece.tensor.nbytes
        files.append(CheckpointFile(name, sizes, {"headers": header}))
    if len(files) > 1:
        files.append(CheckpointFile(INDEX_FILE, {}, {"index": index_size(shards, state)}))
    return tuple(files)


def _by_kind(entries: Iterable[Entry]) -> dict[str, int]:
    sizes = {"parameters": 0, "buffers": 0}
    for entry in entries:
        sizes[f"{entry.kind}s"] += entry.tensor.nbytes
    return sizes


def _by_component(rest: Mapping[str, Any]) -> dict[str, int]:
    sizes = {"optimizer_state": 0, "master_weights": 0, "generator_state": 0}
    if "optimizer" in rest:
        for state in rest["optimizer"]["state"].values():
            sizes["optimizer_state"] += sum(tensor.nbytes for tensor in state.values())
    sizes["master_weights"] = sum(tensor.nbytes for tensor in rest.get("master_weights", ()))
    generator = rest.get("rng_state")
    sizes["generator_state"] = generator.nbytes if isinstance(generator, SavedTensor) else 0
    return sizes


def _parts(entries: Iterable[Entry]) -> dict[str, int]:
    """Bytes by part of the model: the layers of a stack together, all else by the first two names of its path, or as
    many as it takes not to be named as what holds a stack."""
    paths = [(entry, entry.name.split(".")[:-1]) for entry in entries]
    stacks = {entry.name: stack for entry, path in paths if (stack := _stack(path))}
    holders = {stack.rpartition(".")[0] for stack in stacks.values()}
    parts: dict[str, int] = {}
    for entry, path in paths:
        part = stacks.get(entry.name) or ".".join(path[: 3 if ".".join(path[:2]) in holders else 2]) or entry.name
        parts[part] = parts.get(part, 0) + entry.tensor.nbytes
    return parts


def _stack(path: Sequence[str]) -> str:
    """The list of layers that a path leads into; nothing where it leads into none."""
    numbered = next((place for place, word in enumerate(path) if word.isdecimal()), 0)
    return ".".join(path[:numbered])
