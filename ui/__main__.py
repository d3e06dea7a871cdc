"""python -m ui: serve the page."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import Parser, add_common, add_settings, run_main, run_program, settings_from
from completion.config import LoadOptions
from ui.config import LOOPBACK, Limits, ServeOptions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

_PREFIX = "dcgan-completion-page-"
_EXAMPLE = """examples:
  %(prog)s
  %(prog)s --trusted-proxy 127.0.0.1 --allow-host example.org --max-pixels 4000000

exit codes: 0 stopped by Ctrl+C, 1 failed, 2 wrong usage or unusable weights, 143 stopped by SIGTERM"""


def build_parser(program: str = "python -m ui") -> Parser:
    """Build the argument parser."""
    parser = Parser(
        program,
        description="Serve a web page to paint over the missing part of a face and have it filled in.",
        epilog=_EXAMPLE,
    )
    for settings in (ServeOptions, Limits, LoadOptions):
        add_settings(parser, settings)
    add_common(parser)
    return parser


def main(argv: list[str] | None = None, program: str = "python -m ui") -> int:
    """Run the command and return its exit code, see --help."""
    arguments = build_parser(program).parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run_main("ui", lambda: _serve_from_a_folder(arguments))


def _serve_from_a_folder(arguments: argparse.Namespace) -> int:
    with own_folder() as folder:
        return _serve(arguments, folder)


@contextmanager
def own_folder() -> Iterator[str]:
    """A locked folder for uploads and results; those that killed pages have left are removed."""
    from align.errors import PhotoError
    from align.files import lock_folder

    user = getattr(os, "getuid", int)()  # on Windows, all files are of user 0
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, PhotoError):  # of another user, or in use
            if left.lstat().st_uid == user and not left.is_symlink() and (left / ".lock").is_file():
                with lock_folder(left, wait_s=0):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, lock_folder(Path(folder)):
        yield folder


def _serve(arguments: argparse.Namespace, folder: str) -> int:
    # Gradio reads these when it is imported.
    os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    from completion import FaceCompleter
    from ui.access import Access
    from ui.app import launch
    from ui.reader import Reader
    from ui.server import Visits, sweep
    from ui.service import Service
    from ui.turns import Turns

    options, limits = settings_from(arguments, ServeOptions), settings_from(arguments, Limits)
    loading = settings_from(arguments, LoadOptions)
    access = Access((options.host, *options.allow_host), options.trusted_proxy)
    completer = FaceCompleter.load(loading.weights, loading.device)
    service = Service(completer, limits, Reader(completer, limits))
    stop, received = threading.Event(), []

    def stopping(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopping)
    turns, visits = Turns(limits.waiting), Visits(access, 4 * limits.file_bytes)
    local = options.host in LOOPBACK
    opens = local and not options.no_open
    app = launch(service, turns, visits, options.host, options.port, options.auth, options.root_path, opens)
    if not arguments.quiet:
        print(f"The page is at {app.get_blocks().local_url} (press Ctrl+C to stop)", file=sys.stderr)
        if not local and options.auth is None:
            print(
                "Anyone on the network can use it. Consider --auth, and HTTPS through a reverse proxy.", file=sys.stderr
            )
    while not stop.wait(timeout=300):
        sweep(Path(folder), seconds=3300)
    if not visits.drain(limits.seconds + 10):
        print("ui: stopped before all requests were answered", file=sys.stderr)
    app.get_blocks().close(verbose=False)
    for left in multiprocessing.active_children():  # whose work nobody waits for
        left.kill()
    return 0 if received[0] == signal.SIGINT else 143


if __name__ == "__main__":
    run_program(main)
