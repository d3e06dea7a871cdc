"""The page over HTTP: its API, what it refuses, and that it keeps working."""

import asyncio
import base64
import gc
import io
import itertools
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from completion.solve import State
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, pixels, save
from PIL import Image

from completion import solve as solve_module
from dcgan.weights import Weights
from ui.access import LOCAL, Access, AccessError, Recent
from ui.server import Guard, sweep
from ui.service import Limits, Service

LIMITS = Limits(max_pixels=512 * 512, seconds=300, photos=3)
API = "/gradio_api"
META = {"_type": "gradio.FileData"}

Serve = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def page(serve: Serve, encoder_weights: Weights) -> Iterator[Any]:
    with serve(Service(encoder_weights, LIMITS)) as page:
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


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds every search until it is set; `gate.begun` is set when the first one starts."""
    gate = threading.Event()
    gate.begun = threading.Event()  # type: ignore[attr-defined]
    solve = solve_module.solve

    def waiting(*arguments: Any) -> Iterator[State]:
        gate.begun.set()  # type: ignore[attr-defined]
        assert gate.wait(300)
        yield from solve(*arguments)

    monkeypatch.setattr(solve_module, "solve", waiting)
    yield gate
    gate.set()


def upload(http: httpx.Client, path: Path) -> dict[str, Any]:
    """Upload a file; the data that a page sends for it."""
    [stored] = http.post(f"{API}/upload", files={"files": (path.name, path.read_bytes())}).raise_for_status().json()
    return {"path": stored, "meta": META, "orig_name": path.name}


def handler(http: httpx.Client, name: str, event: str = "") -> int:
    """Number of the handler of a component's event or, without an event, of an endpoint of the API."""
    config = http.get("/config").json()
    ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
    for item in config["dependencies"]:
        if [ids.get(name), event] in item["targets"] if event else item["api_name"] == name:
            return int(item["id"])
    raise AssertionError(f"the page has no handler for {event} of {name}")


def ask(
    http: httpx.Client, number: int, data: list[Any], event: Any = None, session: str | None = None
) -> tuple[bool, str]:
    """Run a handler as the page does; whether it succeeded, and its messages."""
    session = session or uuid4().hex
    body = {"data": data, "fn_index": number, "session_hash": session, "event_data": event}
    answer = http.post(f"{API}/queue/join", json=body)
    if answer.is_error:
        return False, f"{answer.status_code} {answer.text}"
    text = http.get(f"{API}/queue/data", params={"session_hash": session}).text
    messages = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]
    success = all(message["success"] for message in messages if message["msg"] == "process_completed")
    return success and "did not work" not in text, text


def names_no_path(text: str) -> bool:
    return not re.search(r"/(home|root|tmp|usr|var|work|etc)/|site-packages|Traceback|\.py\b", text)


def alive(http: httpx.Client, photo: Path) -> bool:
    """Whether the server still fills holes."""
    return ask(http, handler(http, "complete"), api_inputs(upload(http, photo)))[0]


def api_inputs(photo: Any, mask: Any = None, solver: str = "fast") -> list[Any]:
    return [photo, "center", mask, solver, 1, "poisson", 0, None, True]


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
    settings = {"mask_file": handle_file(mask), "solver": "search", "candidates": 2, "weight": 0.1}
    first, second = map(pixels, connect().predict(handle_file(photo), "full", **settings, api_name="/complete"))
    assert np.array_equal(first[~hole], FACE[~hole]) and np.array_equal(second[~hole], FACE[~hole])
    assert (first[hole] != second[hole]).any()


def test_the_api_offers_faces_walks_and_batches(connect: Callable[..., Client], photo: Path) -> None:
    client = connect()
    faces = client.predict(3, api_name="/sample")
    film, steps = client.predict(3, 2, 5, api_name="/walk")
    with Image.open(film) as animation:
        assert len(faces) == 16 and animation.format == "GIF"
    assert np.abs(pixels(steps)[:, :96].astype(int) - pixels(faces[1]["image"])).max() <= 1
    status, archive, pictures = client.predict([handle_file(photo)], api_name="/batch")
    assert "a.png: completed" in status and Path(archive).suffix == ".zip"
    assert [picture["caption"] for picture in pictures] == ["a.png"]


def test_the_api_lists_its_documented_endpoints_and_no_others(connect: Callable[..., Client]) -> None:
    found = connect().view_api(return_format="dict", print_info=False)
    assert set(found["named_endpoints"]) == {"/complete", "/sample", "/walk", "/move", "/batch"}
    assert not found["unnamed_endpoints"]
    for endpoint in found["named_endpoints"].values():
        assert endpoint["description"] and all(parameter["label"] for parameter in endpoint["parameters"])


# The allow-list


@pytest.mark.parametrize(
    "path", ["/", "/config", "/healthz", "/metrics", "/nothing", f"{API}/file=/etc/passwd", f"{API}/info"]
)
def test_every_response_has_security_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
    assert headers["referrer-policy"] == "no-referrer"


def test_during_shutdown_healthz_fails_and_new_work_is_refused(http: httpx.Client, page: Any, photo: Path) -> None:
    number, data = handler(http, "complete"), api_inputs(upload(http, photo))
    assert (http.get("/healthz").status_code, http.get("/healthz").text) == (200, "ok")
    page.state["closing"] = True
    try:
        assert http.get("/healthz").status_code == 503
        assert ask(http, number, data) == (False, "503 the server is shutting down; try again in a minute")
        assert http.post(f"{API}/upload", files={"files": photo.read_bytes()}).status_code == 503
        assert http.get("/config").status_code == 200  # open pages still get their answers
    finally:
        page.state["closing"] = False
    assert alive(http, photo)


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", f"{API}/component_server"),
        ("POST", f"{API}/component_server/"),
        ("GET", f"{API}/proxy=http://localhost/"),
        ("GET", f"{API}/proxy%3Dhttp://localhost/"),
        ("GET", f"{API}/file=http://localhost/"),
        ("GET", f"{API}/file=HTTPS:%2F%2Flocalhost/"),
        ("GET", f"{API}/file/etc/passwd"),
        ("POST", f"{API}/run/complete"),
        ("POST", f"{API}/api/complete"),
        ("POST", f"{API}/call/v2/complete"),
        ("POST", f"{API}/stream/x"),
        ("POST", f"{API}/process_recording"),
        ("POST", f"{API}/vibe-edit"),
        ("GET", f"{API}/openapi.json"),
        ("GET", f"{API}/dev/reload"),
        ("GET", f"{API}/runs"),
        ("GET", f"{API}/custom_component/1/client/component/x.js"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/docs"),
        ("GET", "/unknown"),
        ("PUT", "/config"),
        ("DELETE", f"{API}/upload"),
        ("PATCH", "/"),
    ],
    ids=" ".join,
)
def test_gradios_other_routes_are_closed(http: httpx.Client, request_: tuple[str, str]) -> None:
    answer = http.request(*request_, json={"data": []} if request_[0] == "POST" else None)
    assert (answer.status_code, answer.text) == (404, "not found")


def test_web_sockets_are_refused() -> None:
    sent = []

    async def unasked(*_: Any) -> Any:
        raise AssertionError("passed on")

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(unasked, 1, {"requests": 0, "closing": False}, LOCAL, dict)
    asyncio.run(guard({"type": "websocket", "path": "/"}, unasked, send))
    assert sent == [{"type": "websocket.close"}]


def test_the_queue_cannot_be_bypassed(http: httpx.Client, photo: Path) -> None:
    body = {"data": api_inputs(upload(http, photo)), "fn_index": handler(http, "complete"), "session_hash": "x"}
    answer = http.post(f"{API}/run/predict", json=body)
    assert answer.status_code == 404 and names_no_path(answer.text)


def test_the_page_names_no_folder_of_the_server(http: httpx.Client) -> None:
    folders = [str(Path.cwd()), str(Path.home()), os.environ["GRADIO_TEMP_DIR"], "site-packages"]
    for path in ("/", "/config", f"{API}/info"):
        text = http.get(path).raise_for_status().text
        assert not [folder for folder in folders if f"{folder}/" in text]


# Files of others


@pytest.mark.parametrize(
    "path",
    [
        "{api}/file=/etc/passwd",
        "{api}/file=../../../../etc/passwd",
        "{api}/file=%2Fetc%2Fpasswd",
        "{api}/file=..%2f..%2f..%2fetc%2fpasswd",
        "{api}/file=%252e%252e%252fetc%252fpasswd",
        "{api}/file={uploads}/../../../../../../etc/passwd",
        "{api}/file={uploads}/%2e%2e/{secret}",
        "{api}/file={secret}",
        "{api}/file=//{secret}",
        "{api}/file={project}/pyproject.toml",
        "{api}/file=pyproject.toml",
        "{api}/file=file:{secret}",
        "{api}/file=%00/etc/passwd",
        "/static/../../../../../../../../etc/passwd",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/svelte/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/%2fetc%2fpasswd",
    ],
)
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


# Each way to send a file: the component, its event, the data with the visitor's own file and another, event data.
CHOICE = {"index": 0, "value": "center"}
SETTINGS = ["fast", 1, "poisson", 0, None, True]
WAYS: dict[str, tuple[str, str, Callable[[Any, Any], list[Any]]]] = {
    "photo": ("photo", "input", lambda own, file: [file]),
    "photo to fill": ("complete", "click", lambda own, file: [file, drawn(), *SETTINGS]),
    "photo to name a hole on": ("named", "select", lambda own, file: [file, drawn(), False, False]),
    "mask": ("mask", "upload", lambda own, file: [own, file, False]),
    "photo of a program": ("complete", "", lambda own, file: api_inputs(file)),
    "mask of a program": ("complete", "", lambda own, file: api_inputs(own, file)),
    "photo of a batch": ("batch", "", lambda own, file: [[own, file], "center", None, "fast", 0]),
    "mask of a batch": ("batch", "", lambda own, file: [[own], "center", [file], "fast", 0]),
}


def drawn(eyes: Any = ()) -> dict[str, Any]:
    """What the editor of the page sends for the hole CENTER."""
    file = io.BytesIO()
    Image.fromarray(np.dstack([np.zeros((32, 32, 3), np.uint8), np.where(CENTER, 255, 0).astype(np.uint8)])).save(
        file, "PNG"
    )
    return {"hole": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", "eyes": eyes}


def face_with_hole(path: Path) -> Path:
    """A picture that can serve as photo, layer and mask."""
    return save(path, np.dstack([np.where(CENTER[..., None], 255, FACE // 2), np.where(CENTER, 255, 0)]))


@pytest.mark.parametrize("way", WAYS)
def test_only_uploaded_files_are_accepted(http: httpx.Client, tmp_path: Path, way: str) -> None:
    name, event, sent = WAYS[way]
    number, own = handler(http, name, event), upload(http, face_with_hole(tmp_path / "a.png"))
    assert ask(http, number, sent(own, own), CHOICE)[0]
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
            accepted, text = ask(http, number, sent(own, file), CHOICE)
            assert not accepted and names_no_path(text.replace(os.environ["GRADIO_TEMP_DIR"], ""))
    assert ask(http, number, sent(own, own), CHOICE)[0]


@pytest.mark.parametrize("way", WAYS)
def test_urls_are_not_fetched(http: httpx.Client, photo: Path, way: str) -> None:
    name, event, sent = WAYS[way]
    number, own = handler(http, name, event), upload(http, photo)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}/a.png"
        for scheme in ("http", "https", "HTTP", "ftp"):
            file = {"path": f"{scheme}://{address}", "meta": META}
            assert ask(http, number, sent(own, file), CHOICE)[1].startswith("400 ")
        # Gradio's own entries of a file, which it never fetches.
        ask(http, number, sent(own, own | {"url": f"http://{address}", "orig_name": f"http://{address}"}), CHOICE)
        listening.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_urls_are_refused_in_every_encoding_of_a_request(http: httpx.Client, photo: Path) -> None:
    data = api_inputs({"path": "http://127.0.0.1:9/a.png", "meta": META})
    body = {"data": data, "fn_index": handler(http, "complete"), "session_hash": "x"}
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
        for path in ("queue/join", "call/complete", "run/predict"):
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


def test_an_upload_of_unknown_length_has_the_same_limit(http: httpx.Client, photo: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(1000):
            yield bytes(2**20)

    try:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = http.post(f"{API}/upload", content=endless(), headers=headers)
        assert answer.status_code == 413
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
    for path in ("upload", "queue/join", "run/predict", "call/sample"):
        for headers, refused in (
            ({"sec-fetch-site": "cross-site"}, True),
            ({"sec-fetch-site": "same-origin"}, False),
            ({"origin": "http://evil.example"}, True),
            ({"origin": "http://localhost:1"}, True),
            ({"origin": "null"}, True),
            ({"origin": page.url}, False),
        ):
            answer = http.post(f"{API}/{path}", json={}, headers=headers)
            assert (answer.status_code == 403) == refused
            assert "access-control-allow-origin" not in answer.headers
    assert alive(http, photo)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:7860", 200),
        ("[::1]:7860", 200),
        ("faces.example", 200),
        ("FACES.example:443", 200),
        ("evil.example", 403),
        ("faces.example.evil.example", 403),
        ("", 403),
    ],
)
def test_the_page_has_only_the_names_that_are_allowed(
    serve: Serve, encoder_weights: Weights, host: str, status: int
) -> None:
    with serve(Service(encoder_weights, LIMITS), access=Access(("faces.example",))) as named:
        assert httpx.get(f"{named.url}/config", headers={"host": host}).status_code == status


@pytest.mark.parametrize("trusted", [False, True])
def test_forwarded_headers_are_believed_from_trusted_proxies_only(
    serve: Serve, encoder_weights: Weights, trusted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(("faces.example",), ("127.0.0.0/8",) if trusted else ())
    headers = {"x-forwarded-host": "faces.example", "x-forwarded-proto": "https", "x-forwarded-for": "10.1.2.3"}
    with (
        serve(Service(encoder_weights, LIMITS), access=access) as served,
        httpx.Client(base_url=served.url, timeout=120) as http,
    ):
        root = http.get("/config", headers=headers).json()["root"]
        assert root == ("https://faces.example" if trusted else served.url)
        assert http.get("/config", headers=headers | {"x-forwarded-host": "evil.example"}).status_code == (
            403 if trusted else 200
        )
        http.post(f"{API}/unknown", headers=headers)
    assert ("from 10.1.2.3" if trusted else "from 127.0.0.1") in caplog.text


def test_an_unusable_proxy_is_refused() -> None:
    with pytest.raises(AccessError, match="'proxy.example'; give an IP address"):
        Access((), ("proxy.example",))


def test_a_forged_request_is_logged_in_one_line_and_answered_with_all_headers(
    http: httpx.Client, photo: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    number, own = handler(http, "complete"), upload(http, photo)
    forged: list[dict[str, Any]] = [
        {"data": api_inputs({"path": "/etc/passwd", "meta": META}), "fn_index": number, "session_hash": "x"},
        {"data": [], "fn_index": 999_999, "session_hash": "x"},
        {"data": 5, "fn_index": number, "session_hash": "x", "event_data": "\nforged line"},
    ]
    for body in forged:
        caplog.clear()
        answer = http.post(f"{API}/queue/join", json=body)
        assert answer.is_error and "default-src 'self'" in answer.headers["content-security-policy"]
        assert len(caplog.messages) <= 1 and not any("\n" in line for line in caplog.messages)
    caplog.clear()
    assert not ask(http, number, [own])[0]  # refused in the queue, after it was accepted
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
    assert "Traceback" not in capfd.readouterr().err


def test_a_visitor_has_a_quota_of_uploads(
    http: httpx.Client, photo: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve, encoder_weights: Weights
) -> None:
    monkeypatch.setattr("ui.server._QUOTA_UPLOADS", 0)
    with (
        serve(Service(encoder_weights, LIMITS), access=Access((), ("127.0.0.1",))) as served,
        httpx.Client(base_url=served.url, timeout=120) as http,
    ):
        for visitor, status in (("10.0.0.1", 200), ("10.0.0.1", 429), ("10.0.0.2", 200)):
            files = {"files": photo.read_bytes()}
            answer = http.post(f"{API}/upload", files=files, headers={"x-forwarded-for": visitor})
            assert answer.status_code == status


def test_amounts_count_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    recent = Recent(60)
    for clock[0], visitor in ((0, "anna"), (30, "anna"), (30, "bert")):
        recent.add(visitor, 5)
    assert (recent.sum("anna"), recent.sum("bert"), recent.sum("carl")) == (10, 5, 0)
    clock[0] = 61
    assert (recent.sum("anna"), recent.sum("bert")) == (5, 5)
    clock[0] = 91
    assert (recent.sum("anna"), recent.sum("bert")) == (0, 0)


def test_metrics_count_answers_and_requests(http: httpx.Client, photo: Path) -> None:
    def metrics() -> dict[str, float]:
        lines = http.get("/metrics").raise_for_status().text.splitlines()
        return {name: float(value) for name, value in (line.split(" ") for line in lines if line[0] != "#")}

    before = metrics()
    http.get("/nothing")
    assert alive(http, photo)
    after = metrics()
    refused = 'ui_answers_total{status="404"}'
    assert after[refused] == before.get(refused, 0) + 1
    assert after['ui_answers_total{status="200"}'] > before['ui_answers_total{status="200"}']
    assert (after["ui_running"], after["ui_waiting"]) == (0, 0) and after["ui_requests"] >= 0


def test_pages_are_compressed_and_pictures_and_events_are_not(http: httpx.Client, photo: Path) -> None:
    headers = {"accept-encoding": "gzip"}
    for path in ("/", "/config"):
        assert http.get(path, headers=headers).headers["content-encoding"] == "gzip"
    stored = upload(http, photo)["path"]
    assert "content-encoding" not in http.get(f"{API}/file={stored}", headers=headers).headers


def test_old_photos_and_results_are_deleted(
    http: httpx.Client, uploads: Path, photo: Path, connect: Callable[..., Client]
) -> None:
    assert http.post(f"{API}/upload", files={"other": photo.read_bytes()}).json() == []  # a file that no component uses
    client = connect()
    client.predict(handle_file(photo), "center", api_name="/complete")
    client.predict(0, api_name="/sample")
    before = stored(uploads)
    assert len(before) > 3
    sweep(uploads, 3600)
    assert stored(uploads) == before  # young enough to be in use
    sweep(uploads, 0)
    assert not stored(uploads)
    sweep(uploads, 0)
    assert not list(uploads.iterdir())
    assert alive(http, photo)


def test_uploads_are_refused_when_the_disk_is_nearly_full(
    http: httpx.Client, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(photo.parent)._replace(free=2**30)
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda _: usage)
        answer = http.post(f"{API}/upload", files={"files": photo.read_bytes()})
    assert answer.status_code == 507 and names_no_path(answer.text)
    assert alive(http, photo)


def test_a_request_over_two_mebibytes_is_refused(http: httpx.Client, photo: Path) -> None:
    body = {"data": ["a" * 2**21], "fn_index": 0, "session_hash": "x"}
    for path in ("queue/join", "call/complete", "run/predict", "cancel"):
        assert http.post(f"{API}/{path}", json=body).status_code == 413
    assert alive(http, photo)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"data": 5}', b'{"data": [], "fn_index": 999999, "session_hash": "x"}', b"\xff"],
)
def test_malformed_requests_are_refused_without_naming_a_path(http: httpx.Client, body: bytes) -> None:
    for path in ("queue/join", "call/complete", "run/predict", "cancel", "reset"):
        headers = {"content-type": "application/json", "connection": "close"}
        answer = http.post(f"{API}/{path}", content=body, headers=headers)
        assert names_no_path(answer.text)
    assert http.get("/healthz").text == "ok"


def test_a_small_request_cannot_allocate_much_memory(http: httpx.Client) -> None:
    config = http.get("/config").json()
    [editor] = [item["id"] for item in config["components"] if item["props"].get("elem_id") == "editor"]
    before = memory_bytes()
    for index in (10**6, 10**9):
        data = {"type": "layer", "index": index, "file": None, "id": "x"}
        fields = {"data": json.dumps(data), "component_id": str(editor), "session_hash": "x", "fn_name": "accept_blobs"}
        for request in ({"json": fields | {"data": data}}, {"data": fields, "files": {"file": b"a"}}):
            assert http.post(f"{API}/component_server", **request).status_code == 404
    assert memory_bytes() - before < 16 * 2**20


def test_a_request_that_names_thousands_of_files_is_refused(http: httpx.Client, photo: Path) -> None:
    own = upload(http, photo)
    many = [{"path": own["path"], "meta": META}] * 1000
    accepted, text = ask(http, handler(http, "batch"), [[own], "center", many, "fast", 0])
    assert not accepted and "1000" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"hole": "data:image/png;base64,AAAA"},
        {"hole": "data:image/png;base64,!"},
        {"hole": "/etc/passwd"},
        {"hole": ["x"]},
        {"eyes": "x"},
        {"eyes": [[0, 0, 1, "1"]]},
        {"eyes": [[0.1, 0.1, 0.2, 0.2]] * 1000},
        {"eyes": [[1e308, -1, 0, 0]]},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_a_forged_drawing_is_refused(http: httpx.Client, photo: Path, wrong: dict[str, Any]) -> None:
    number, own = handler(http, "complete", "click"), upload(http, photo)
    accepted, text = ask(http, number, [own, drawn() | wrong, *SETTINGS])
    assert not accepted and names_no_path(text)


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


def test_a_full_queue_refuses_and_serves_those_who_wait(
    serve: Serve, encoder_weights: Weights, photo: Path, gate: Any
) -> None:
    with (
        serve(Service(encoder_weights, Limits(waiting=1))) as small,
        httpx.Client(base_url=small.url, timeout=300) as http,
        ThreadPoolExecutor(3) as pool,
    ):
        number, data = handler(http, "complete"), api_inputs(upload(http, photo))
        accepted = [pool.submit(ask, http, number, data) for _ in range(3)]
        while small.turns.counts != (2, 1):
            assert not any(answer.done() for answer in accepted)
            time.sleep(0.1)
        refused, text = ask(http, number, data)
        assert not refused and "the queue is full: 1 requests are waiting" in text.lower()
        gate.set()
        assert all(answer.result(300)[0] for answer in accepted)


def test_a_small_photo_is_completed_while_a_large_request_runs_and_those_behind_it_see_their_place(
    http: httpx.Client, page: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, begun = threading.Event(), threading.Event()
    solve = solve_module.solve

    def slow(*arguments: Any) -> Iterator[State]:
        if arguments[3].steps > 1000:  # paper
            begun.set()
            assert held.wait(300)
        yield from itertools.islice(solve(*arguments), 1)

    monkeypatch.setattr(solve_module, "solve", slow)
    own = upload(http, face_with_hole(photo.parent / "b.png"))
    number, data = handler(http, "complete", "click"), [own, drawn(), "paper", *SETTINGS[1:]]
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(ask, http, number, data)
        assert begun.wait(300)
        behind = pool.submit(ask, http, number, data)
        while page.turns.counts != (1, 1):
            assert not behind.done()
            time.sleep(0.1)
        assert alive(http, photo)  # would wait for ever behind the large one
        held.set()
        assert large.result(300)[0] and behind.result(300)[0]
        assert "Waiting: 1 request is before yours, about 10 s." in behind.result()[1]


def test_a_second_click_while_a_photo_is_completed_starts_nothing(
    http: httpx.Client, photo: Path, gate: Any, page: Any
) -> None:
    own = upload(http, face_with_hole(photo.parent / "b.png"))
    number, data, session = handler(http, "complete", "click"), [own, drawn(), *SETTINGS], uuid4().hex
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, http, number, data, None, session)
        assert gate.begun.wait(300)
        body = {"data": data, "fn_index": number, "session_hash": session}
        assert http.post(f"{API}/queue/join", json=body).is_success
        while http.get(f"{API}/queue/status").json()["queue_size"]:
            time.sleep(0.1)
        assert page.turns.counts == (1, 0)
        gate.set()
        assert first.result(300)[0]


def test_a_stopped_search_leaves_the_queue_and_its_page_can_start_again(
    http: httpx.Client, page: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    solve = solve_module.solve

    def endless(*arguments: Any) -> Iterator[State]:
        for step in solve(*arguments):
            while arguments[3].steps > 1000:  # paper
                yield step
                begun.set()
                time.sleep(0.01)
            yield step

    monkeypatch.setattr(solve_module, "solve", endless)
    own, session = upload(http, face_with_hole(photo.parent / "b.png")), uuid4().hex
    number, data = handler(http, "complete", "click"), [own, drawn(), "paper", *SETTINGS[1:]]
    body = {"data": data, "fn_index": number, "session_hash": session}
    event = http.post(f"{API}/queue/join", json=body).raise_for_status().json()["event_id"]
    with httpx.stream("GET", f"{page.url}{API}/queue/data", params={"session_hash": session}, timeout=120):
        assert begun.wait(120)
        body = {"session_hash": session, "fn_index": number, "event_id": event}
        http.post(f"{API}/cancel", json=body).raise_for_status()
    ends = time.monotonic() + 120
    while page.turns.counts != (0, 0):
        assert time.monotonic() < ends
        time.sleep(0.1)
    accepted, text = ask(http, number, [own, drawn(), *SETTINGS], None, session)
    assert accepted and "Done in" in text


@pytest.mark.parametrize("way", ["photo to fill", "photo of a program"])
def test_the_search_of_a_visitor_who_leaves_makes_room_for_the_next(
    http: httpx.Client, page: Any, photo: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, left = threading.Event(), threading.Event()
    solve = solve_module.solve

    def endless(*arguments: Any) -> Iterator[State]:
        steps = solve(*arguments)
        if arguments[3].steps < 1000:
            yield from steps
        for step in steps:
            while True:
                yield step
                begun.set()
                assert left.wait(LIMITS.seconds)
                time.sleep(0.01)

    monkeypatch.setattr(solve_module, "solve", endless)
    name, event, sent = WAYS[way]
    own = upload(http, face_with_hole(photo.parent / "b.png"))
    data = ["paper" if value == "fast" else value for value in sent(own, own)]
    session = uuid4().hex
    body = {"data": data, "fn_index": handler(http, name, event), "session_hash": session}
    began = time.monotonic()
    http.post(f"{API}/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{page.url}{API}/queue/data", params={"session_hash": session}, timeout=120):
        assert begun.wait(LIMITS.seconds)
    left.set()
    assert alive(http, photo)
    assert time.monotonic() - began < LIMITS.seconds  # when the search would have ended by itself


def test_repeated_requests_leak_no_memory_or_files(http: httpx.Client, uploads: Path, photo: Path) -> None:
    def often(times: int) -> tuple[int, int, set[Path]]:
        for _ in range(times):
            assert alive(http, photo)
        # Gradio also makes an empty file for each file of gr.File.
        files = {path for path in stored(uploads) if path.stat().st_size}
        return memory_bytes(), len(os.listdir("/proc/self/fd")), files

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask": "/etc/passwd"},
        {"mask": "x" * 10_000},
        {"solver": "magic"},
        {"candidates": 9},
        {"candidates": 1e308},
        {"seed": -1},
        {"seed": 0.5},
        {"weight": -1},
        {"blend": ""},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_an_error_says_which_setting_is_wrong(
    connect: Callable[..., Client], photo: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(AppError, match="(?i)give|choose|minimum"):
        connect().predict(handle_file(photo), **wrong, api_name="/complete")


# Login


def test_everything_but_healthz_needs_the_password(
    serve: Serve, encoder_weights: Weights, photo: Path, connect: Callable[..., Client]
) -> None:
    with serve(Service(encoder_weights, LIMITS), auth=("anna", "secret")) as locked:
        with httpx.Client(base_url=locked.url, timeout=120) as http:
            for method, path in (
                ("GET", "/config"),
                ("GET", f"{API}/info"),
                ("GET", f"{API}/queue/data?session_hash=x"),
                ("GET", f"{API}/file={os.environ['GRADIO_TEMP_DIR']}/a.png"),
                ("POST", f"{API}/queue/join"),
                ("POST", f"{API}/call/complete"),
                ("POST", f"{API}/run/predict"),
            ):
                body = {"data": [], "fn_index": 0, "session_hash": "x"} if method == "POST" else None
                assert http.request(method, path, json=body).status_code == 401
            assert http.post(f"{API}/upload", files={"files": photo.read_bytes()}).status_code == 401
            assert http.post("/login", data={"username": "anna", "password": "Secret"}).status_code == 400
            assert http.get("/config").status_code == 401
            assert http.get("/healthz").text == "ok"
            assert http.post(f"{API}/cancel", json={"session_hash": "x", "fn_index": 0, "event_id": "x"}).is_error
        client = connect(locked.url, auth=("anna", "secret"))
        [path] = client.predict(handle_file(photo), "center", api_name="/complete")
        assert np.array_equal(pixels(io.BytesIO(Path(path).read_bytes()))[~CENTER], FACE[~CENTER])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_login_sets_one_cookie_that_fits_the_scheme(serve: Serve, encoder_weights: Weights, scheme: str) -> None:
    access = Access((), ("127.0.0.1",))
    with serve(Service(encoder_weights, LIMITS), auth=("anna", "secret"), access=access) as locked:
        headers = {"x-forwarded-proto": scheme}
        data = {"username": "anna", "password": "secret"}
        answer = httpx.post(f"{locked.url}/login", data=data, headers=headers, timeout=120)
        [cookie] = answer.headers.get_list("set-cookie")
        assert ("Secure" in cookie) == (scheme == "https") and "HttpOnly" in cookie and "SameSite=lax" in cookie
        login = {"cookie": cookie.partition(";")[0]}
        assert httpx.get(f"{locked.url}/config", headers=headers | login, timeout=120).status_code == 200


def test_wrong_passwords_are_logged_and_limited(
    serve: Serve, encoder_weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access((), ("127.0.0.1",))
    with (
        serve(Service(encoder_weights, LIMITS), auth=("anna", "secret"), access=access) as locked,
        httpx.Client(base_url=locked.url, timeout=120) as http,
    ):

        def login(password: str, visitor: str) -> int:
            data = {"username": "anna", "password": password}
            return http.post("/login", data=data, headers={"x-forwarded-for": visitor}).status_code

        assert [login("wrong", "10.0.0.1") for _ in range(7)] == [400] * 5 + [429] * 2
        assert login("secret", "10.0.0.1") == 429
        assert login("secret", "10.0.0.2") == 200
    wrong = [line for line in caplog.messages if "wrong name or password" in line]
    assert len(wrong) == 5 and all("10.0.0.1" in line and "secret" not in line for line in wrong)
