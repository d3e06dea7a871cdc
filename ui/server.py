"""ASGI middleware around the page: allow-list, upload limits, security headers, graceful shutdown."""

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

# The paths that the page and its API clients use. Gradio's others are closed, such as /component_server, whose
# accept_blobs allocates gigabytes for a small request, and /proxy=, which fetches from other hosts.
_GET = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*|logout|(static|assets|svelte)/.*)/?"
    r"|/gradio_api/(info|app_id|user|login_check|theme\.css|startup-events|upload_progress|queue/(data|status)"
    r"|heartbeat/\w+|call/\w+/\w+|file=(?!(?i:https?:)).*)/?"
)
_POST = re.compile(r"/login/?|/gradio_api/(upload|cancel|reset|queue/join|run/predict|call/\w+)/?")
_HEADERS = {
    # Gradio uses inline scripts and styles, and its drawing canvas compiles shaders with eval.
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
_SPARE_BYTES = 2**30  # free disk space that uploads must leave
_FETCH_S = 2  # after a response, the page starts to fetch its files within this time


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: the application.
        upload_bytes: largest upload, all files of a request together.
    Attributes:
        state: shared with the creator of the middleware. "requests" is the number of requests in progress, "closing"
            is True while the server shuts down and refuses new work.
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
        # The heartbeat of an open page never ends.
        counts = "/heartbeat/" not in scope["path"]
        self.state["requests"] += counts
        try:
            await self._answer(scope, receive, _with_headers(send))
        finally:
            self.state["requests"] -= counts

    async def _refusal(self, scope: Scope, receive: Receive) -> tuple[PlainTextResponse | None, Receive]:
        """The response to a request that is refused, else None; and a `receive` that still has the body."""
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
            return PlainTextResponse("requests from other sites are refused; use the page itself", 403), receive
        if self.state["closing"]:
            return PlainTextResponse("the server is shutting down; try again in a minute", 503), receive
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
                return PlainTextResponse(f"the request is larger than {_JSON_BYTES:,} bytes; send less", 413), receive
            if not message.get("more_body"):
                break
        if _forges_file(body):
            return PlainTextResponse("the request names a file that was not uploaded; upload it first", 400), receive
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
    """Delete old uploads and results. Gradio's own `delete_cache` misses results and broken uploads.

    Args:
        folder: Gradio's cache. Gradio touches each file that it serves again.
        seconds: age since the last touch from which files are deleted.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # the files of a folder before the folder
        try:
            if time.time() - path.lstat().st_ctime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()
        except OSError:
            continue  # gone already, or a folder that is not empty


def drain(state: dict[str, Any], seconds: float) -> bool:
    """Refuse new work and wait until all requests are answered and their files fetched.

    Args:
        state: the state of a Guard.
        seconds: longest time to wait.
    Returns:
        True if no request is left.
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
    """Whether a request names a file by URL, or without the "meta" entry of an upload.

    Gradio fetches URLs, and it does not check the location of files without "meta", though gr.Image accepts them.
    """
    try:
        pending = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False  # not JSON: Gradio cannot read it either
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
