"""The command line of the page: `python -m ui`."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import httpx
import numpy as np
import pytest
from pictures import PORTRAIT
from PIL import Image

from align.cli import settings_from
from align.files import lock_folder
from ui.__main__ import build_parser, main, own_folder
from ui.config import ServeOptions

WAIT_S = 300  # for a busy machine


@dataclass(frozen=True)
class Served:
    """A running `python -m ui` and the folder of its temporary files."""

    url: str
    process: subprocess.Popen[str]
    temporary: Path


Start = Callable[..., Served]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def environment(uploads: Path) -> Iterator[None]:
    """Restores the variables that main sets for its process."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def start(encoder_weights_file: Path, port: int, tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(*words: str) -> Served:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        options = ["--no-open", "--port", str(port), "--weights", str(encoder_weights_file), *words]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        command = [sys.executable, "-m", "ui", *options]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        served = Served(f"http://127.0.0.1:{port}", process, temporary)
        ends = time.monotonic() + WAIT_S
        while not reached(served.url):
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.2)
        return served

    yield run
    for process in started:
        process.kill()
        process.communicate()


def reached(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=WAIT_S).text == "ok"
    except httpx.TransportError:
        return False


WRONG = """--port http, --port 65536, --auth anna, --auth :secret, --auth anna:, --max-pixels 0, --max-seconds 0,
--max-photos -1, --max-waiting 0, --config absent.toml, photo.png"""


@pytest.mark.parametrize("wrong", [words.strip() for words in WRONG.split(",")])
def test_wrong_usage_exits_with_2_and_a_reason(wrong: str, refused: Refused) -> None:
    assert "(see --help)" in refused(main, wrong.split())


def test_a_password_may_contain_colons() -> None:
    assert build_parser().parse_args(["--auth", "anna:a:b"]).auth == ("anna", "a:b")


def test_names_and_proxies_are_lists() -> None:
    words = ["--allow-host", "Faces.example, www.faces.example", "--trusted-proxy", "127.0.0.1,10.0.0.0/8"]
    options = settings_from(build_parser().parse_args(words), ServeOptions)
    assert options.allow_host == ("faces.example", "www.faces.example")
    assert options.trusted_proxy == ("127.0.0.1", "10.0.0.0/8")


def test_a_public_address_needs_a_proxy_or_a_word(refused: Refused) -> None:
    assert "put a reverse proxy in front" in refused(main, ["--host", "0.0.0.0"])
    for words in ({"trusted_proxy": ("10.0.0.1",)}, {"open_to_network": True}):
        assert ServeOptions(host="0.0.0.0", **words).host == "0.0.0.0"  # type: ignore[arg-type]
    assert ServeOptions(host="::1")


def test_what_a_killed_page_has_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = ["page-killed/.lock", "page-killed/upload/a.png", "page-used/.lock", "page-used/a.png", "page-other/a.png"]
    for name in (*names, "stream/a.png"):
        path = tmp_path / f"dcgan-completion-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".lock").touch()
    (tmp_path / "dcgan-completion-page-link").symlink_to(tmp_path / "mine")
    with lock_folder(tmp_path / "dcgan-completion-page-used"), own_folder() as folder:
        assert Path(folder, ".lock").exists()
        kept = {"page-used", "page-other", "page-link", "stream", Path(folder).name.removeprefix("dcgan-completion-")}
        assert {path.name for path in tmp_path.iterdir()} == {"mine", *(f"dcgan-completion-{name}" for name in kept)}
        assert (tmp_path / "mine" / ".lock").exists()
    assert not Path(folder).exists()


def test_the_page_starts_without_what_windows_lacks() -> None:
    code = """
import os, signal
del os.getuid, signal.SIGHUP, signal.pthread_sigmask
import ui.reader
from align.cli import SIGNALS
from align.parallel import _shielded
from ui.__main__ import own_folder
with _shielded(), own_folder():
    print(*SIGNALS)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(int(number)) for number in (signal.SIGINT, signal.SIGTERM)]


def test_an_unusable_proxy_exits_with_2_and_one_line(refused: Refused) -> None:
    line = refused(main, ["--trusted-proxy", "proxy.example"])
    assert line.startswith("ui: the trusted proxy is 'proxy.example'; give an IP address")


@pytest.mark.parametrize("content", [b"", b"text"], ids=["empty", "text"])
def test_unusable_weights_exit_with_2_and_one_line(tmp_path: Path, refused: Refused, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert refused(main, ["--weights", str(path)]).startswith("ui: ")


def test_the_page_needs_no_torch() -> None:
    code = "import sys, ui.app, ui.explore, ui.service, completion; completion.FaceCompleter.load(); "
    subprocess.run([sys.executable, "-c", f"{code}sys.exit('torch' in sys.modules)"], check=True, timeout=WAIT_S)


def test_a_port_in_use_exits_with_1_and_one_line(encoder_weights_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--port", str(taken.getsockname()[1]), "--weights", str(encoder_weights_file)]
        ended = subprocess.run([sys.executable, "-m", "ui", *words], capture_output=True, text=True, timeout=WAIT_S)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("ui: ") and str(taken) not in line


def test_ctrl_c_exits_with_0_and_leaves_no_files(start: Start) -> None:
    served = start()
    with httpx.Client(base_url=served.url, timeout=WAIT_S) as http:
        http.post("/gradio_api/upload", files={"files": b"a photo"}).raise_for_status()
    assert [path for path in served.temporary.rglob("*") if path.is_file()]
    served.process.send_signal(signal.SIGINT)
    _, stderr = served.process.communicate(timeout=WAIT_S)
    assert served.process.returncode == 0
    assert served.url in stderr and "Traceback" not in stderr
    assert not list(served.temporary.iterdir())


def test_sigterm_finishes_running_work_and_lets_it_be_fetched(start: Start) -> None:
    served = start("--quiet", "--max-seconds", "5")
    photo = io.BytesIO()
    Image.fromarray(PORTRAIT).save(photo, "PNG")
    with httpx.Client(base_url=f"{served.url}/gradio_api", timeout=WAIT_S) as http:
        [path] = http.post("/upload", files={"files": photo.getvalue()}).json()
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = [file, "center", None, "paper", 1, "poisson", 0, None, True, None]
        event = http.post("/call/complete", json={"data": data}).json()["event_id"]
        with http.stream("GET", f"/call/complete/{event}") as stream:
            lines = stream.iter_lines()
            assert "event: generating" in lines  # it runs
            served.process.send_signal(signal.SIGTERM)
            answer = "\n".join(lines)
        assert "event: complete" in answer
        [[completed]] = json.loads(answer.rpartition("data: ")[2])
        picture = np.asarray(Image.open(io.BytesIO(http.get(f"/file={completed['path']}").content)))
    assert np.array_equal(picture[:8], PORTRAIT[:8]) and (picture != PORTRAIT).any()
    _, stderr = served.process.communicate(timeout=WAIT_S)
    assert (served.process.returncode, stderr) == (143, "")
    assert not list(served.temporary.iterdir())
