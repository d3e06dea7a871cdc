"""The ranges of all settings: at and beyond both ends, NaN, infinity and other types."""

import math
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any, get_args, get_origin

import pytest

import align.config
import completion.benchmark.config
import completion.config
import dcgan.config
from align.config import AlignOptions
from align.errors import ConfigError
from align.settings import Range, unwrap
from completion.benchmark.config import BenchmarkOptions
from completion.config import SOLVERS, FileOptions, FillOptions, LoadOptions
from dcgan.config import (
    EncoderConfig,
    EvaluateOptions,
    FinderConfig,
    LocatorConfig,
    NetworkConfig,
    OctaveConfig,
    RunConfig,
    TrainConfig,
)

# Valid settings of every class.
SETTINGS: list[Any] = [
    *(AlignOptions(), FileOptions("center"), FillOptions(), LoadOptions(), BenchmarkOptions(), SOLVERS["paper"]),
    *(
        EncoderConfig(),
        EvaluateOptions(),
        FinderConfig(),
        LocatorConfig(),
        NetworkConfig(),
        OctaveConfig(),
        RunConfig(),
    ),
    TrainConfig(),
]


def ranges(annotation: Any) -> list[tuple[type, Range]]:
    """Every number in a type, with its range."""
    kind, notes = unwrap(annotation)
    if kind in (int, float):
        return [(kind, next((note for note in notes if isinstance(note, Range)), Range(math.nan, math.nan)))]
    return [found for part in get_args(kind) for found in ranges(part)]


def numbers() -> Iterator[Any]:
    for settings in SETTINGS:
        for item in fields(settings):
            for kind, allowed in ranges(item.type):
                yield pytest.param(settings, item, kind, allowed, id=f"{type(settings).__name__}.{item.name}")


def test_every_settings_class_is_tested() -> None:
    modules = (align.config, dcgan.config, completion.config, completion.benchmark.config)
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    }
    assert found == {type(settings) for settings in SETTINGS}


@pytest.mark.parametrize(("settings", "item", "kind", "allowed"), list(numbers()))
def test_a_number_is_accepted_in_its_range_and_refused_outside(
    settings: Any, item: Field[Any], kind: type, allowed: Range
) -> None:
    def change(value: object) -> Any:
        kind, _ = unwrap(item.type)
        values = (value,) * max(1, get_args(kind).count(get_args(kind)[0])) if get_origin(kind) is tuple else value
        return replace(settings, **{item.name: values})

    assert allowed.low < allowed.high, f"{item.name} has no range"
    change(kind(allowed.low)), change(kind(allowed.high))
    step = 1 if kind is int else max(1e-12, abs(allowed.high) * 1e-9)
    beyond = [allowed.low - step, allowed.high + step, -(10**23), 10**23]
    for value in [*beyond, math.nan, math.inf, -math.inf, "1", True, [], *([1.5] if kind is int else [])]:
        with pytest.raises(ConfigError) as refused:
            change(value)
        assert str(refused.value).startswith(f"{item.name} is ")
        assert f"from {allowed.low} to {allowed.high}" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 64.0}, "size is 64.0; expected an integer from 16 to 256"),
        ({"size": 48}, "size is 48; expected 16, 32, 64, 128 or 256"),
        ({"size": "64"}, "size is '64'; expected an integer"),
        ({"upsample": 5}, "upsample is 5; expected a value of type str"),
        ({"d_norm": None}, "d_norm is None; expected one of none, batch, spectral"),
        ({"kernel": 3}, "kernel is 3; expected one of 4, 5"),
        ({"upsample": "nearest,nearest"}, "upsample has 2 kinds; expected one, or one for each of the 4 doublings"),
    ],
)
def test_choices_and_types_are_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NetworkConfig(**change)
