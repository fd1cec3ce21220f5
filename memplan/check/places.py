"""Where in a TOML text something is written: tomllib tells the values and forgets their lines."""

from __future__ import annotations

Path = tuple[str, ...]

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class Places:
    """The lines of a valid TOML text's tables and keys."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        table: Path = ()
        closing = ""  # of a text over several lines, inside of which nothing is a key
        for number, line in enumerate(text.split("\n"), start=1):
            if closing:
                closing = "" if closing in line else closing
                continue
            stripped = line.strip()
            if stripped.startswith("["):
                path, _ = _keys(stripped.lstrip("["))
                if path:
                    table = path
                    self._note(path, number)
                continue
            path, rest = _keys(stripped)
            if path and rest.startswith("="):
                for end in range(1, len(path) + 1):
                    self._note(table + path[:end], number)
            closing = next((quotes for quotes in ('"""', "'''") if line.count(quotes) % 2), "")

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)

    def line(self, path: Path) -> int:
        """The line of a key, else of the table it would be in, else of a table inside of it; 0 for what is not there
        at all."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return min((line for known, line in self.lines.items() if known[: len(path)] == path), default=0)

    def exact(self, path: Path) -> int:
        """The line of exactly that key or table; 0 where it has none of its own."""
        return self.lines.get(path, 0)


def _keys(text: str) -> tuple[Path, str]:
    """The dotted key that a text begins with, and what comes after it; no key where it begins with something else."""
    keys: list[str] = []
    while True:
        text = text.lstrip(" \t")
        key, text = _key(text)
        if key is None:
            return (), ""
        keys.append(key)
        text = text.lstrip(" \t")
        if not text.startswith("."):
            return tuple(keys), text
        text = text[1:]


def _key(text: str) -> tuple[str | None, str]:
    quote = text[:1]
    if quote == "'":
        end = text.find("'", 1)
        return (None, "") if end < 0 else (text[1:end], text[end + 1 :])
    if quote == '"':
        end = 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        if end >= len(text):
            return None, ""
        return _unescaped(text[: end + 1]), text[end + 1 :]
    end = 0
    while end < len(text) and text[end] in _BARE:
        end += 1
    return (text[:end], text[end:]) if end else (None, "")


def _unescaped(quoted: str) -> str | None:
    if "\\" not in quoted:
        return quoted[1:-1]
    import tomllib

    try:
        return str(tomllib.loads(f"key = {quoted}")["key"])
    except ValueError:
        return None


def spelled(path: Path) -> str:
    """A path as TOML writes it: names that are no bare keys in quotes."""
    return ".".join(key if key and _BARE.issuperset(key) else _quoted(key) for key in path)


def _quoted(key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in escaped) + '"'
