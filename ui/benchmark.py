"""python -m ui.benchmark: many people at the page at once, and whether each gets the own photo back, and how soon."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import at_least
from weights import DEFAULT, REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from gradio_client import Client
    from numpy.typing import NDArray

_START_S = 300  # a busy machine takes its time to import torch
_PAUSE_S = 0.5  # after a full queue, as people wait too
_EXAMPLE = """example:
  python -m ui.benchmark --users 16 --seconds 60

exit codes: 0 done, 1 somebody got an error or the photo of another, 2 wrong usage, 130 stopped by Ctrl+C"""


@dataclass
class _User:
    """One of the people: what they send, and what became of it."""

    photo: Path
    pixels: NDArray[np.uint8]
    client: Client
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    mixed: int = 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ui.benchmark",
        description="Start the page on a free port and let many people use it at once, each with a photo of another "
        "colour. The figures go to stdout.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--users", type=at_least(1), default=16, metavar="N", help="at once (%(default)s)")
    add("--seconds", type=at_least(1), default=60, metavar="S", help="how long (%(default)s)")
    add("--max-waiting", type=at_least(1), default=16, metavar="N", help="requests in the queue (%(default)s)")
    add("--weights", default=DEFAULT, help=f"file or name: {', '.join(REGISTRY)} (%(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU if there is one)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = build_parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="dcgan-benchmark-") as folder:
            return _benchmark(arguments, Path(folder))
    except ChildProcessError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark: stopped", file=sys.stderr)
        return 130


def _benchmark(arguments: argparse.Namespace, folder: Path) -> int:
    import numpy as np
    from gradio_client import Client

    from align.photo import write_photo
    from dcgan.report import markdown

    photos = _photos(arguments.users)
    hole = np.zeros(photos[0].shape[:2], dtype=bool)
    hole[110:150, 90:140] = True
    write_photo(folder / "hole.png", np.where(hole[..., None], np.uint8(255), np.zeros(3, dtype=np.uint8)))
    with _page(arguments) as (url, process):
        users = []
        for number, pixels in enumerate(photos):
            photo, results = folder / f"{number}" / "photo.png", folder / f"{number}" / "results"
            write_photo(photo, pixels)
            users.append(_User(photo, pixels, Client(url, verbose=False, download_files=results)))
            _complete(users[-1], folder / "hole.png", hole)
        for user in users:  # what is loaded and cached once is so by now
            user.seconds.clear()
        memory = [_memory_bytes(process.pid)]
        began = time.monotonic()
        threads = [
            threading.Thread(target=_work, args=(user, folder / "hole.png", hole, began + arguments.seconds))
            for user in users
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
        memory.append(_memory_bytes(process.pid))
        for user in users:
            user.client.close()
    seconds = [second for user in users for second in user.seconds]
    errors = [error for user in users for error in user.errors]
    mixed = sum(user.mixed for user in users)
    rows = [
        ("people at once", f"{len(users)}"),
        ("seconds", f"{took:.1f}"),
        ("answered", f"{len(seconds)}"),
        ("refused, the queue being full", f"{sum(user.refused for user in users)}"),
        ("errors", f"{len(errors)}"),
        ("photos of others", f"{mixed}"),
        ("answered a second", f"{len(seconds) / took:.2f}"),
        ("median seconds to an answer", f"{np.median(seconds):.2f}" if seconds else ""),
        ("95 % within seconds", f"{np.quantile(seconds, 0.95):.2f}" if seconds else ""),
        ("MiB at the beginning", f"{memory[0] / 2**20:.0f}"),
        ("MiB at the end", f"{memory[1] / 2**20:.0f}"),
    ]
    print(markdown([("measure", "value"), *rows]))
    for error in sorted(set(errors)):
        print(f"benchmark: {error}", file=sys.stderr)
    return 1 if errors or mixed or not seconds else 0


def _photos(count: int) -> Sequence[NDArray[np.uint8]]:
    """The astronaut, who is in the public domain, in that many colours: uint8 (256, 256, 3) each."""
    from colorsys import hsv_to_rgb

    import numpy as np
    from skimage.data import astronaut

    face = astronaut()[0:256, 100:356]
    return [(face * hsv_to_rgb(number / count, 0.4, 1)).astype(np.uint8) for number in range(count)]


@contextmanager
def _page(arguments: argparse.Namespace) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The page as a process of its own, so that its memory is not that of its visitors."""
    import httpx

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--weights", arguments.weights, "--device", arguments.device, "--max-waiting", arguments.max_waiting]
    command = [sys.executable, "-m", "ui", "--port", port, "--quiet", *words]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([str(word) for word in command]) as process:
        try:
            ends = time.monotonic() + _START_S
            while True:
                try:
                    httpx.get(f"{url}/healthz").raise_for_status()
                    break
                except httpx.HTTPError:
                    if process.poll() is not None or time.monotonic() > ends:
                        raise ChildProcessError(f"the page did not start; its exit code is {process.poll()}") from None
                    time.sleep(0.2)
            yield url, process
        finally:
            process.send_signal(signal.SIGTERM)


def _work(user: _User, mask: Path, hole: NDArray[np.bool_], ends: float) -> None:
    while time.monotonic() < ends:
        _complete(user, mask, hole)


def _complete(user: _User, mask: Path, hole: NDArray[np.bool_]) -> None:
    """Send the photo, and see whether it comes back."""
    import numpy as np
    from gradio_client import handle_file

    from align.photo import read_photo

    began = time.monotonic()
    try:
        [path] = user.client.predict(
            handle_file(user.photo), "", handle_file(mask), weight=None, as_png=True, api_name="/complete"
        )
    except Exception as error:  # of every kind; each is counted
        if "queue is full" in str(error).lower():
            user.refused += 1
            time.sleep(_PAUSE_S)
        else:
            user.errors.append(f"{type(error).__name__}: {error}")
        return
    user.seconds.append(time.monotonic() - began)
    user.mixed += not np.array_equal(read_photo(Path(path)).pixels[~hole], user.pixels[~hole])


def _memory_bytes(pid: int) -> int:
    """What a process holds in memory; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
