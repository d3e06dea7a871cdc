"""ASGI middleware around the page: allow-list, budgets, security headers, graceful shutdown."""

import json
import logging
import math
import os
import re
import shutil
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.access import Access, Budget, visitor_of, without_forwarded

log = logging.getLogger(__name__)

ASSETS = ("page.css", "canvas.js", "photos.js", "server.js", "page.js", "example.jpg")
# The paths that the page and its API clients use. Gradio's others are closed, such as /component_server, whose
# accept_blobs allocates gigabytes for a small request, and /proxy=, which fetches from other hosts.
_GET = re.compile(
    rf"/(|config|logout|{'|'.join(map(re.escape, ASSETS))})"
    r"|/gradio_api/(info|login_check|startup-events|queue/data|heartbeat/[\w-]{1,36}|call/\w+/\w{1,36}|file=(?!(?i:https?:)).*)"
    # Gradio's own front end.
    r"|/explore(/|/config|/theme\.css|/(static|assets|svelte)/.*"
    r"|/gradio_api/(info|app_id|theme\.css|startup-events|queue/data|heartbeat/[\w-]{1,36}|file=(?!(?i:https?:)).*))?"
)
_POST = re.compile(r"/login|(/explore)?/gradio_api/(cancel|reset|queue/join)|/gradio_api/(upload|call/\w+)")
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# Gradio's front end has inline scripts and styles.
_EXPLORE_POLICY = f"{_POLICY}; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
}
_JSON_BYTES = 2**20
# Budgets of a visitor: uploads of the largest size, requests, wrong passwords, and requests at once.
_UPLOADS, _UPLOADS_S = 8, 3600
_REQUESTS, _REQUESTS_S = 2400, 120
_PASSWORDS, _PASSWORDS_S = 5, 300
_AT_ONCE = 64  # with one for each open page
_SPARE_BYTES = 2**30  # free disk space that uploads must leave
_FETCH_S = 2  # after a response, the page starts to fetch its files within this time
_SESSION = re.compile(r"[\w-]{1,36}")  # a UUID


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: the application.
        upload_bytes: largest upload, all files of a request together.
        state: see Attributes.
        access: who may ask.
    Attributes:
        state: shared with the creator of the middleware. "requests" is the number of requests in progress, "closing"
            is True while the server shuts down and refuses new work.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int, state: dict[str, Any], access: Access) -> None:
        self.app = app
        self.upload_bytes = upload_bytes
        self.state = state
        self.access = access
        self.uploads = Budget(_UPLOADS * upload_bytes, _UPLOADS_S)
        self.requests = Budget(_REQUESTS, _REQUESTS_S)
        self.passwords = Budget(_PASSWORDS, _PASSWORDS_S)
        self.at_once = Budget(_AT_ONCE)
        self.uploading_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        if not self.access.proxies:
            scope = {**scope, "headers": without_forwarded(scope["headers"])}
        root = scope.get("root_path", "")
        if not scope["path"].startswith(f"{root}/"):  # a proxy took it away; ASGI, and routes below others, have it
            scope = {**scope, "path": root + scope["path"]}
        visitor = visitor_of(str((scope.get("client") or ("",))[0]))
        with ExitStack() as held:
            send = self._completed(scope, send, visitor)
            refusal, receive = await self._refusal(scope, receive, visitor, held)
            await (refusal or self._answer)(scope, receive, send)

    async def _refusal(
        self, scope: Scope, receive: Receive, visitor: str, held: ExitStack
    ) -> tuple[PlainTextResponse | None, Receive]:
        """The response to a request that is refused, else None; and a `receive` that still has the body.

        What is reserved for the time of the request is given back when `held` is closed.
        """

        def refused(words: str, status: int) -> tuple[PlainTextResponse, Receive]:
            return PlainTextResponse(words, status), receive

        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path == "/healthz":
            return refused("closing", 503) if self.state["closing"] else refused("ok", 200)
        headers = Headers(scope=scope)
        if (reason := self.access.refusal(method, path, headers)) is not None:
            return refused(reason, 403)
        allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST, "OPTIONS": _POST}.get(method)
        if allowed is None or not allowed.fullmatch(path.rstrip("/") or "/"):
            return refused("not found", 404)
        if not self.requests.take(visitor) or not self.at_once.take(visitor):
            return refused("you have sent too many requests; wait for a minute", 429)
        held.callback(self.at_once.give_back, visitor)
        if path == "/logout":
            scope["query_string"] = b"all_session=false"  # those who share a name stay
        if not all(map(_SESSION.fullmatch, parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", []))):
            return refused("the request is malformed; load the page again", 400)
        if method != "POST":
            return None, receive
        if self.state["closing"]:
            return refused("the server is shutting down; try again in a minute", 503)
        if path.startswith("/login") and not self.passwords.take(visitor):
            return refused("too many wrong passwords; try again in a few minutes", 429)
        if path.startswith("/gradio_api/upload"):
            return await self._upload_refusal(headers, receive, visitor, held), receive
        if path.endswith("/gradio_api/cancel") and not _has_logged_in(scope):
            return refused("log in first", 401)
        body = await _body(receive, _JSON_BYTES)
        if body is None:
            return refused(f"the request is larger than {_JSON_BYTES:,} bytes; send less", 413)
        if (reason := _forgery(body)) is not None:
            return refused(reason, 400)
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return pending.pop() if pending else await receive()

        return None, again

    async def _upload_refusal(
        self, headers: Headers, receive: Receive, visitor: str, held: ExitStack
    ) -> PlainTextResponse | None:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return PlainTextResponse("the upload has no Content-Length; send it with one", 411)
        size = int(length)
        if size > self.upload_bytes:
            await _body(receive, 0, 2 * self.upload_bytes)  # else the client might not read the answer
            words = f"the upload is larger than {self.upload_bytes:,} bytes; send fewer or smaller files"
            return PlainTextResponse(words, 413)
        if shutil.disk_usage(upload_folder()).free < self.uploading_bytes + size + _SPARE_BYTES:
            return PlainTextResponse("the server's disk is full; try again in an hour", 507)
        if not self.uploads.take(visitor, size):
            quota = _UPLOADS * self.upload_bytes
            return PlainTextResponse(f"you uploaded {quota:,} bytes within an hour; try again later", 429)
        self.uploading_bytes += size
        held.callback(self._uploaded, size)
        return None

    def _uploaded(self, size: int) -> None:
        self.uploading_bytes -= size

    def _completed(self, scope: Scope, send: Send, visitor: str) -> Send:
        """A `send` that adds the security headers, and forgets the attempt of a right password."""
        policy = {b"content-security-policy": _EXPLORE_POLICY.encode()} if "/explore" in scope["path"] else {}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["path"].rstrip("/").endswith("/login") and message["status"] < 400:
                    self.passwords.give_back(visitor)
                kept = [
                    (name, value)
                    for name, value in message["headers"]
                    if name.lower() not in _HEADERS and not name.lower().startswith(b"access-control-")
                ]
                message = {**message, "headers": [*kept, *(_HEADERS | policy).items()]}
            await send(message)

        return sending

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, counts = False, "/heartbeat/" not in scope["path"]  # that of an open page never ends

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self.state["requests"] += counts
        try:
            await self.app(scope, receive, noted)
        except Exception as error:  # of Gradio, above all on forged requests
            log.warning("ui: %s %.200r failed: %s", scope["method"], scope["path"], one_line(error))
            if not started:
                words = "the request cannot be answered; load the page again"
                await PlainTextResponse(words, 500)(scope, receive, send)
        finally:
            self.state["requests"] -= counts


async def _body(receive: Receive, most: int, most_read: int = 0) -> bytes | None:
    """The body of a request; None if it has more than `most` bytes, of which `most_read` are read."""
    body, size = b"", 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        body = body + part if size <= most else b""
        if size > max(most, most_read) or not message.get("more_body"):
            return body if size <= most else None


def one_line(error: BaseException) -> str:
    """An error and where it was raised, for the log."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(last[0].filename).name}:{last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]!r}{place}"


def sweep(folder: Path, seconds: float) -> None:
    """Delete old uploads and results. Gradio's own `delete_cache` misses results and broken uploads.

    Args:
        folder: Gradio's cache. Gradio touches each file that it serves again.
        seconds: age since the last touch from which files are deleted.
    """
    for path in sorted(folder.rglob("[!.]*"), reverse=True):  # the files of a folder before the folder
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


def upload_folder() -> str:
    """Where Gradio keeps uploads and results."""
    return os.environ.get("GRADIO_TEMP_DIR", gettempdir())


def _has_logged_in(scope: Scope) -> bool:
    """Whether a request has a login, or needs none; Gradio does not check this for /cancel."""
    app = scope["app"]
    if app.auth is None:
        return True
    cookies = Request(scope).cookies
    return any(cookies.get(f"access-token-{kind}{app.cookie_id}") in app.tokens for kind in ("", "unsecure-"))


def _forgery(body: bytes) -> str | None:
    """Why a request is refused: a file that lies elsewhere than uploads or lacks their "meta", or a session's name.

    Gradio fetches URLs, and it does not check the location of files without "meta", though gr.Image accepts them.
    It keeps the names of sessions.
    """
    unknown = "the request names a file that was not uploaded, or is deleted; upload it first"
    try:
        pending = [json.loads(body)]
    except RecursionError:
        return unknown
    except ValueError:
        return None  # not JSON: Gradio cannot read it either
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            path, session = item.get("path"), item.get("session_hash") or "none"
            if isinstance(path, str) and (item.get("meta") != {"_type": "gradio.FileData"} or not _was_uploaded(path)):
                return unknown
            if not (isinstance(session, str) and _SESSION.fullmatch(session)):
                return "the name of the session is malformed; load the page again"
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return None


def _was_uploaded(path: str) -> bool:
    folder = os.path.realpath(upload_folder())
    try:
        return os.path.realpath(path).startswith(f"{folder}{os.sep}") and os.path.isfile(path)
    except ValueError:  # a null byte
        return False
