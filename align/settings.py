"""Settings: frozen dataclasses, from whose fields come the checks, the command-line options and their help texts."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from align.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Range of a number in a settings class, both ends included: `lr: Annotated[float, Range(0, 1)]`."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}"


SEEDS = Range(0, 2**63 - 1)


@dataclass(frozen=True)
class Option:
    """How the command line takes a setting, where its type does not say so: `Annotated[Path, "help", Option("-o")]`.

    Attributes:
        flag: the flag, if it is not the name of the setting.
        short: a second, short flag.
        metavar: placeholder of the value in the help.
        positional: whether the value has no flag.
        exclusive: settings with the same word here exclude each other.
        parse: converts the text to a value, instead of the type; raises InputError.
    """

    flag: str = ""
    short: str = ""
    metavar: str | None = None
    positional: bool = False
    exclusive: str = ""
    parse: Callable[[str], Any] | None = None


def check(settings: Any) -> None:
    """Check every field of a settings dataclass against its type.

    Raises:
        ConfigError: a field has another type, is none of its choices, is not finite, or is out of its range.
    """
    for item in fields(settings):
        value = getattr(settings, item.name)
        expected = _mismatch(value, item.type)
        if expected:
            raise ConfigError(f"{item.name} is {value!r}; expected {expected}")


def unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Take a field's type apart.

    Returns:
        The type without `Annotated` and `| None`; and what it was annotated with: a Range, a help text, an Option, and
        None if None is allowed.
    """
    notes: list[Any] = []
    while True:
        parts = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation, *found = parts
            notes += found
        elif NoneType in parts:
            [annotation] = [part for part in parts if part is not NoneType]
            notes.append(None)
        else:
            return annotation, notes


def plain_type(annotation: Any) -> Any:
    """Return the type of an annotation without its range; for a Literal, the type of its choices."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    return type(get_args(annotation)[0]) if get_origin(annotation) is Literal else annotation


def _mismatch(value: Any, annotation: Any) -> str:
    """What was expected instead of the value; empty if it fits."""
    kind, notes = unwrap(annotation)
    if value is None and None in notes:
        return ""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in parts)
        return "" if fits else f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        if parts[-1] is Ellipsis:
            parts = parts[:1] * len(value)
        if len(value) != len(parts):
            return f"{len(parts)} values"
        return next(filter(None, map(_mismatch, value, parts)), "")
    for note in notes:
        if isinstance(note, Range):
            return _out_of_range(value, kind, note)
    return "" if isinstance(value, kind) else f"a value of type {kind.__name__}"


def _out_of_range(value: Any, kind: type, allowed: Range) -> str:
    number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    fits = number and isfinite(value) and allowed.low <= value <= allowed.high
    return "" if fits else f"{'an integer' if kind is int else 'a number'} {allowed}"
