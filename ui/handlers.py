"""Event handlers of all tabs: which run alone, and how errors and numbers pass between page and service."""

import re
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from align.errors import InputError
from ui.service import ServiceError, Settings

_FAILED = "That did not work"
# Options of an event: one at a time of those that need the networks; no part of the API.
ALONE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
QUIET: dict[str, Any] = {"api_visibility": "private"}


def calmly(work: Callable[..., Any]) -> Callable[..., Any]:
    """Show an InputError on the page; every other error stays in the log."""

    @wraps(work)
    def calm(*arguments: Any, **named: Any) -> Any:
        try:
            return work(*arguments, **named)
        except InputError as error:
            raise _told_error(error) from error

    return calm


def calmly_each(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for generators."""

    @wraps(work)
    def calm(*arguments: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from work(*arguments, **named)
        except InputError as error:
            raise _told_error(error) from error

    return calm


def _told_error(error: Exception) -> gr.Error:
    return gr.Error(_words(error), title=_FAILED, print_exception=False)


def refusal(error: Exception) -> str:
    """What went wrong: in the corner of the page for a while, and where the next step is told until it is mended."""
    gr.Warning(_words(error), title=_FAILED)
    return f"**{_FAILED}.** {_words(error)}"


def _words(error: Exception) -> str:
    words = re.sub(r"say where it is \(.*?\), ", "", str(error))  # the page has no such fields
    return plain(words[:1].upper() + words[1:])


def plain(text: str) -> str:
    """Names of files are other people's words: nothing in them is markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|~&])", r"\\\1", text)


def whole(value: Any) -> Any:
    """A number as pages send it; whether it will do, Settings tells."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_seed(value: Any) -> int:
    return Settings(seed=whole(value)).seed


def loaded(photo: dict[str, Any] | str | None) -> Path:
    if not photo:
        raise ServiceError("There is no photo yet: load one, or try an example face.")
    return Path(photo if isinstance(photo, str) else photo["path"])
