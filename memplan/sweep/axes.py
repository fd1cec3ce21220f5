"""What is varied: `sequence_length=1024:32768:x2`, `attention=naive,flash`, `device=a100-80gb,h100-80gb`."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.fields import did_you_mean, show
from memplan.config.runs import KINDS
from memplan.errors import ConfigurationError

MOST_VALUES = 10_000

Value = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting and its values. `key` is a field of a run, `device`, or `model.FIELD`."""

    key: str
    values: tuple[Value, ...]

    @property
    def numeric(self) -> bool:
        """Whether it can be an axis of a plot."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)


def parse_axis(text: str) -> Axis:
    """`key=a,b,c`, `key=START:STOP:STEP` or `key=START:STOP:xFACTOR`, STOP included where it is met. Raises
    ConfigurationError that says what would be right."""
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not key or not values:
        raise ConfigurationError(
            f"{show(text)}: must be KEY=VALUES", "for example sequence_length=1024:32768:x2 or attention=naive,flash"
        )
    known = ["device", *dict.fromkeys(name for kind in KINDS.values() for name in kind.__slots__)]
    if key not in known and not key.startswith("model."):
        raise ConfigurationError(
            f"{key[:60]!a} is not a setting{did_you_mean(key, known)}", "model.FIELD is one as well"
        )
    if ":" in values and key != "device":
        return Axis(key, tuple(_range(key, values)))
    found = tuple(_value(part.strip()) for part in values.split(","))
    if len(set(found)) < len(found):
        raise ConfigurationError(f"{key}: a value is given twice in {show(values)}")
    return Axis(key, found)


def _range(key: str, text: str) -> list[int]:
    parts = text.split(":")
    if len(parts) != 3:
        raise ConfigurationError(f"{key}: {show(text)} must be START:STOP:STEP, or START:STOP:xFACTOR")
    start, stop = _whole(key, parts[0]), _whole(key, parts[1])
    grows = parts[2].strip().startswith("x")
    step = _whole(key, parts[2].strip().removeprefix("x"))
    if start < 1 or stop < start:
        raise ConfigurationError(f"{key}: {show(text)} must go from at least 1 upwards")
    if step < (2 if grows else 1):
        raise ConfigurationError(f"{key}: {show(parts[2])} does not go upwards", "for example x2, or 512")
    values = []
    value = start
    while value <= stop:
        values.append(value)
        if len(values) > MOST_VALUES:
            raise ConfigurationError(f"{key}: more than {MOST_VALUES:,} values")
        value = value * step if grows else value + step
    return values


def _whole(key: str, text: str) -> int:
    try:
        return int(text.strip().replace("_", ""))
    except ValueError:
        raise ConfigurationError(f"{key}: {show(text.strip())} is not a whole number") from None


def _value(text: str) -> Value:
    from memplan.config.load import parse_override

    value = parse_override(f"value={text}")[1] if text else ""
    if not isinstance(value, (int, float, str, bool)) or value == "":
        raise ConfigurationError(f"{show(text)} is no value of a setting")
    return value
