"""Load test: latency under concurrent visitors, and that nobody receives another's photo."""

from __future__ import annotations

import argparse
import math
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
from statistics import fmean
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
_MOST_MEMORY = 1.5 * 2**30
_EXAMPLE = """examples:
  %(prog)s --users 16 --seconds 60
  %(prog)s --hostile

exit codes: 0 done, 1 a visitor got an error, another's photo or no answer at all, or attackers slowed too many down,
took too much memory or left files, 2 wrong usage, 130 stopped by Ctrl+C"""


@dataclass
class Visitor:
    """A visitor who has the same hole in the same photo filled again and again.

    Attributes:
        photo: the file.
        pixels: uint8 (H, W, 3), the same photo.
        client: connection to the page.
        mask: mask file of the hole.
        hole: bool (H, W), the same hole.
        seconds: when each answer began, and its latency.
        refused: requests refused because the queue was full.
        errors: messages of requests that failed.
        mixed: answers whose pixels outside the hole are not those of the photo.
    """

    photo: Path
    pixels: NDArray[np.uint8]
    client: Client
    mask: Path
    hole: NDArray[np.bool_]
    seconds: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    mixed: int = 0

    def work(self, ends: float) -> None:
        """Complete the photo until a time of time.monotonic."""
        while time.monotonic() < ends:
            self.complete()

    def complete(self) -> None:
        """Complete the photo once and record the outcome."""
        import numpy as np
        from gradio_client import handle_file

        from align.photo import read_photo

        began = time.monotonic()
        try:
            [path] = self.client.predict(
                handle_file(self.photo), mask_file=handle_file(self.mask), api_name="/complete"
            )
        except Exception as error:  # every kind counts
            if "queue is full" in str(error).lower():
                self.refused += 1
                time.sleep(_PAUSE_S)
            else:
                self.errors.append(f"{type(error).__name__}: {error}")
            return
        self.seconds.append((began, time.monotonic() - began))
        self.mixed += not np.array_equal(read_photo(Path(path)).pixels[~self.hole], self.pixels[~self.hole])


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
    """Run the command and return its exit code, see --help."""
    arguments = build_parser(program).parse_args(argv)
    return run_main("benchmark", lambda: _benchmark(arguments))


def _benchmark(arguments: argparse.Namespace) -> int:
    import numpy as np

    from dcgan.report import markdown

    options, loading = settings_from(arguments, LoadTestOptions), settings_from(arguments, LoadOptions)
    seconds = options.seconds or (600 if options.hostile else 60)
    with tempfile.TemporaryDirectory(prefix="dcgan-benchmark-") as name:
        folder, temporary = Path(name), Path(name, "page")
        temporary.mkdir()
        with served_page(loading.weights, loading.device, options.max_waiting, temporary) as (url, process):
            visitors = _visitors(url, folder, options.users)
            before = memory = _memory_bytes(process.pid)
            began = time.monotonic()
            threads = [threading.Thread(target=visitor.work, args=(began + seconds,)) for visitor in visitors]
            for thread in threads:
                thread.start()
            attacks = began + seconds / 3 if options.hostile else math.inf
            attackers: list[subprocess.Popen[bytes]] = []
            while any(thread.is_alive() for thread in threads):
                if time.monotonic() > attacks and not attackers:
                    command = [sys.executable, "-m", "ui.attackers", url]
                    attackers = [subprocess.Popen([*command, name]) for name in ("flood", "hang", "bombs")]
                memory = max(memory, _memory_bytes(process.pid))
                time.sleep(0.2)
            took = time.monotonic() - began
            for attacker in attackers:
                attacker.kill()
                attacker.wait()
            for visitor in visitors:
                visitor.client.close()
        left = [path for path in temporary.rglob("*") if path.is_file()]
    calm, attacked = (
        [latency for each in visitors for start, latency in each.seconds if (start > attacks) == late]
        for late in (False, True)
    )
    rows = _rows(visitors, took, calm, (before, memory))
    wrong = not calm or any(visitor.errors or visitor.mixed for visitor in visitors)
    if options.hostile:
        limit = 2 * float(np.quantile(calm, 0.95)) if calm else 0.0
        share = fmean(latency <= limit for latency in attacked) if attacked else 0.0
        rows += [
            ("answers under attack", f"{len(attacked)}"),
            ("median latency under attack (s)", f"{np.median(attacked):.2f}" if attacked else ""),
            (f"answers under attack within twice the 95th percentile, {limit:.2f} s", f"{share:.1%}"),
            ("files left", f"{len(left)}"),
        ]
        wrong |= share < 0.95 or memory > _MOST_MEMORY or bool(left)
    print(markdown([("measure", "value"), *rows]))
    for error in sorted({error for visitor in visitors for error in visitor.errors}):
        print(f"benchmark: {error}", file=sys.stderr)
    return int(wrong)


def _visitors(url: str, folder: Path, users: int) -> list[Visitor]:
    """Visitors with an address and a photo of their own, each of whom has asked once, so that all caches are filled."""
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
        headers = {"x-forwarded-for": f"10.0.{number // 256}.{number % 256}"}
        client = Client(url, verbose=False, download_files=results, headers=headers)
        visitor = Visitor(photo, pixels, client, mask, hole)
        visitor.complete()
        visitor.seconds.clear()
        visitors.append(visitor)
    return visitors


def _rows(
    visitors: Sequence[Visitor], took: float, seconds: Sequence[float], memory: tuple[int, int]
) -> list[tuple[str, str]]:
    import numpy as np

    answers = sum(len(visitor.seconds) for visitor in visitors)
    return [
        ("concurrent visitors", f"{len(visitors)}"),
        ("duration (s)", f"{took:.1f}"),
        ("answers", f"{answers}"),
        ("refused because the queue was full", f"{sum(visitor.refused for visitor in visitors)}"),
        ("errors", f"{sum(len(visitor.errors) for visitor in visitors)}"),
        ("answers with another visitor's photo", f"{sum(visitor.mixed for visitor in visitors)}"),
        ("answers per second", f"{answers / took:.2f}"),
        ("median latency (s)", f"{np.median(seconds):.2f}" if seconds else ""),
        ("95th percentile of the latency (s)", f"{np.quantile(seconds, 0.95):.2f}" if seconds else ""),
        ("memory before (MiB)", f"{memory[0] / 2**20:.0f}"),
        ("most memory (MiB)", f"{memory[1] / 2**20:.0f}"),
    ]


def tinted_photos(count: int) -> list[NDArray[np.uint8]]:
    """The public-domain astronaut photo in `count` tints: uint8 (256, 256, 3) each."""
    from colorsys import hsv_to_rgb

    import numpy as np
    from skimage.data import astronaut

    face = astronaut()[0:256, 100:356]
    return [(face * hsv_to_rgb(number / count, 0.4, 1)).astype(np.uint8) for number in range(count)]


@contextmanager
def served_page(
    weights: str, device: str, waiting: int = 16, temporary: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the page from its own process, so that its memory can be measured apart from the visitors'.

    Args:
        weights: a name or a file.
        device: where the networks run.
        waiting: most requests that wait.
        temporary: folder for its temporary files.
    Yields:
        the address and the process.
    """
    import httpx

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--weights", weights, "--device", device, "--max-waiting", waiting, "--trusted-proxy", "127.0.0.1"]
    command = [sys.executable, "-m", "ui", "--port", port, "--quiet", "--no-open", *words]
    environment = os.environ | ({"TMPDIR": str(temporary)} if temporary else {})
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([str(word) for word in command], env=environment) as process:
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
    """Resident memory of a process and of those that it started; 0 on systems without /proc."""
    try:
        pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in pids]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    run_program(main)
