"""Settings: frozen dataclasses, from whose fields come the checks, the command-line options and their help texts."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from align.errors import ConfigError, hint


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
    """How the command line takes a setting, where its type does not say so: `Option(short="-o")`.

    Attributes:
        flag: the flag, if it is not the name of the setting.
        short: a second, short flag.
        metavar: placeholder of the value in the help.
        positional: whether the value has no flag.
        parse: converts the text to a value, instead of the type; raises InputError.
    """

    flag: str = ""
    short: str = ""
    metavar: str | None = None
    positional: bool = False
    parse: Callable[[str], Any] | None = None


POSITIONAL = Option(positional=True)


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


def from_text(text: str, annotation: Any) -> Any:
    """Convert a word of the command line to the type of a field.

    The values of a tuple are separated by commas, unless they are paths.

    Raises:
        ConfigError: the text is no such value, or a number out of range.
    """
    kind, notes = unwrap(annotation)
    parts = get_args(kind)
    for note in notes:
        if isinstance(note, Option) and note.parse:
            return note.parse(text)
    if get_origin(kind) is Literal:
        names = {str(choice): choice for choice in parts}
        if text not in names:
            raise ConfigError(f"there is no {text!r}; {hint(text, names)}")
        return names[text]
    if get_origin(kind) is tuple:
        numbers = unwrap(parts[0])[0] in (int, float)
        words = [text] if parts[0] is Path else text.replace(",", " ").split() if numbers else text.split(",")
        parts = parts[:1] * len(words) if parts[-1] is Ellipsis else parts
        if len(words) != len(parts):
            raise ConfigError(f"{text} has {len(words)} numbers, expected {len(parts)} separated by commas")
        return tuple(map(from_text, words, parts))
    if kind not in (int, float):
        return kind(text)
    value: Any = text
    with suppress(ValueError):
        value = kind(text)
    if expected := _mismatch(value, annotation):
        raise ConfigError(f"{text or repr(text)} is not {expected}")
    return value


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
            number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
            # An integer may be too large for isfinite.
            fits = number and note.low <= value <= note.high and (isinstance(value, Integral) or isfinite(value))
            return "" if fits else f"{'an integer' if kind is int else 'a number'} {note}"
    if kind is Any:
        return ""
    if not isinstance(value, origin if origin in (dict, list) else kind):
        return f"a value of type {getattr(kind, '__name__', kind)}"
    if origin is dict:
        return next(
            filter(None, (_mismatch(*pair) for item in value.items() for pair in zip(item, parts, strict=True))), ""
        )
    return ""
