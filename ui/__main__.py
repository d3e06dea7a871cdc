"""python -m ui: the page, in the browser."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import add_flags, at_least, parse, run_main

if TYPE_CHECKING:
    from types import FrameType

_EXAMPLE = """examples:
  python -m ui
  python -m ui --host 0.0.0.0 --port 8080 --auth anna:secret --max-pixels 4000000

exit codes: 0 stopped by Ctrl+C, 1 failed, 2 wrong usage or unusable weights, 143 stopped by SIGTERM"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ui",
        description="Serve a page on which one paints over what a photo lacks of a face, and sees it filled.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for the whole network (%(default)s)")
    add("--port", type=int, default=7860, help="port to listen on (%(default)s)")
    add_flags(parser, "--weights", "--device")
    add("--auth", type=_user, metavar="USER:PASS", help="ask for name and password (unseen in a --config FILE)")
    add("--max-pixels", type=at_least(4096), default=16_000_000, metavar="N", help="of a photo (%(default)s)")
    add(
        "--max-seconds",
        type=at_least(1),
        default=60,
        metavar="S",
        help="of a search, then the best yet (%(default)s)",
    )
    add("--max-photos", type=at_least(1), default=50, metavar="N", help="in a batch (%(default)s)")
    add("--max-waiting", type=at_least(1), default=16, metavar="N", help="requests in the queue (%(default)s)")
    add("--root-path", default="", metavar="PATH", help="where a reverse proxy shows the page, such as /faces")
    add("--open", action="store_true", help="open the page in the browser")
    add_flags(parser, "--config")
    add("-q", "--quiet", action="store_true", help="say nothing but errors")
    add_flags(parser, "--version")
    return parser


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and password):
        raise argparse.ArgumentTypeError("expected USER:PASS, neither of them empty")
    return name, password


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = parse(build_parser(), argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run_main("ui", lambda: _serve_from_a_folder(arguments))


def _serve_from_a_folder(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="dcgan-completion-") as folder:
        return _serve(arguments, folder)


def _serve(arguments: argparse.Namespace, folder: str) -> int:
    # Before Gradio is imported, which reads them once.
    os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    from dcgan.checkpoint import load
    from ui.app import build_app, launch
    from ui.server import drained, sweep
    from ui.service import Limits, Service

    limits = Limits(arguments.max_pixels, arguments.max_seconds, arguments.max_photos, arguments.max_waiting)
    service = Service(load(arguments.weights, arguments.device), limits)
    stop, received = threading.Event(), []

    def stopping(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopping)
    app = build_app(service)
    state = launch(app, limits, arguments.host, arguments.port, arguments.auth, arguments.root_path, arguments.open)
    if not arguments.quiet:
        print(f"The page is at {app.local_url} ; Ctrl+C ends it.", file=sys.stderr)
        if arguments.host not in ("127.0.0.1", "::1", "localhost") and arguments.auth is None:
            print("Anybody who reaches this machine can use it: think of --auth and of HTTPS.", file=sys.stderr)
    while not stop.wait(timeout=300):
        sweep(Path(folder), seconds=3300)
    if not drained(state, limits.seconds + 10):
        print("ui: some work was not finished", file=sys.stderr)
    app.close(verbose=False)
    return 0 if received[0] == signal.SIGINT else 143


if __name__ == "__main__":
    sys.exit(main())
