"""What the user named, made into a configuration: a preset, a TOML file, or a Hugging Face config.json.

A TOML file holds a request:

    device = "cpu"            # optional

    [model]
    preset = "gpt2"           # optional: the keys below change it
    num_layers = 4

    [run]                     # optional; mode = "generate" makes it a run that writes
    sequence_length = 512
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from memplan.config import presets
from memplan.config.fields import Problem, check_fields, did_you_mean, lines_of, refuse, show
from memplan.config.inference import InferenceRun
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import check_model, check_run_fields, model_from, run_from
from memplan.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

_GENERATING = tuple(name for name in InferenceRun.__dataclass_fields__ if name not in TrainingRun.__dataclass_fields__)
"""Keys of a run that generates alone."""

IMPLEMENTATIONS = ("reference", "transformers")
"""Whose code runs the model: memplan's reference transformer, or Hugging Face's library."""

_LIST_PRESETS = "`memplan presets` lists them; a .toml file or a Hugging Face config.json will do as well"


def load_model(
    source: str | os.PathLike[str],
    overrides: Mapping[str, object] | None = None,
    implementation: str | None = None,
) -> Model:
    """The model of that name or path, with `overrides` laid over its fields.

    A preset's name wins over a file of the same name; `./gpt2` names the file. `implementation` is one of
    IMPLEMENTATIONS; left out, a preset and a TOML file are the reference transformer's and a config.json is the
    library's that it was written by. `org/name` asks the Hugging Face hub, where its package is installed.
    """
    path = _path_of(source, "model")
    changes = dict(overrides or {})
    check_implementation(implementation)
    if implementation == "transformers" and (path in presets.names() or path.lower().endswith(".toml")):
        raise ConfigurationError(
            f"implementation: {show(path)} is the reference transformer's alone", "a config.json has both"
        )
    if path in presets.names():
        return load_preset(path, changes)
    if os.path.isdir(path):
        path = os.path.join(path, "config.json")
        if not os.path.isfile(path):
            raise ConfigurationError(f"{os.path.dirname(path)}: a directory without a config.json")
    if path.lower().endswith(".toml"):
        return load_request(path, changes)[0]
    if path.lower().endswith(".json") or os.path.isfile(path):
        return _load_config_json(path, changes, implementation)
    if _names_a_repository(path):
        from memplan.config.library.hub import config_file

        suggestion = did_you_mean(path.partition("/")[2], presets.names()).replace("did you mean", "or the preset")
        return _load_config_json(config_file(path, suggestion), changes, implementation, path)
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    raise ConfigurationError(
        f"model: {show(path)} is neither a preset nor a file{did_you_mean(last, presets.names())}", _LIST_PRESETS
    )


def load_preset(name: str, overrides: Mapping[str, object] | None = None) -> Transformer:
    """The reference transformer of a preset, with `overrides` laid over its fields."""
    return model_from(_changed(presets.read(name), dict(overrides or {})))


def check_implementation(name: str | None) -> None:
    """Raises ConfigurationError for an implementation that memplan does not know."""
    if name is not None and name not in IMPLEMENTATIONS:
        raise ConfigurationError(
            f"implementation: must be one of {', '.join(IMPLEMENTATIONS)}, not {show(name)}"
            f"{did_you_mean(name, IMPLEMENTATIONS)}"
        )


def _names_a_repository(path: str) -> bool:
    """Whether a text can be `org/name` on the hub: two words, and nothing of that name here."""
    words = path.split("/")
    plain = all(word and word.strip(".") and all(sign.isalnum() or sign in "-_." for sign in word) for word in words)
    return len(words) == 2 and plain and not os.path.exists(words[0])


def load_request(
    path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None
) -> tuple[Transformer, dict[str, object], str | None]:
    """The model, the keys of the run and the name of the device in a TOML file; `overrides` change the model."""
    from memplan.config.documents import parse_toml, read_text

    where = _path_of(path, "request")
    text = read_text(where)
    document = parse_toml(text, where)
    locate = _toml_locator(text, where)
    lines = lines_of(_top_level_problems(document), locate(""))
    model, problems = _model_of(document.get("model"), dict(overrides or {}))
    from_file = locate("model")
    lines += lines_of(problems, lambda key: "" if overrides and key in overrides else from_file(key))
    run = document.get("run", {})
    run = run if isinstance(run, dict) else {}
    lines += lines_of(_placed(_problems_of_run(run), (*_run_keys(), "mode"), "run"), locate("run"))
    if lines:
        refuse(lines)
    device = document.get("device")
    return model, run, device if isinstance(device, str) else None


def parse_override(text: str) -> tuple[str, object]:
    """`attention_dropout=0` as a key and its value, read as TOML reads it; a bare word is text."""
    import tomllib  # 2 ms, and only --set needs it

    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key or not value:
        raise ConfigurationError(f"{show(text)}: must be key=value, such as attention_dropout=0")
    try:
        document = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, so text: activation=swiglu
        return key, value
    return (key, document["value"]) if list(document) == ["value"] else (key, value)


def build_run(model: Model, options: Mapping[str, object]) -> Run:
    """The run that these options ask for; an option of None was not given. It is checked against the model. The option
    `mode` says what kind of run it is: train or generate."""
    given = {key: value for key, value in options.items() if value is not None}
    mode = given.pop("mode", "train")
    if mode == "train":
        foreign = [name for name in given if name in _GENERATING]
        if foreign:
            refuse(lines_of((name, 'belongs to mode = "generate": give --mode generate') for name in foreign))
        return run_from(model, given)
    if mode != "generate":
        raise ConfigurationError(f"mode: must be train or generate, not {show(mode)}")
    from memplan.config.generation import inference_from

    return inference_from(model, given)


def _path_of(source: str | os.PathLike[str], what: str) -> str:
    try:
        path = os.fspath(source)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise ConfigurationError(f"{what}: must be a name or a path, not {show(source)}")
    return path


def _changed(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """`base` with `changes`, under a name that does not claim to be the original."""
    values = {**base, **changes}
    if "name" not in changes and any(key not in base or base[key] != value for key, value in changes.items()):
        values["name"] = f"{base.get('name', 'custom')} (modified)"
    return values


def _load_config_json(
    path: str, changes: Mapping[str, object], implementation: str | None, name: str | None = None
) -> Model:
    from memplan.config.documents import parse_json, read_text
    from memplan.config.huggingface import locator, translate

    where = name or path
    try:
        text = read_text(path)
    except ConfigurationError as error:
        close = nearest(os.path.basename(os.path.dirname(path)) or path, presets.names())
        raise ConfigurationError(error.message, f'did you mean the preset "{close}"?' if close else None) from None
    document = parse_json(text, where)
    if implementation == "reference":
        values, origins = translate(document, where)
        from_file = locator(where, origins)
        changed = _changed(values, changes)
        return model_from(changed, lambda field: "" if field in changes else from_file(field))
    from memplan.config.library.model import library_model_from, read_values
    from memplan.config.library.types import library_type

    kind = library_type(document.get("model_type"), where)
    values, origins = read_values(kind, document, where)
    from_file = locator(where, origins)
    if name is not None:
        values["name"] = name.rpartition("/")[2]
    changed = _changed(values, changes)
    return library_model_from(kind, changed, lambda field: "" if field in changes else from_file(field))


def _top_level_problems(document: Mapping[str, object]) -> list[Problem]:
    problems: list[Problem] = []
    if "model" not in document:
        problems.append(("model", "is missing: name a preset or give its sizes under a [model] heading"))
    for key, value in document.items():
        if key in ("model", "run"):
            if not isinstance(value, dict):
                problems.append((key, f"must be a table under a [{key}] heading, not {show(value)}"))
        elif key != "device":
            problems.append((key, ""))
        elif not isinstance(value, str):
            problems.append((key, f"must be a name such as cpu or h100-80gb, not {show(value)}"))
    return _placed(problems, ("model", "run", "device"), "")


def _toml_locator(text: str, where: str) -> Callable[[str], Callable[[str], str]]:
    """For a table's name, what says `file:line: ` of a key in it."""
    from memplan.config.documents import line_of

    def in_table(table: str) -> Callable[[str], str]:
        def locate(key: str) -> str:
            line = line_of(text, table, key)
            return f"{where}:{line}: " if line else f"{where}: "

        return locate

    return in_table


def _model_of(table: object, changes: Mapping[str, object]) -> tuple[Transformer, list[Problem]]:
    """The model of a [model] table: its own keys over those of its preset."""
    own = {**table, **changes} if isinstance(table, dict) else dict(changes)
    preset = own.pop("preset", None)
    if preset is None:
        model, problems = check_model(own)
        # without a table that it is missing has been said, and what its keys would have been need not be
        return model, _placed(problems, _model_keys(), "model") if isinstance(table, dict) else []
    if isinstance(preset, str) and preset in presets.names():
        model, problems = check_model(_changed(presets.read(preset), own))
        return model, _placed(problems, _model_keys(), "model")
    close = did_you_mean(preset, presets.names()) if isinstance(preset, str) else ""
    problem = ("preset", f"must be the name of a preset, not {show(preset)}{close} (`memplan presets` lists them)")
    # what the unknown preset would have given cannot be told, so only the keys beside it are checked, each by itself
    alone = [found for found in check_fields(Transformer, own)[1] if found[0] in own]
    return check_model(own)[0], [problem, *_placed(alone, _model_keys(), "model")]


def _model_keys() -> tuple[str, ...]:
    return ("preset", *(field.name for field in fields(Transformer)))


def _run_keys() -> tuple[str, ...]:
    """Of either kind of run."""
    return (*(field.name for field in fields(TrainingRun)), *_GENERATING)


def _problems_of_run(table: Mapping[str, object]) -> list[Problem]:
    """The problems of a [run] table's keys by themselves. Its key `mode` says what kind of run it is: train, where it
    is left out."""
    values = dict(table)
    mode = values.pop("mode", "train")
    if mode == "train":
        return [
            (key, 'belongs to mode = "generate"' if key in _GENERATING else text)
            for key, text in check_run_fields(values)
        ]
    if mode != "generate":
        return [("mode", f"must be train or generate, not {show(mode)}")]
    from memplan.config.generation import check_inference_fields

    return check_inference_fields(values)


def _placed(problems: list[Problem], known: tuple[str, ...], table: str) -> list[Problem]:
    """The problems, where a key that is not known in `table` says where it belongs, if anywhere."""
    homes = (("under [model]", _model_keys()), ("under [run]", _run_keys()), ("above the first heading", ("device",)))
    placed: list[Problem] = []
    for key, text in problems:
        if key not in known:
            home = next((place for place, keys in homes if key in keys), None)
            text = f"belongs {home}" if home else "is not a known key" + did_you_mean(key, known)
        placed.append((key, text))
    return placed
