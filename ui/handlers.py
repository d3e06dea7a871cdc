"""Event handlers of all tabs: options of events, errors as messages on the page, and values as the page sends them."""

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import gradio as gr

from align.errors import InputError
from ui.service import ServiceError, Settings, explain

_FAILED = "That did not work"
# Options of events: short work with the networks runs one at a time, completions wait in ui.turns instead of Gradio's
# queue, and steps of the page are no part of the API.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
TAKING_TURNS: dict[str, Any] = {"concurrency_id": "turns", "concurrency_limit": None}
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def show_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """A handler, or a generator of updates, whose InputErrors appear on the page; other errors stay in the log."""
    if isgeneratorfunction(work):

        @wraps(work)
        def updates(*arguments: Any, **named: Any) -> Iterator[Any]:
            with _errors_on_page():
                yield from work(*arguments, **named)

        return updates

    @wraps(work)
    def update(*arguments: Any, **named: Any) -> Any:
        with _errors_on_page():
            return work(*arguments, **named)

    return update


@contextmanager
def _errors_on_page() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        message = html.escape(explain(error), quote=False)
        raise gr.Error(message, title=_FAILED, print_exception=False) from error


def failed(error: InputError) -> str:
    """An error as Markdown for the status."""
    return f"**{_FAILED}.** {escape(explain(error).rstrip('.'))}."


def escape(text: str) -> str:
    """Text without Markdown: names of files come from strangers."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|~&])", r"\\\1", text)


def to_int(value: Any) -> Any:
    """A whole number from JSON, where it may be a float; anything else as it is, for Settings to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_seed(value: Any) -> int:
    return Settings(seed=to_int(value)).seed


def visitor(request: gr.Request) -> str:
    """Who sent a request: the user name or, without a login, the address."""
    return request.username or request.client.host


def photo_path(photo: dict[str, Any] | str | None) -> Path:
    """Where the uploaded photo is."""
    if not photo:
        raise ServiceError("There is no photo yet. Load one, or try an example face.")
    return Path(photo if isinstance(photo, str) else photo["path"])
