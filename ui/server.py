"""ASGI middleware around the page: allow-list, budgets, security headers, graceful shutdown."""

import json
import logging
import math
import os
import re
import shutil
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
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
# Budgets of a visitor: uploads and results, in the largest upload's size, requests, wrong passwords, requests at once.
_STORED, _STORED_S = 16, 3600
_REQUESTS, _REQUESTS_S = 2400, 120
_PASSWORDS, _PASSWORDS_S = 5, 300
_AT_ONCE = 64  # with one for each open page
_SPARE_BYTES = 2**30  # free disk space that uploads and results must leave
_FETCH_S = 2  # after a response, the page starts to fetch its files within this time
_SESSION = re.compile(r"[\w-]{1,36}")  # a UUID


class Visits:
    """What the middleware and the endpoints share.

    Args:
        access: who may ask.
        upload_bytes: largest upload, all files of a request together.
    Attributes:
        stored: budgets of uploads and results, in bytes.
        now: "requests" in progress, and bytes "uploading".
        closing: whether the server shuts down and refuses new work.
    """

    def __init__(self, access: Access, upload_bytes: int) -> None:
        self.access, self.upload_bytes = access, upload_bytes
        self.stored = Budget(_STORED * upload_bytes, _STORED_S)
        self.requests = Budget(_REQUESTS, _REQUESTS_S)
        self.passwords = Budget(_PASSWORDS, _PASSWORDS_S)
        self.at_once = Budget(_AT_ONCE)
        self.now: Counter[str] = Counter()
        self.closing = False

    def count(self, what: str, amount: int, held: ExitStack) -> None:
        """Add to `now` until `held` is closed."""
        self.now[what] += amount
        held.callback(self.now.subtract, {what: amount})

    def store(self, visitor: str, size: int) -> None:
        """Reserve bytes on the disk.

        Raises:
            HTTPException: this visitor, or the disk, has fewer left.
        """
        if shutil.disk_usage(upload_folder()).free < self.now["uploading"] + size + _SPARE_BYTES:
            raise HTTPException(507, "the server's disk is full; try again in an hour")
        if not self.stored.take(visitor, size):
            quota = f"{_STORED * self.upload_bytes:,} bytes of photos and results"
            raise HTTPException(429, f"you stored {quota} within an hour; try again later")

    def drain(self, seconds: float) -> bool:
        """Refuse new work, and wait until requests are answered and their files fetched; False if it takes longer."""
        self.closing = True
        ends = time.monotonic() + seconds
        answered = -math.inf
        while time.monotonic() < ends and (self.now["requests"] or time.monotonic() - answered < _FETCH_S):
            if self.now["requests"]:
                answered = time.monotonic()
            time.sleep(0.05)
        return not self.now["requests"]


class Guard:
    """ASGI middleware around Gradio's application."""

    def __init__(self, app: ASGIApp, visits: Visits) -> None:
        self.app, self.visits = app, visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        if not self.visits.access.proxies:
            scope = {**scope, "headers": without_forwarded(scope["headers"])}
        root = scope.get("root_path", "")
        if not scope["path"].startswith(f"{root}/"):  # a proxy took it away; ASGI, and routes below others, have it
            scope = {**scope, "path": root + scope["path"]}
        visitor = visitor_of(str((scope.get("client") or ("",))[0]))
        policy = {b"content-security-policy": _EXPLORE_POLICY.encode()} if "/explore" in scope["path"] else {}
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if scope["path"].rstrip("/").endswith("/login") and message["status"] < 400:
                    self.visits.passwords.give_back(visitor)  # it was right
                kept = [
                    (name, value)
                    for name, value in message["headers"]
                    if name.lower() not in _HEADERS and not name.lower().startswith(b"access-control-")
                ]
                message = {**message, "headers": [*kept, *(_HEADERS | policy).items()]}
            await send(message)

        with ExitStack() as held:
            answer = PlainTextResponse("the request cannot be answered; load the page again", 500)
            try:
                receive = await self._checked(scope, receive, visitor, held)
                await self.app(scope, receive, sending)
            except HTTPException as error:
                answer = PlainTextResponse(error.detail, error.status_code)
            except Exception as error:  # of Gradio, above all on forged requests
                log.warning("ui: %s %.200r failed: %s", scope["method"], scope["path"], one_line(error))
            if not started:
                await answer(scope, receive, sending)

    async def _checked(self, scope: Scope, receive: Receive, visitor: str, held: ExitStack) -> Receive:
        """Check a request; a `receive` that still has its body.

        What is reserved for the time of the request is given back when `held` is closed.

        Raises:
            HTTPException: the answer to a request that is not passed on.
        """
        visits = self.visits
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path == "/healthz":
            raise HTTPException(503, "closing") if visits.closing else HTTPException(200, "ok")
        headers = Headers(scope=scope)
        if (reason := visits.access.refusal(method, path, headers)) is not None:
            raise HTTPException(403, reason)
        allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST, "OPTIONS": _POST}.get(method)
        if allowed is None or not allowed.fullmatch(path.rstrip("/") or "/"):
            raise HTTPException(404, "not found")
        if not visits.requests.take(visitor) or not visits.at_once.take(visitor):
            raise HTTPException(429, "you have sent too many requests; wait for a minute")
        held.callback(visits.at_once.give_back, visitor)
        visits.count("requests", "/heartbeat/" not in path, held)  # that of an open page never ends
        if path == "/logout":
            scope["query_string"] = b"all_session=false"  # those who share a name stay
        if not all(map(_SESSION.fullmatch, parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", []))):
            raise HTTPException(400, "the request is malformed; load the page again")
        if method != "POST":
            return receive
        if visits.closing:
            raise HTTPException(503, "the server is shutting down; try again in a minute")
        if path.startswith("/login") and not visits.passwords.take(visitor):
            raise HTTPException(429, "too many wrong passwords; try again in a few minutes")
        if path.startswith("/gradio_api/upload"):
            length = headers.get("content-length", "")
            if not length.isdecimal():
                raise HTTPException(411, "the upload has no Content-Length; send it with one")
            if int(length) > visits.upload_bytes:
                await _body(receive, 0, 2 * visits.upload_bytes)  # else the client might not read the answer
                words = f"the upload is larger than {visits.upload_bytes:,} bytes; send fewer or smaller files"
                raise HTTPException(413, words)
            visits.store(visitor, int(length))
            visits.count("uploading", int(length), held)
            return receive
        body = await _body(receive, _JSON_BYTES)
        if body is None:
            raise HTTPException(413, f"the request is larger than {_JSON_BYTES:,} bytes; send less")
        if (reason := _forgery(body)) is not None:
            raise HTTPException(400, reason)
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return pending.pop() if pending else await receive()

        return again


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


def upload_folder() -> str:
    """Where Gradio keeps uploads and results."""
    return os.environ.get("GRADIO_TEMP_DIR", gettempdir())


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
