"""Load test: latency under concurrent visitors, and that nobody receives another's photo."""

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

from align.cli import Parser, add_common, add_settings, run_main, run_program, settings_from
from completion.config import LoadOptions
from ui.config import LoadTestOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from gradio_client import Client
    from numpy.typing import NDArray

_START_S = 300  # importing torch takes long on a busy machine
_PAUSE_S = 0.5  # between a refusal and the next try
_EXAMPLE = """example:
  %(prog)s --users 16 --seconds 60

exit codes: 0 done, 1 a visitor got an error, another's photo or no answer at all, 2 wrong usage,
130 stopped by Ctrl+C"""


@dataclass
class Visitor:
    """A visitor who has the same photo completed again and again.

    Attributes:
        photo: the file.
        pixels: uint8 (H, W, 3), the same photo.
        client: connection to the page.
        seconds: latency of each answer.
        refused: requests refused because the queue was full.
        errors: messages of requests that failed.
        mixed: answers whose pixels outside the hole are not those of the photo.
    """

    photo: Path
    pixels: NDArray[np.uint8]
    client: Client
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    mixed: int = 0

    def complete(self, mask: Path, hole: NDArray[np.bool_]) -> None:
        """Complete the photo once and record the outcome.

        Args:
            mask: mask file of the hole.
            hole: bool (H, W), the same hole.
        """
        import numpy as np
        from gradio_client import handle_file

        from align.photo import read_photo

        began = time.monotonic()
        try:
            [path] = self.client.predict(handle_file(self.photo), mask_file=handle_file(mask), api_name="/complete")
        except Exception as error:  # every kind counts
            if "queue is full" in str(error).lower():
                self.refused += 1
                time.sleep(_PAUSE_S)
            else:
                self.errors.append(f"{type(error).__name__}: {error}")
            return
        self.seconds.append(time.monotonic() - began)
        self.mixed += not np.array_equal(read_photo(Path(path)).pixels[~hole], self.pixels[~hole])


def build_parser(program: str = "python -m ui.benchmark") -> Parser:
    """Build the argument parser."""
    parser = Parser(
        program,
        description="Start the page on a free port and let several visitors use it at once, each with a photo of "
        "another tint. Prints a table of the results.",
        epilog=_EXAMPLE,
    )
    for settings in (LoadTestOptions, LoadOptions):
        add_settings(parser, settings)
    add_common(parser, quiet="")
    return parser


def main(argv: list[str] | None = None, program: str = "python -m ui.benchmark") -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = build_parser(program).parse_args(argv)
    return run_main("benchmark", lambda: _benchmark(arguments))


def _benchmark(arguments: argparse.Namespace) -> int:
    from dcgan.report import markdown

    options, loading = settings_from(arguments, LoadTestOptions), settings_from(arguments, LoadOptions)
    with (
        tempfile.TemporaryDirectory(prefix="dcgan-benchmark-") as folder,
        served_page(loading.weights, loading.device, options.max_waiting) as (url, process),
    ):
        visitors, seconds, memory = _visit(url, process.pid, Path(folder), options.users, options.seconds)
    print(markdown([("measure", "value"), *_rows(visitors, seconds, memory)]))
    errors = sorted({error for visitor in visitors for error in visitor.errors})
    for error in errors:
        print(f"benchmark: {error}", file=sys.stderr)
    answered = any(visitor.seconds for visitor in visitors)
    return 1 if errors or any(visitor.mixed for visitor in visitors) or not answered else 0


def _visit(
    url: str, pid: int, folder: Path, users: int, seconds: float
) -> tuple[list[Visitor], float, tuple[int, int]]:
    """Let visitors use the page; also the duration in seconds, and the page's memory in bytes before and after."""
    import numpy as np
    from gradio_client import Client

    from align.photo import write_photo

    photos = tinted_photos(users)
    hole = np.zeros(photos[0].shape[:2], dtype=bool)
    hole[110:150, 90:140] = True
    mask = folder / "hole.png"
    write_photo(mask, np.where(hole[..., None], np.uint8(255), np.zeros(3, dtype=np.uint8)))
    visitors = []
    for number, pixels in enumerate(photos):
        photo, results = folder / f"{number}" / "photo.png", folder / f"{number}" / "results"
        write_photo(photo, pixels)
        visitor = Visitor(photo, pixels, Client(url, verbose=False, download_files=results))
        visitor.complete(mask, hole)  # fills the caches of the page
        visitor.seconds.clear()
        visitors.append(visitor)
    memory = _memory_bytes(pid)
    began = time.monotonic()

    def work(visitor: Visitor) -> None:
        while time.monotonic() < began + seconds:
            visitor.complete(mask, hole)

    threads = [threading.Thread(target=work, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    for visitor in visitors:
        visitor.client.close()
    return visitors, took, (memory, _memory_bytes(pid))


def _rows(visitors: Sequence[Visitor], took: float, memory: tuple[int, int]) -> list[tuple[str, str]]:
    import numpy as np

    seconds = [second for visitor in visitors for second in visitor.seconds]
    return [
        ("concurrent visitors", f"{len(visitors)}"),
        ("duration (s)", f"{took:.1f}"),
        ("answers", f"{len(seconds)}"),
        ("refused because the queue was full", f"{sum(visitor.refused for visitor in visitors)}"),
        ("errors", f"{sum(len(visitor.errors) for visitor in visitors)}"),
        ("answers with another visitor's photo", f"{sum(visitor.mixed for visitor in visitors)}"),
        ("answers per second", f"{len(seconds) / took:.2f}"),
        ("median latency (s)", f"{np.median(seconds):.2f}" if seconds else ""),
        ("95th percentile of the latency (s)", f"{np.quantile(seconds, 0.95):.2f}" if seconds else ""),
        ("memory before (MiB)", f"{memory[0] / 2**20:.0f}"),
        ("memory after (MiB)", f"{memory[1] / 2**20:.0f}"),
    ]


def tinted_photos(count: int) -> list[NDArray[np.uint8]]:
    """The public-domain astronaut photo in `count` tints: uint8 (256, 256, 3) each."""
    from colorsys import hsv_to_rgb

    import numpy as np
    from skimage.data import astronaut

    face = astronaut()[0:256, 100:356]
    return [(face * hsv_to_rgb(number / count, 0.4, 1)).astype(np.uint8) for number in range(count)]


@contextmanager
def served_page(weights: str, device: str, waiting: int = 16) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the page from its own process, so that its memory can be measured apart from the visitors'.

    Args:
        weights: a name or a file.
        device: where the networks run.
        waiting: most requests that wait.
    Yields:
        the address and the process.
    """
    import httpx

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--weights", weights, "--device", device, "--max-waiting", waiting]
    command = [sys.executable, "-m", "ui", "--port", port, "--quiet", "--no-open", *words]
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


def _memory_bytes(pid: int) -> int:
    """Resident memory of a process; 0 on systems without /proc."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    run_program(main)
