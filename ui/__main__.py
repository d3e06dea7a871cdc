"""python -m ui: serve the page."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import Parser, add_flags, at_least, parse, run_main, run_program

if TYPE_CHECKING:
    from types import FrameType

_EXAMPLE = """examples:
  %(prog)s
  %(prog)s --host 0.0.0.0 --port 8080 --auth anna:secret --max-pixels 4000000

exit codes: 0 stopped by Ctrl+C, 1 failed, 2 wrong usage or unusable weights, 143 stopped by SIGTERM"""


def build_parser(program: str = "python -m ui") -> Parser:
    """Build the argument parser."""
    parser = Parser(
        program,
        description="Serve a web page to paint over the missing part of a face and have it filled in.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 opens the page to the network (default: %(default)s)",
    )
    add("--port", type=at_least(0, 65_535), default=7860, help="port to listen on (default: %(default)s)")
    add_flags(parser, "--weights=auto", "--device")
    add("--auth", type=_user, metavar="USER:PASS", help="require a login; --config FILE hides it from process lists")
    for flag, least, default, metavar, words in (
        ("--max-pixels", 4096, 16_000_000, "N", "most pixels of a photo"),
        ("--max-seconds", 1, 60, "S", "longest work on a photo, in seconds; then the best result so far is used"),
        ("--max-photos", 1, 50, "N", "most photos in a batch"),
        ("--max-waiting", 1, 16, "N", "most requests that wait"),
    ):
        add(flag, type=at_least(least), default=default, metavar=metavar, help=f"{words} (default: %(default)s)")
    for flag, metavar, words in (
        ("--allow-host", "NAME", "names under which visitors reach the page, besides localhost and IP addresses"),
        ("--trusted-proxy", "ADDRESS", "addresses or networks of reverse proxies whose forwarded headers are believed"),
    ):
        add(flag, type=_several, default=(), metavar=f"{metavar},...", help=words)
    add("--root-path", default="", metavar="PATH", help="path under which a reverse proxy serves the page, as /faces")
    add("--no-open", action="store_true", help="do not open the page in the browser")
    add_flags(parser, "--config", "--quiet", "--version")
    return parser


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and password):
        raise argparse.ArgumentTypeError("expected USER:PASS with a user name and a password")
    return name, password


def _several(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def main(argv: list[str] | None = None, program: str = "python -m ui") -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = parse(build_parser(program), argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return run_main("ui", lambda: _serve_from_a_folder(arguments))


def _serve_from_a_folder(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="dcgan-completion-") as folder:
        return _serve(arguments, folder)


def _serve(arguments: argparse.Namespace, folder: str) -> int:
    # Gradio reads these when it is imported.
    os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    from completion import FaceCompleter
    from ui.access import LOOPBACK, Access
    from ui.app import build_app, launch
    from ui.server import drain, sweep
    from ui.service import Limits, Service
    from ui.turns import Turns

    limits = Limits(arguments.max_pixels, arguments.max_seconds, arguments.max_photos, arguments.max_waiting)
    access = Access((arguments.host, *arguments.allow_host), arguments.trusted_proxy)
    service = Service(FaceCompleter.load(arguments.weights, arguments.device), limits)
    stop, received = threading.Event(), []

    def stopping(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopping)
    turns = Turns(limits.waiting)
    app = build_app(service, turns)
    local = arguments.host in LOOPBACK
    opens = local and not arguments.no_open
    state = launch(app, arguments.host, arguments.port, arguments.auth, arguments.root_path, opens, access)
    if not arguments.quiet:
        print(f"The page is at {app.get_blocks().local_url} (press Ctrl+C to stop)", file=sys.stderr)
        if not local and arguments.auth is None:
            print(
                "Anyone on the network can use it. Consider --auth, and HTTPS through a reverse proxy.", file=sys.stderr
            )
    while not stop.wait(timeout=300):
        sweep(Path(folder), seconds=3300)
    if not drain(state, limits.seconds + 10):
        print("ui: stopped before all requests were answered", file=sys.stderr)
    app.get_blocks().close(verbose=False)
    return 0 if received[0] == signal.SIGINT else 143


if __name__ == "__main__":
    run_program(main)
