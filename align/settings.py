"""The one check of settings: types, choices, and the range of every number, declared beside its field."""

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


def plain_type(annotation: Any) -> Any:
    """Return the type of an annotation without its range; for a Literal, the type of its choices."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    return type(get_args(annotation)[0]) if get_origin(annotation) is Literal else annotation


def _mismatch(value: Any, annotation: Any) -> str:
    """What was expected instead of the value; empty if it fits."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _out_of_range(value, *parts)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in parts)
        return "" if fits else f"one of {', '.join(map(str, parts))}"
    if NoneType in parts:
        [other] = set(parts) - {NoneType}
        return "" if value is None else _mismatch(value, other)
    if origin is tuple:
        odd = [_mismatch(item, parts[0]) for item in value] if isinstance(value, tuple) else ["a tuple"]
        return next(filter(None, odd), "")
    return "" if isinstance(value, annotation) else f"a value of type {annotation.__name__}"


def _out_of_range(value: Any, kind: type, allowed: Range) -> str:
    number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    fits = number and isfinite(value) and allowed.low <= value <= allowed.high
    return "" if fits else f"{'an integer' if kind is int else 'a number'} {allowed}"
