"""ASGI middleware around the page: allow-list, limits, security headers, log, metrics, graceful shutdown."""

import json
import logging
import math
import os
import re
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ui.access import Access, Recent, without_forwarded

log = logging.getLogger(__name__)

ASSETS = ("page.css", "canvas.js", "photos.js", "server.js", "page.js", "example.jpg")
# The paths that the page and its API clients use. Gradio's others are closed, such as /component_server, whose
# accept_blobs allocates gigabytes for a small request, and /proxy=, which fetches from other hosts.
_GET = re.compile(
    rf"/(|config|logout|{'|'.join(map(re.escape, ASSETS))})"
    r"|/gradio_api/(info|login_check|startup-events|queue/data|heartbeat/\w+|call/\w+/\w+|file=(?!(?i:https?:)).*)"
    # Gradio's own front end.
    r"|/explore(/|/config|/theme\.css|/(static|assets|svelte)/.*"
    r"|/gradio_api/(info|app_id|theme\.css|startup-events|queue/data|heartbeat/\w+|file=(?!(?i:https?:)).*))?"
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
_QUOTA_UPLOADS, _UPLOADS_S = 8, 3600  # uploads of the largest size within a time, for one visitor
_PASSWORDS, _PASSWORDS_S = 5, 300  # wrong passwords within a time, for one visitor
_SPARE_BYTES = 2**30  # free disk space that uploads must leave
_FETCH_S = 2  # after a response, the page starts to fetch its files within this time


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: the application.
        upload_bytes: largest upload, all files of a request together.
        state: see Attributes.
        access: who may ask.
        gauges: current values for /metrics, by name.
    Attributes:
        state: shared with the creator of the middleware. "requests" is the number of requests in progress, "closing"
            is True while the server shuts down and refuses new work.
    """

    def __init__(
        self,
        app: ASGIApp,
        upload_bytes: int,
        state: dict[str, Any],
        access: Access,
        gauges: Callable[[], dict[str, float]],
    ) -> None:
        self.app = app
        self.upload_bytes = upload_bytes
        self.state = state
        self.access = access
        self.gauges = gauges
        serve: Any = self._serve  # uvicorn and Starlette type their messages differently
        self.behind_proxy: Any = ProxyHeadersMiddleware(serve, list(access.proxies))
        self.uploaded = Recent(_UPLOADS_S)
        self.wrong_passwords = Recent(_PASSWORDS_S)
        self.answers: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        if not self.access.trusts(_visitor(scope)):
            scope = {**scope, "headers": without_forwarded(scope["headers"])}
        await self.behind_proxy(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        if not scope["path"].startswith(f"{root}/"):  # a proxy took it away; ASGI, and routes below others, have it
            scope = {**scope, "path": root + scope["path"]}
        send = self._completed(scope, send)
        refusal, receive = await self._refusal(scope, receive)
        if refusal is not None:
            if refusal.status_code >= 400 and scope["method"] == "POST":
                _log(scope, f"was refused with {refusal.status_code}: {bytes(refusal.body).decode()}")
            await refusal(scope, receive, send)
            return
        # The heartbeat of an open page never ends.
        counts = "/heartbeat/" not in scope["path"]
        self.state["requests"] += counts
        try:
            await self._answer(scope, receive, send)
        finally:
            self.state["requests"] -= counts

    async def _refusal(self, scope: Scope, receive: Receive) -> tuple[PlainTextResponse | None, Receive]:
        """The response to a request that is refused, else None; and a `receive` that still has the body."""
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path == "/healthz":
            closing = self.state["closing"]
            return PlainTextResponse("closing" if closing else "ok", 503 if closing else 200), receive
        headers = Headers(scope=scope)
        if (reason := self.access.refusal(method, headers)) is not None:
            return PlainTextResponse(reason, 403), receive
        if path == "/metrics":
            return PlainTextResponse(self._metrics()), receive
        allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST, "OPTIONS": _POST}.get(method)
        if allowed is None or not allowed.fullmatch(path.rstrip("/") or "/"):
            return PlainTextResponse("not found", 404), receive
        if method != "POST":
            return None, receive
        if self.state["closing"]:
            return PlainTextResponse("the server is shutting down; try again in a minute", 503), receive
        if path.startswith("/login") and self.wrong_passwords.sum(_visitor(scope)) >= _PASSWORDS:
            return PlainTextResponse("too many wrong passwords; try again in a few minutes", 429), receive
        if path.startswith("/gradio_api/upload"):
            return self._upload_refusal(scope), receive
        if path.endswith("/gradio_api/cancel") and not _has_logged_in(scope):
            return PlainTextResponse("log in first", 401), receive
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _JSON_BYTES:
                return PlainTextResponse(f"the request is larger than {_JSON_BYTES:,} bytes; send less", 413), receive
            if not message.get("more_body"):
                break
        if _forges_file(body):
            return PlainTextResponse(
                "the request names a file that was not uploaded, or is deleted; upload it first", 400
            ), receive
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        return None, again

    def _upload_refusal(self, scope: Scope) -> PlainTextResponse | None:
        if shutil.disk_usage(upload_folder()).free < self.upload_bytes + _SPARE_BYTES:
            return PlainTextResponse("the server's disk is full; try again in an hour", 507)
        quota = _QUOTA_UPLOADS * self.upload_bytes
        if self.uploaded.sum(_visitor(scope)) > quota:
            return PlainTextResponse(f"you uploaded {quota:,} bytes within an hour; try again later", 429)
        return None

    def _metrics(self) -> str:
        """The numbers of answers by status, and current values, in Prometheus' text format."""
        lines = ["# TYPE ui_answers_total counter"]
        lines += [f'ui_answers_total{{status="{status}"}} {count}' for status, count in sorted(self.answers.items())]
        gauges = self.gauges() | {"ui_requests": self.state["requests"]}
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"

    def _completed(self, scope: Scope, send: Send) -> Send:
        """A `send` that adds the security headers, keeps one login cookie, and counts answers."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
                if scope["path"].rstrip("/").endswith("/login") and message["status"] == 400:
                    self.wrong_passwords.add(_visitor(scope), 1)
                    _log(scope, "had a wrong name or password")
                headers = [
                    (name, value)
                    for name, value in message["headers"]
                    if name.lower() not in _HEADERS and not name.lower().startswith(b"access-control-")
                ]
                added = dict(_HEADERS)
                if "/explore" in scope["path"]:
                    added[b"content-security-policy"] = _EXPLORE_POLICY.encode()
                message = {**message, "headers": [*_one_cookie(headers, scope["scheme"]), *added.items()]}
            await send(message)

        return sending

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, started = 0, False
        uploads = "/gradio_api/upload" in scope["path"]

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            part = len(message.get("body", b""))
            received += part
            if uploads:
                self.uploaded.add(_visitor(scope), part)
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
        except Exception as error:  # of Gradio, above all on forged requests
            _log(scope, f"failed: {one_line(error)}")
            if not started:
                await PlainTextResponse("the request cannot be answered; load the page again", 500)(
                    scope, receive, send
                )


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


def _visitor(scope: Scope) -> str:
    return str((scope.get("client") or ("",))[0])


def _log(scope: Scope, words: str) -> None:
    log.warning("ui: %s %.200r from %s %s", scope["method"], scope["path"], _visitor(scope), words)


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


def _one_cookie(headers: list[tuple[bytes, bytes]], scheme: str) -> list[tuple[bytes, bytes]]:
    """Without that one of Gradio's two login cookies that does not fit the scheme; the other is not sent elsewhere."""
    kept = []
    for name, value in headers:
        if name.lower() == b"set-cookie" and value.startswith(b"access-token-"):
            if value.startswith(b"access-token-unsecure-") == (scheme == "https"):
                continue
            value = re.sub(rb"(?i)samesite=\w+", b"SameSite=lax", value)
        kept.append((name, value))
    return kept


def _forges_file(body: bytes) -> bool:
    """Whether a request names a file that lies elsewhere than uploads, or without the "meta" entry of an upload.

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
            if isinstance(path, str) and (item.get("meta") != {"_type": "gradio.FileData"} or not _was_uploaded(path)):
                return True
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return False


def _was_uploaded(path: str) -> bool:
    folder = os.path.realpath(upload_folder())
    try:
        return os.path.realpath(path).startswith(f"{folder}{os.sep}") and os.path.isfile(path)
    except ValueError:  # a null byte
        return False
