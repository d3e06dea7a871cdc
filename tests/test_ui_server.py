"""The page over HTTP: its API, what it refuses, and that it keeps working."""

import asyncio
import gc
import io
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, pixels, save

from completion import FaceCompleter
from dcgan.weights import Weights
from ui.access import LOCAL, Access
from ui.config import Limits
from ui.server import Guard, Visits, sweep
from ui.service import Service

LIMITS = Limits(max_pixels=512 * 512, seconds=300, photos=3)
API = "/gradio_api"
META = {"_type": "gradio.FileData"}

Serve = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def other(serve: Serve, encoder_weights: Weights) -> Serve:
    """Serves a page with settings of its own; gives it and an HTTP client."""

    @contextmanager
    def served(limits: Limits = LIMITS, **settings: Any) -> Iterator[tuple[Any, httpx.Client]]:
        service = Service(FaceCompleter(encoder_weights, aligned=True), limits)
        with serve(service, **settings) as page, httpx.Client(base_url=page.url, timeout=300) as http:
            yield page, http

    return served


@pytest.fixture(scope="module")
def page(other: Serve) -> Iterator[Any]:
    with other() as (page, _):
        yield page


@pytest.fixture
def http(page: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.url, timeout=120) as client:
        yield client


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save(tmp_path / "a.png")


@pytest.fixture
def connect(page: Any, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Makes clients, each with its own folder."""
    clients = []

    def new(url: str = page.url, **settings: Any) -> Client:
        client = Client(url, verbose=False, analytics_enabled=False, download_files=tmp_path / uuid4().hex, **settings)
        clients.append(client)
        return client

    yield new
    for client in clients:
        client.close()


class Gate:
    """Holds every fill with the solver "thorough" until `open`, at each step; `begun` is set when the first starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.begun, steps = threading.Event(), threading.Event(), FaceCompleter.steps

        def waiting(completer: FaceCompleter, *words: Any, **options: Any) -> Iterator[Any]:
            while options.get("solver") == "thorough" and not self.open.wait(0.01):
                self.begun.set()
                yield None
            yield from steps(completer, *words, **options)

        monkeypatch.setattr(FaceCompleter, "steps", waiting)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def upload(http: httpx.Client, path: Path) -> dict[str, Any]:
    """Upload a file; the data that a page sends for it."""
    [stored] = http.post(f"{API}/upload", files={"files": (path.name, path.read_bytes())}).raise_for_status().json()
    return {"path": stored, "meta": META, "orig_name": path.name}


def ask(http: httpx.Client, name: str, data: list[Any]) -> tuple[bool, str]:
    """Call an endpoint as the page does; whether it succeeded, and what it answered."""
    answer = http.post(f"{API}/call/{name}", json={"data": data})
    if answer.is_error:
        return False, f"{answer.status_code} {answer.text}"
    text = http.get(f"{API}/call/{name}/{answer.json()['event_id']}").text
    return "event: complete" in text, text


def names_no_path(text: str) -> bool:
    return not re.search(r"/(home|root|tmp|usr|var|work|etc)/|site-packages|Traceback|\.py\b", text)


def alive(http: httpx.Client, photo: Path) -> bool:
    """Whether the server still fills holes."""
    return ask(http, "complete", inputs(upload(http, photo)))[0]


def inputs(photo: Any, mask: Any = None, solver: str = "fast") -> list[Any]:
    """What /complete takes."""
    return [photo, "center", mask, solver, 1, "poisson", 0, None, True, None]


def memory_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The API


def test_a_completion_keeps_the_pixels_outside_the_hole(connect: Callable[..., Client], photo: Path) -> None:
    [path] = connect().predict(handle_file(photo), "center", api_name="/complete")
    completed = pixels(path)
    assert np.array_equal(completed[~CENTER], FACE[~CENTER]) and (completed[CENTER] != FACE[CENTER]).any()


def test_a_mask_file_overrides_a_name_and_candidates_differ(
    connect: Callable[..., Client], photo: Path, tmp_path: Path
) -> None:
    hole = np.roll(CENTER, 8, axis=0)
    mask = save(tmp_path / "mask.png", np.where(hole, 255, 0).astype(np.uint8))
    settings = {"mask_file": handle_file(mask), "solver": "search", "candidates": 2, "prior_weight": 0.1}
    first, second = map(pixels, connect().predict(handle_file(photo), "full", **settings, api_name="/complete"))
    assert np.array_equal(first[~hole], FACE[~hole]) and np.array_equal(second[~hole], FACE[~hole])
    assert (first[hole] != second[hole]).any()


def test_a_photo_is_opened_filled_twice_and_saved_by_a_program(
    connect: Callable[..., Client], photo: Path, tmp_path: Path
) -> None:
    client = connect()
    opened = client.predict(handle_file(photo), api_name="/open")
    assert (opened["width"], opened["height"]) == (32, 32)
    faces = [face["alignment"] for face in opened["faces"]]
    steps: list[dict[str, Any]] = []
    union = np.zeros((32, 32), dtype=bool)
    for rows in (slice(8, 14), slice(18, 24)):
        hole = np.zeros((32, 32), dtype=bool)
        hole[rows, 8:24] = True
        union |= hole
        marks = save(tmp_path / "marks.png", np.dstack([FACE, np.where(hole, 255, 0)]))
        done = client.predict(handle_file(photo), handle_file(marks), steps, faces, 0, api_name="/fill")
        assert (done["state"], done["x"], done["y"], done["faces"], done["quick"]) == ("done", 8, rows.start, 1, False)
        assert done["notes"] == []
        steps.append({"file": handle_file(done["file"]), "x": done["x"], "y": done["y"]})
    saved = pixels(client.predict(handle_file(photo), steps, api_name="/save"))
    assert np.array_equal(saved[~union], FACE[~union]) and (saved[union] != FACE[union]).any()
    items = [{"name": "a.png", "photo": handle_file(photo), "steps": steps}, {"name": "b.png", "reason": "dark"}]
    assert Path(client.predict(items, api_name="/save_all")).suffix == ".zip"


def test_a_program_completes_a_batch(connect: Callable[..., Client], photo: Path) -> None:
    done = connect().predict([handle_file(photo)], api_name="/batch")
    assert done["lines"] == ["a.png: completed"] and Path(done["file"]).suffix == ".zip"


def test_the_api_lists_its_endpoints_and_no_others(connect: Callable[..., Client]) -> None:
    found = connect().view_api(return_format="dict", print_info=False)
    assert set(found["named_endpoints"]) == {"/open", "/damage", "/fill", "/save", "/save_all", "/complete", "/batch"}
    assert not found["unnamed_endpoints"]
    assert all(endpoint["description"] for endpoint in found["named_endpoints"].values())


# The allow-list


@pytest.mark.parametrize("path", ["/", "/config", "/healthz", "/nothing", f"{API}/file=/etc/passwd", f"{API}/info"])
def test_every_response_has_security_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
    assert headers["referrer-policy"] == "no-referrer"


def test_during_shutdown_healthz_fails_and_new_work_is_refused(http: httpx.Client, page: Any, photo: Path) -> None:
    data = inputs(upload(http, photo))
    assert (http.get("/healthz").status_code, http.get("/healthz").text) == (200, "ok")
    page.visits.closing = True
    try:
        assert http.get("/healthz").status_code == 503
        assert ask(http, "complete", data) == (False, "503 the server is shutting down; try again in a minute")
        assert http.post(f"{API}/upload", files={"files": photo.read_bytes()}).status_code == 503
        assert http.get("/config").status_code == 200  # open pages still get their answers
    finally:
        page.visits.closing = False
    assert alive(http, photo)


CLOSED = """
POST /gradio_api/component_server, POST /gradio_api/component_server/, GET /gradio_api/proxy=http://localhost/,
GET /gradio_api/proxy%3Dhttp://localhost/, GET /gradio_api/file=http://localhost/,
GET /gradio_api/file=HTTPS:%2F%2Flocalhost/, GET /gradio_api/file/etc/passwd, POST /gradio_api/run/complete,
POST /gradio_api/run/predict, POST /gradio_api/api/complete, POST /gradio_api/call/v2/complete,
POST /gradio_api/stream/x, POST /gradio_api/process_recording, POST /gradio_api/vibe-edit,
GET /gradio_api/openapi.json, GET /gradio_api/dev/reload, GET /gradio_api/runs,
GET /gradio_api/custom_component/1/client/component/x.js, GET /gradio_api/deep_link, GET /monitoring,
GET /monitoring/summary, GET /docs, GET /unknown, GET /ui/page.html, POST /explore/gradio_api/upload,
POST /explore/gradio_api/component_server, GET /explore/gradio_api/proxy=http://localhost/,
POST /explore/gradio_api/run/predict, PUT /config, DELETE /gradio_api/upload, PATCH /
"""


@pytest.mark.parametrize("request_", [request.strip() for request in CLOSED.split(",")])
def test_gradios_other_routes_are_closed(http: httpx.Client, request_: str) -> None:
    method, path = request_.split()
    answer = http.request(method, path, json={"data": []} if method == "POST" else None)
    assert (answer.status_code, answer.text) == (404, "not found")


def test_web_sockets_are_refused() -> None:
    sent = []

    async def unasked(*_: Any) -> Any:
        raise AssertionError("passed on")

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(unasked, Visits(LOCAL, 1))
    asyncio.run(guard({"type": "websocket", "path": "/"}, unasked, send))
    assert sent == [{"type": "websocket.close"}]


def test_the_page_names_no_folder_of_the_server(http: httpx.Client) -> None:
    folders = [str(Path.cwd()), str(Path.home()), os.environ["GRADIO_TEMP_DIR"], "site-packages"]
    for path in ("/", "/config", f"{API}/info"):
        text = http.get(path).raise_for_status().text
        assert not [folder for folder in folders if f"{folder}/" in text]


# Files of others


ELSEWHERE = """
{api}/file=/etc/passwd {api}/file=../../../../etc/passwd {api}/file=%2Fetc%2Fpasswd
{api}/file=..%2f..%2f..%2fetc%2fpasswd {api}/file=%252e%252e%252fetc%252fpasswd
{api}/file={uploads}/../../../../../../etc/passwd {api}/file={uploads}/%2e%2e/{secret} {api}/file={secret}
{api}/file=//{secret} {api}/file={project}/pyproject.toml {api}/file=pyproject.toml {api}/file=file:{secret}
{api}/file=%00/etc/passwd /explore/static/../../../../../../../../etc/passwd /explore{api}/file={secret}
/page.css/../server.py /assets/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd
/svelte/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd /static/%2fetc%2fpasswd
"""


@pytest.mark.parametrize("path", ELSEWHERE.split())
def test_only_the_pages_own_files_are_served(page: Any, tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret of the server")
    names = {"api": API, "uploads": os.environ["GRADIO_TEMP_DIR"], "secret": secret, "project": Path.cwd()}
    with socket.create_connection(page.url.removeprefix("http://").split(":"), timeout=120) as raw:
        # Over a socket, because HTTP clients normalise paths.
        raw.sendall(f"GET {path.format(**names)} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    assert re.match(r"HTTP/1.1 (307|4\d\d) ", answer)
    assert not re.search(r"secret of the server|root:|\[project\]", answer)


# Each way to send a file: the endpoint, and its data with the visitor's own file and another.
WAYS: dict[str, tuple[str, Callable[[Any, Any], list[Any]]]] = {
    "photo": ("open", lambda own, file: [file, None]),
    "photo to fill": ("fill", lambda own, file: [file, own, [], [], 0, None]),
    "marks": ("fill", lambda own, file: [own, file, [], [], 0, None]),
    "step to fill": ("fill", lambda own, file: [own, own, [{"file": file, "x": 0, "y": 0}], [], 0, None]),
    "photo to save": ("save", lambda own, file: [file, []]),
    "step to save": ("save", lambda own, file: [own, [{"file": file, "x": 0, "y": 0}]]),
    "photo of many": ("save_all", lambda own, file: [[{"name": "a", "photo": file, "steps": []}]]),
    "photo of a program": ("complete", lambda own, file: inputs(file)),
    "mask of a program": ("complete", lambda own, file: inputs(own, file)),
    "photo of a batch": ("batch", lambda own, file: [[own, file], "center", None, "fast", 0]),
    "mask of a batch": ("batch", lambda own, file: [[own], "center", [file], "fast", 0]),
}


def face_with_hole(path: Path) -> Path:
    """A picture that can serve as photo, marks, step and mask."""
    return save(path, np.dstack([np.where(CENTER[..., None], 255, FACE // 2), np.where(CENTER, 255, 0)]))


@pytest.mark.parametrize("way", WAYS)
def test_only_uploaded_files_are_accepted(http: httpx.Client, tmp_path: Path, way: str) -> None:
    name, sent = WAYS[way]
    own = upload(http, face_with_hole(tmp_path / "a.png"))
    assert ask(http, name, sent(own, own))[0]
    secret = face_with_hole(tmp_path / "secret.png")  # just as usable as `own`
    project = next(Path.cwd().glob("*.toml"))  # Gradio lets handlers return files from the working directory
    above = f"{Path(own['path']).parent}/../../../../../../../.."
    for path in ("/etc/passwd", str(secret), str(project), f"{above}{secret}", f"{above}/etc/passwd"):
        for file in (
            {"path": path, "meta": META},
            {"path": path},
            {"path": path, "meta": None},
            {"path": path, "meta": {"_type": "x"}},
            {"path": path, "url": own["path"], "orig_name": "a.png"},
            own | {"path": path, "url": own["path"], "is_stream": True},
            path,
        ):
            accepted, text = ask(http, name, sent(own, file))
            assert not accepted and names_no_path(text.replace(os.environ["GRADIO_TEMP_DIR"], ""))
    assert ask(http, name, sent(own, own))[0]


def test_a_call_without_all_parameters_says_which_it_lacks(http: httpx.Client, photo: Path) -> None:
    accepted, text = ask(http, "complete", inputs(upload(http, photo))[:-2])
    assert not accepted and "The request lacks as_png, references. Give all of photo, mask, mask_file, solver," in text


@pytest.mark.parametrize("way", WAYS)
def test_urls_are_not_fetched(http: httpx.Client, photo: Path, way: str) -> None:
    name, sent = WAYS[way]
    own = upload(http, photo)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}/a.png"
        for scheme in ("http", "https", "HTTP", "ftp"):
            file = {"path": f"{scheme}://{address}", "meta": META}
            assert ask(http, name, sent(own, file))[1].startswith("400 ")
        # Gradio's own entries of a file, which it never fetches.
        ask(http, name, sent(own, own | {"url": f"http://{address}", "orig_name": f"http://{address}"}))
        listening.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_urls_are_refused_in_every_encoding_of_a_request(http: httpx.Client, photo: Path) -> None:
    data = inputs({"path": "http://127.0.0.1:9/a.png", "meta": META})
    body = {"data": data, "fn_index": 0, "session_hash": "x"}
    text = json.dumps(body)
    for content in (
        text.encode("utf-16"),
        text.encode("utf-32"),
        text.replace("http", "\\u0068ttp").encode(),
        text.replace('"path"', '"p\\u0061th"').encode(),
        text.replace('"path"', '"path": "a.png", "path"').encode(),
        json.dumps(body | {"data": [[[data]]]}).encode(),
        (text[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}").encode(),
    ):
        for path in ("queue/join", "call/complete"):
            answer = http.post(f"{API}/{path}", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 400


# Limits


def stored(uploads: Path) -> set[Path]:
    return {path for path in uploads.rglob("*") if path.is_file()}


def test_a_file_over_the_limit_is_refused_and_not_stored(http: httpx.Client, uploads: Path, photo: Path) -> None:
    before = stored(uploads)
    content = os.urandom(LIMITS.file_bytes + 1)
    answer = http.post(f"{API}/upload", files={"files": content})
    assert answer.status_code == 413 and names_no_path(answer.text)
    assert stored(uploads) == before
    assert alive(http, photo)


def test_an_upload_of_many_files_over_the_limit_is_refused(http: httpx.Client, photo: Path) -> None:
    content = os.urandom(LIMITS.file_bytes - 1)
    answer = http.post(f"{API}/upload", files=[("files", content)] * 5)
    assert answer.status_code == 413 and "upload is larger" in answer.text
    assert alive(http, photo)


def test_an_upload_of_unknown_length_is_refused(http: httpx.Client, photo: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(1000):
            yield bytes(2**20)

    try:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = http.post(f"{API}/upload", content=endless(), headers=headers)
        assert answer.status_code == 411
    except httpx.TransportError:
        pass  # the server closed before all was sent
    assert alive(http, photo)


def test_huge_names_and_thousands_of_parts_are_handled(http: httpx.Client, photo: Path) -> None:
    for files in (
        [("files", ("a" * 2**20 + ".png", b"a"))],
        [("files", ("../" * 100 + "etc/a.png", b"a"))],
        [("files", ("a.png", b"a"))] * 2000,
        [(f"field {number}", (None, b"a")) for number in range(2000)],
    ):
        answer = http.post(f"{API}/upload", files=files)
        assert answer.status_code < 500
        if answer.is_success:
            uploads = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
            assert all(Path(path).resolve().is_relative_to(uploads) for path in answer.json())
    assert alive(http, photo)


def test_requests_from_other_sites_are_refused(http: httpx.Client, page: Any, photo: Path) -> None:
    own = {"accept": "x", "sec-fetch-site": "cross-site"}
    assert http.get("/logout", headers=own).status_code == 403 and http.get("/", headers=own).status_code == 200
    for path in ("upload", "queue/join", "call/complete"):
        for headers, refused in (
            ({"sec-fetch-site": "cross-site"}, True),
            ({"sec-fetch-site": "same-origin"}, False),
            ({"origin": "http://evil.example"}, True),
            ({"origin": "http://localhost:1"}, True),
            ({"origin": "null"}, True),
            ({"origin": page.url.replace("http", "chrome-extension")}, True),
            ({"origin": page.url}, False),
        ):
            answer = http.post(f"{API}/{path}", json={}, headers=headers)
            assert (answer.status_code == 403) == refused
            assert "access-control-allow-origin" not in answer.headers
    assert alive(http, photo)


def test_the_page_has_only_the_names_that_are_allowed(other: Serve) -> None:
    allowed = ("127.0.0.1", "localhost:7860", "[::1]:7860", "faces.example", "FACES.example:443")
    with other(access=Access(("faces.example",))) as (_, http):
        evil = ("evil.example", "faces.example.evil.example", "[::1].evil.example", "127.0.0.1:80@evil.example", "")
        for host in (*allowed, *evil):
            answer = http.get("/config", headers={"host": host})
            assert answer.status_code == (200 if host in allowed else 403), host


@pytest.mark.parametrize("trusted", [False, True])
def test_below_a_path_forwarded_headers_are_believed_from_trusted_proxies_only(other: Serve, trusted: bool) -> None:
    access = Access(("faces.example",), ("127.0.0.0/8",) if trusted else ())
    headers = {"x-forwarded-host": "faces.example", "x-forwarded-proto": "https", "x-forwarded-for": "10.1.2.3"}
    with other(access=access, root_path="/faces") as (served, http):
        root = "https://faces.example/faces" if trusted else f"{served.url}/faces"
        assert http.get("/config", headers=headers).json()["root"] == root
        assert http.get("/explore/config", headers=headers).json()["root"] == f"{root}/explore"
        assert "canvas" in http.get("/faces/page.js").text and "canvas" in http.get("/page.js").text
        assert http.get("/config", headers=headers | {"x-forwarded-host": "evil.example"}).status_code == (
            403 if trusted else 200
        )


def test_a_forged_request_is_logged_in_one_line_and_answered_with_all_headers(
    http: httpx.Client, photo: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own = upload(http, photo)
    forged: list[dict[str, Any]] = [
        {"data": inputs({"path": "/etc/passwd", "meta": META}), "fn_index": 0, "session_hash": "x"},
        {"data": [], "fn_index": 999_999, "session_hash": "x"},
        {"data": 5, "fn_index": 0, "session_hash": "x", "event_data": "\nforged line"},
    ]
    for body in forged:
        caplog.clear()
        answer = http.post(f"{API}/queue/join", json=body)
        assert answer.is_error and "default-src 'self'" in answer.headers["content-security-policy"]
        assert len(caplog.messages) <= 1 and not any("\n" in line for line in caplog.messages)
    caplog.clear()
    monkeypatch.setattr(Service, "read", lambda *_: 1 / 0)
    assert not ask(http, "complete", inputs(own))[0]  # refused in the queue, after it was accepted
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
    assert "Traceback" not in capfd.readouterr().err


def test_a_visitor_has_a_quota_of_uploads_and_results(
    photo: Path, monkeypatch: pytest.MonkeyPatch, other: Serve
) -> None:
    monkeypatch.setattr("ui.server._STORED", 5000 / (4 * LIMITS.file_bytes))  # one upload
    with other(access=Access((), ("127.0.0.1",))) as (_, http):
        for visitor, status in (("10.0.0.1", 200), ("10.0.0.1", 429), ("10.0.0.2", 200)):
            files = {"files": photo.read_bytes()}
            answer = http.post(f"{API}/upload", files=files, headers={"x-forwarded-for": visitor})
            assert answer.status_code == status
        http.headers["x-forwarded-for"] = "10.0.0.3"
        own = upload(http, save(photo.parent / "new.png", np.roll(FACE, 3, axis=1)))  # no other test has its results
        for name, data in (
            ("complete", inputs(own)),
            ("batch", [[own], "center", None, "fast", 1]),
            ("save_all", [[{"name": "a.png", "photo": own, "steps": []}]]),
        ):
            accepted, text = ask(http, name, data)
            assert not accepted and "bytes of photos and results within an hour" in text
        assert not explored(http)


def explored(http: httpx.Client) -> bool:
    """Whether /explore draws faces."""
    body = {"data": [0], "fn_index": 0, "session_hash": uuid4().hex}
    http.post(f"/explore{API}/queue/join", json=body).raise_for_status()
    text = http.get(f"/explore{API}/queue/data?session_hash={body['session_hash']}").text
    [done] = [line for line in text.splitlines() if "process_completed" in line]
    return bool(json.loads(done.removeprefix("data: "))["success"])


def test_explore_draws_faces(http: httpx.Client) -> None:
    assert explored(http)


def test_attempts_uploads_and_requests_count_from_their_beginning() -> None:
    """So that many at once cannot pass together."""

    async def ask(guard: Guard, path: str, length: int, answers: list[int], body: asyncio.Event) -> None:
        async def receive() -> Any:
            await body.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            answers.extend([message["status"]] if "status" in message else [])

        headers = [(b"host", b"localhost"), (b"content-length", str(length).encode())]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        await guard(scope | {"client": ("10.0.0.1", 1), "scheme": "http"}, receive, send)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        status = 400 if scope["path"] == "/login" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async def at_once(path: str, number: int, length: int) -> list[int]:
        visits = Visits(LOCAL, 1000)
        answers: list[int] = []
        body = asyncio.Event()
        asked = [
            asyncio.ensure_future(ask(Guard(application, visits), path, length, answers, body)) for _ in range(number)
        ]
        await asyncio.sleep(0.05)
        body.set()
        await asyncio.gather(*asked)
        assert not any(visits.now.values()) and visits.at_once.left("10.0.0.1") == 64
        return answers

    for path, number, length, passed in (
        ("/login", 40, 10, {400: 5, 429: 35}),
        (f"{API}/upload", 40, 1000, {200: 16, 429: 24}),
        (f"{API}/upload", 100, 1, {200: 64, 429: 36}),
    ):
        answers = asyncio.run(at_once(path, number, length))
        assert {status: answers.count(status) for status in answers} == passed


def test_the_names_of_sessions_are_short(http: httpx.Client) -> None:
    for name in ("x" * 37, "a b", 5, ["x"]):
        body = {"data": [], "fn_index": 0, "session_hash": name}
        assert http.post(f"{API}/queue/join", json=body).status_code == 400
    assert http.get(f"{API}/queue/data?session_hash={'x' * 37}").status_code == 400
    assert http.get(f"{API}/heartbeat/{'x' * 37}").status_code == 404


def test_scripts_are_compressed_and_pictures_are_not(http: httpx.Client, photo: Path) -> None:
    headers = {"accept-encoding": "gzip"}
    for path in ("/page.css", "/page.js"):
        assert http.get(path, headers=headers).headers["content-encoding"] == "gzip"
    stored = upload(http, photo)["path"]
    assert "content-encoding" not in http.get(f"{API}/file={stored}", headers=headers).headers


def test_old_photos_and_results_are_deleted(
    http: httpx.Client, uploads: Path, photo: Path, connect: Callable[..., Client]
) -> None:
    assert http.post(f"{API}/upload", files={"other": photo.read_bytes()}).json() == []  # a file that no component uses
    client = connect()
    client.predict(handle_file(photo), "center", api_name="/complete")
    client.predict([handle_file(photo)], api_name="/batch")
    before = stored(uploads)
    assert len(before) > 2
    sweep(uploads, 3600)
    assert stored(uploads) == before  # young enough to be in use
    sweep(uploads, 0)
    assert not stored(uploads)
    sweep(uploads, 0)
    assert not list(uploads.iterdir())
    assert alive(http, photo)


def test_uploads_and_results_are_refused_when_the_disk_is_nearly_full(
    http: httpx.Client, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = upload(http, save(photo.parent / "new.png", np.roll(FACE, 5, axis=1)))  # no other test has its result
    usage = shutil.disk_usage(photo.parent)._replace(free=2**30)
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda _: usage)
        answer = http.post(f"{API}/upload", files={"files": photo.read_bytes()})
        accepted, text = ask(http, "complete", inputs(own))
    assert answer.status_code == 507 and names_no_path(answer.text)
    assert not accepted and "The server's disk is full" in text
    assert alive(http, photo)


def test_a_request_over_a_mebibyte_is_refused(http: httpx.Client, photo: Path) -> None:
    body = {"data": ["a" * 2**20], "fn_index": 0, "session_hash": "x"}
    for path in ("queue/join", "call/complete", "cancel"):
        assert http.post(f"{API}/{path}", json=body).status_code == 413
    assert alive(http, photo)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"data": 5}', b'{"data": [], "fn_index": 999999, "session_hash": "x"}', b"\xff"],
)
def test_malformed_requests_are_refused_without_naming_a_path(http: httpx.Client, body: bytes) -> None:
    for path in ("queue/join", "call/complete", "cancel", "reset"):
        headers = {"content-type": "application/json", "connection": "close"}
        answer = http.post(f"{API}/{path}", content=body, headers=headers)
        assert names_no_path(answer.text)
    assert http.get("/healthz").text == "ok"


def test_a_request_that_names_thousands_of_files_is_refused(http: httpx.Client, photo: Path) -> None:
    own = upload(http, photo)
    many = [{"path": own["path"], "meta": META}] * 1000
    accepted, text = ask(http, "batch", [[own], "center", many, "fast", 0])
    assert not accepted and "1000" in text


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        *((2, wrong) for wrong in ("x", ["x"], [{}], [{"file": 5, "x": 0, "y": 0}], [{"x": 0}] * 1000)),
        *((3, wrong) for wrong in ("x", [5], [["1"] * 7], [[0] * 7], [[1e308] * 7], [[1, 0, 0, 0, 1, 0, 32]] * 1000)),
        *((4, wrong) for wrong in ("x", -1, 0.5, 1e308, None, [1])),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_forged_fill_is_refused(http: httpx.Client, tmp_path: Path, number: int, wrong: Any) -> None:
    own = upload(http, face_with_hole(tmp_path / "a.png"))
    data = [own, own, [], [], 0, None]
    data[number] = wrong
    accepted, text = ask(http, "fill", data)
    assert not accepted and names_no_path(text) and "null" not in text


# Several visitors


def test_concurrent_visitors_each_get_their_own_photo(connect: Callable[..., Client], tmp_path: Path) -> None:
    faces = [np.roll(FACE, number, axis=2) // (1 + number // 3) for number in range(6)]
    photos = [save(tmp_path / str(number) / "a.png", face) for number, face in enumerate(faces)]
    clients = [connect() for _ in faces]

    def complete(client: Client, photo: Path, seed: int) -> NDArray[np.uint8]:
        [path] = client.predict(handle_file(photo), "center", seed=seed, api_name="/complete")
        return pixels(path)

    with ThreadPoolExecutor(len(faces)) as pool:
        for seed in (1, 2):
            for face, completed in zip(faces, pool.map(complete, clients, photos, [seed] * 6), strict=True):
                assert np.array_equal(completed[~CENTER], face[~CENTER])
                assert (completed[CENTER] != face[CENTER]).any()


def test_a_full_queue_refuses_and_serves_those_who_wait(other: Serve, photo: Path, gate: Gate) -> None:
    with other(Limits(waiting=1)) as (small, http), ThreadPoolExecutor(3) as pool:
        data = inputs(upload(http, photo), solver="thorough")
        accepted = [pool.submit(ask, http, "complete", data) for _ in range(3)]
        while small.turns.counts != (2, 1):
            assert not any(answer.done() for answer in accepted)
            time.sleep(0.1)
        refused, text = ask(http, "complete", data)
        assert not refused and "the queue is full: 1 requests are waiting" in text.lower()
        gate.open.set()
        assert all(answer.result(300)[0] for answer in accepted)


def test_a_small_photo_is_filled_while_a_large_request_runs_and_those_behind_it_see_their_place(
    http: httpx.Client, page: Any, photo: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.service._LARGE_PX", 2000)
    large = upload(http, face_with_hole(photo.parent / "b.png"))
    wide = upload(http, save(photo.parent / "c.png", np.zeros((64, 64, 4), dtype=np.uint8) + 255))
    assert all(ask(http, "open", [file, None])[0] for file in (large, wide))  # their sizes are known from now on
    data = inputs(large, solver="thorough")
    data[4] = 2  # candidates
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, http, "complete", data)
        assert gate.begun.wait(300)
        behind = pool.submit(ask, http, "fill", [wide, wide, [], [], 0, None])
        while page.turns.counts != (1, 1):
            assert not behind.done()
            time.sleep(0.1)
        assert alive(http, photo)  # would wait for ever behind the large one
        gate.open.set()
        assert first.result(300)[0]
        assert '"state": "waiting", "ahead": 1, "seconds": 10' in behind.result(300)[1]


@pytest.mark.parametrize("way", ["left", "cancelled"])
def test_a_search_that_is_left_or_cancelled_makes_room_for_the_next(
    http: httpx.Client, page: Any, photo: Path, gate: Gate, way: str, connect: Callable[..., Client]
) -> None:
    if way == "left":
        data = inputs(upload(http, photo), solver="thorough")
        event = http.post(f"{API}/call/complete", json={"data": data}).json()["event_id"]
        with httpx.stream("GET", f"{page.url}{API}/call/complete/{event}", timeout=300):
            assert gate.begun.wait(300)
    else:
        job = connect().submit(handle_file(photo), solver="thorough", api_name="/complete")
        assert gate.begun.wait(300)
        job.cancel()
    ends = time.monotonic() + 120
    while page.turns.counts != (0, 0):
        assert time.monotonic() < ends
        time.sleep(0.1)
    assert alive(http, photo)


def test_repeated_requests_leak_no_memory_or_files(http: httpx.Client, uploads: Path, photo: Path) -> None:
    def often(times: int) -> tuple[int, int, set[Path]]:
        for _ in range(times):
            assert alive(http, photo)
        return memory_bytes(), len(os.listdir("/proc/self/fd")), stored(uploads)

    memory, open_files, files = often(10)
    later_memory, later_open_files, later_files = often(30)
    assert later_files == files  # named by their content
    assert later_open_files <= open_files + 3
    assert later_memory - memory < 30 * 2**20


# Messages


def test_an_error_says_what_is_wrong_with_a_file_but_not_where_it_is(
    connect: Callable[..., Client], tmp_path: Path
) -> None:
    text = tmp_path / "a.png"
    text.write_text("text")
    large = save(tmp_path / "large.png", np.zeros((513, 512, 3), dtype=np.uint8))
    grey = save(tmp_path / "grey.png", NO_FACE)
    client = connect()
    for photo, words in ((text, "JPEG"), (large, "pixels"), (grey, "no face")):
        with pytest.raises(AppError, match=f"(?i){words}") as caught:
            client.predict(handle_file(photo), "center", api_name="/complete")
        assert names_no_path(str(caught.value))


def test_a_solver_that_needs_torch_names_the_extra(
    http: httpx.Client, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(name="torch")

    monkeypatch.setattr(FaceCompleter, "steps", absent)
    accepted, text = ask(http, "complete", inputs(upload(http, photo)))
    assert not accepted and ".[train]" in text


# Login


def test_everything_but_healthz_needs_the_password(other: Serve, photo: Path, connect: Callable[..., Client]) -> None:
    with other(auth=("anna", "secret")) as (locked, http):
        for method, path in (
            ("GET", "/config"),
            ("GET", f"{API}/info"),
            ("GET", f"{API}/queue/data?session_hash=x"),
            ("GET", f"{API}/file={os.environ['GRADIO_TEMP_DIR']}/a.png"),
            ("POST", f"{API}/queue/join"),
            ("POST", f"{API}/call/complete"),
            ("GET", "/explore/config"),
            ("POST", "/explore/gradio_api/queue/join"),
        ):
            body = {"data": [], "fn_index": 0, "session_hash": "x"} if method == "POST" else None
            assert http.request(method, path, json=body).status_code == 401
        assert http.post(f"{API}/upload", files={"files": photo.read_bytes()}).status_code == 401
        assert http.post("/login", data={"username": "anna", "password": "Secret"}).status_code == 400
        assert http.get("/config").status_code == 401
        assert http.get("/healthz").text == "ok"
        client = connect(locked.url, auth=("anna", "secret"))
        [path] = client.predict(handle_file(photo), "center", api_name="/complete")
        assert np.array_equal(pixels(io.BytesIO(Path(path).read_bytes()))[~CENTER], FACE[~CENTER])


def test_those_who_share_a_name_stay_when_one_leaves(other: Serve) -> None:
    with (
        other(auth=("anna", "secret")) as (locked, one),
        httpx.Client(base_url=locked.url, timeout=120) as another,
    ):
        for http in (one, another):
            assert http.post("/login", data={"username": "anna", "password": "secret"}).status_code == 200
        assert one.get("/logout?all_session=true").status_code == 302
        assert another.get("/config").status_code == 200


def test_wrong_passwords_are_limited(other: Serve) -> None:
    with other(auth=("anna", "secret"), access=Access((), ("127.0.0.1",))) as (_, http):

        def login(password: str, visitor: str) -> int:
            data = {"username": "anna", "password": password}
            return http.post("/login", data=data, headers={"x-forwarded-for": visitor}).status_code

        assert [login("wrong", "10.0.0.1") for _ in range(7)] == [400] * 5 + [429] * 2
        assert login("secret", "10.0.0.1") == 429
        assert login("secret", "10.0.0.2") == 200
