"""Reads the files a user names. Whatever is in them, a document comes out or a ConfigurationError that says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from memplan.errors import ConfigurationError

_MOST_BYTES = 16 * 2**20
"""Far above any configuration; keeps a checkpoint or a device file that was named by mistake out of memory."""

Document = TypeVar("Document")


def read_text(path: str) -> str:
    """The text of a file."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path}: is a directory, not a file") from None
    except ValueError:  # a NUL in the path
        raise ConfigurationError(f"{path!a}: not a possible path") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{path}: larger than 16 MiB, which no configuration is")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: not a text file in UTF-8") from None
    if "\0" in text:
        raise ConfigurationError(f"{path}: a binary file, not text")
    if not text.strip():
        raise ConfigurationError(f"{path}: the file is empty")
    return text


def parse_toml(text: str, path: str) -> dict[str, object]:
    """The tables of a TOML text; `path` is for messages."""
    import tomllib  # 2 ms, and presets do without

    def parse() -> dict[str, object]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}{_toml_place(text, str(error))}") from None

    return _guarded(parse, path)


def _toml_place(text: str, message: str) -> str:
    """`:line:column: message` out of tomllib's `message (at line 3, column 7)`."""
    what, _, place = message.rpartition(" (at ")
    numbers = "".join(character if character.isdigit() else " " for character in place).split()
    if len(numbers) != 2:  # "(at end of document)"
        numbers = [str(text.rstrip("\n").count("\n") + 1), str(len(text.rstrip("\n").rpartition("\n")[2]) + 1)]
    return f":{numbers[0]}:{numbers[1]}: not valid TOML: {what or message}"


def parse_json(text: str, path: str) -> dict[str, object]:
    """The object of a JSON text; `path` is for messages. NaN and Infinity pass: a field that uses them refuses them."""
    import json  # 2 ms, and only config.json needs it

    def no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        document: dict[str, object] = {}
        for key, value in pairs:
            if key in document:
                raise ConfigurationError(f"{path}: the key {key!a} is given twice; keep one")
            document[key] = value
        return document

    def parse() -> object:
        try:
            return json.loads(text, object_pairs_hook=no_duplicates)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None

    document = _guarded(parse, path)
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: must hold a JSON object, as a Hugging Face config.json does")
    return document


def _guarded(parse: Callable[[], Document], path: str) -> Document:
    try:
        return parse()
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply") from None
    except ValueError:  # Python refuses to read an integer of more than 4,300 digits
        raise ConfigurationError(f"{path}: holds a number of thousands of digits") from None


def line_of(text: str, table: str, key: str) -> int | None:
    """The line of `key` in a TOML text's `table` ("" for the top level), or of the table's header where key is "".

    A scan, good enough for a message: where an unusual spelling hides the key, None or the table's line comes back.
    """
    current, header = "", None
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped.startswith("[") and "]" in stripped:
            current = _bare(stripped.strip("[").partition("]")[0])
            if not table and current == key:  # the key is a table
                return number
            if current == table and header is None:
                header = number
            continue
        name = _bare(stripped.partition("=")[0]) if "=" in stripped else ""
        if current == table and key and name == key:
            return number
        if current == "" and table and name in (table, f"{table}.{key}"):  # `model = {...}` and `model.key = ...`
            header = number
            if name != table:
                return number
    return header


def _bare(name: str) -> str:
    return name.strip().strip("\"'")
