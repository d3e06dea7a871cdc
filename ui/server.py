"""What stands between the page and a network: closed doors, limits, headers, and a calm end."""

import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Everything the page and its clients use. The rest of what Gradio offers is closed: among it /component_server, whose
# accept_blobs takes gigabytes for a small request, and /proxy=, which fetches from elsewhere.
_GET = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*|logout|(static|assets|svelte)/.*)/?"
    r"|/gradio_api/(info|app_id|user|login_check|theme\.css|startup-events|upload_progress|queue/(data|status)"
    r"|heartbeat/\w+|call/\w+/\w+|file=(?!(?i:https?:)).*)/?"
)
_POST = re.compile(r"/login/?|/gradio_api/(upload|cancel|reset|queue/join|run/predict|call/\w+)/?")
_HEADERS = {
    # Gradio's page has scripts and styles of its own inside, and its drawing canvas compiles shaders with eval.
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    b"font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    b"base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
}
_JSON_BYTES = 2**20
_SPARE_BYTES = 2**30  # of the disk, which uploads leave to others
_FETCH_S = 2  # in which a page begins to fetch the files that an answer names


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: the application.
        upload_bytes: most bytes of an upload, all of its files together.
    Attributes:
        state: shared with whoever made the middleware: "requests" counts those that are being answered, "closing" says
            that no new work is taken.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int, state: dict[str, Any]) -> None:
        self.app = app
        self.upload_bytes = upload_bytes
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        refusal, receive = await self._refusal(scope, receive)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        # A page that is merely open has a heartbeat, which never ends.
        counts = "/heartbeat/" not in scope["path"]
        self.state["requests"] += counts
        try:
            await self._answer(scope, receive, _with_headers(send))
        finally:
            self.state["requests"] -= counts

    async def _refusal(self, scope: Scope, receive: Receive) -> tuple[PlainTextResponse | None, Receive]:
        """Why a request is not passed on, if so; and its body, to be read again."""
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path == "/healthz":
            closing = self.state["closing"]
            return PlainTextResponse("closing" if closing else "ok", 503 if closing else 200), receive
        allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST, "OPTIONS": _POST}.get(method)
        if allowed is None or not allowed.fullmatch(path):
            return PlainTextResponse("not found", 404), receive
        if method != "POST":
            return None, receive
        if Headers(scope=scope).get("sec-fetch-site") == "cross-site":
            return PlainTextResponse("work is taken from this page alone, not from other sites", 403), receive
        if self.state["closing"]:
            return PlainTextResponse("the server is closing; try again in a minute", 503), receive
        if path.startswith("/gradio_api/upload"):
            if (
                shutil.disk_usage(os.environ.get("GRADIO_TEMP_DIR", gettempdir())).free
                < self.upload_bytes + _SPARE_BYTES
            ):
                return PlainTextResponse("the server's disk is full; try again in an hour", 507), receive
            return None, receive
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _JSON_BYTES:
                return PlainTextResponse(f"the request is larger than {_JSON_BYTES:,} bytes", 413), receive
            if not message.get("more_body"):
                break
        if _forges_file(body):
            return PlainTextResponse("only files that were uploaded are taken; upload the file", 400), receive
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        return None, again

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, started = 0, False

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.upload_bytes:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, limited, noted)
        except _TooLargeError:
            if not started:
                words = f"the upload is larger than {self.upload_bytes:,} bytes; send fewer or smaller files"
                await PlainTextResponse(words, 413)(scope, receive, send)


def sweep(folder: Path, seconds: float) -> None:
    """Delete all that Gradio keeps of photos; its own `delete_cache` passes over results, and uploads that broke off.

    Args:
        folder: where it keeps them; each file that it hands out again it touches.
        seconds: since a file was last touched.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        try:
            if time.time() - path.lstat().st_ctime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()
        except OSError:
            continue  # has gone, or is not empty


def drained(state: dict[str, Any], seconds: float) -> bool:
    """Take no new work, and wait until all that runs is answered, and its files have been fetched.

    Args:
        state: of a Guard.
        seconds: to wait at most.
    Returns:
        whether all was answered.
    """
    state["closing"] = True
    ends = time.monotonic() + seconds
    answered = -math.inf
    while time.monotonic() < ends and (state["requests"] or time.monotonic() - answered < _FETCH_S):
        if state["requests"]:
            answered = time.monotonic()
        time.sleep(0.05)
    return not state["requests"]


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name.lower() not in _HEADERS]
            message = {**message, "headers": [*headers, *_HEADERS.items()]}
        await send(message)

    return sending


def _forges_file(body: bytes) -> bool:
    """Whether a request for work has a file that Gradio would fetch from elsewhere, or hides what it has.

    Of files without the mark of "meta" Gradio does not look where they lie, and gr.Image takes them all the same.
    """
    try:
        pending = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # a form, or nothing that Gradio could read either
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            path = item.get("path")
            if isinstance(path, str) and ("://" in path or item.get("meta") != {"_type": "gradio.FileData"}):
                return True
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return False
