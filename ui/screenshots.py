"""Screenshots of every tab of the page, light and dark, on a desktop and on a phone."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from align.cli import add_flags, run_main
from ui.benchmark import served_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCHEMES = ("light", "dark")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
TABS = ("complete", "explore", "batch")
_WAIT_MS = 300_000  # on a busy machine
_EXAMPLE = """example:
  python -m ui.screenshots screenshots/

Writes TAB-SCHEME-SIZE.jpg, such as complete-light-desktop.jpg. Needs Chromium and playwright (the extra dev).

exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl+C"""


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="python -m ui.screenshots",
        description="Start the page on a free port, use every tab with a public-domain photo, and take screenshots.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, metavar="FOLDER", help="folder for the screenshots")
    add_flags(parser, "--weights=auto", "--device")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code, see --help.
    """
    arguments = build_parser().parse_args(argv)
    return run_main("screenshots", lambda: _take_all(arguments))


def _take_all(arguments: argparse.Namespace) -> int:
    from playwright.sync_api import sync_playwright

    arguments.output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        served_page(arguments.weights, arguments.device) as (url, _),
        sync_playwright() as playwright,
    ):
        photo = _photo(Path(folder))
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        for scheme in SCHEMES:
            for name, (width, height) in SIZES.items():
                page = browser.new_page(viewport={"width": width, "height": height})
                page.set_default_timeout(_WAIT_MS)
                page.goto(f"{url}?__theme={scheme}", wait_until="domcontentloaded")
                for tab, use in zip(TABS, (_complete, _explore, _batch), strict=True):
                    page.get_by_role("tab", name=tab.title()).click()
                    use(page, photo)
                    page.wait_for_timeout(1000)  # for the pictures
                    path = arguments.output / f"{tab}-{scheme}-{name}.jpg"
                    path.write_bytes(page.screenshot(type="jpeg", quality=80))
                    print(path, file=sys.stderr)
                page.close()
        browser.close()
    return 0


def _photo(folder: Path) -> Path:
    """The astronaut's portrait, in the public domain."""
    from skimage.data import astronaut

    from align.photo import write_photo

    path = folder / "astronaut.jpg"
    write_photo(path, astronaut()[:400, 24:424])
    return path


def _complete(page: Page, photo: Path) -> None:
    page.locator("#photo input[type=file]").first.set_input_files(photo)
    _until(page, "#status", "found")
    _paint(page, [(0.45, 0.3), (0.54, 0.32)])
    page.locator("#complete").click()
    _until(page, "#status", "Done")


def _paint(page: Page, points: list[tuple[float, float]]) -> None:
    """Paint a stroke through points, (x, y) as shares of the photo."""
    box = page.locator("#editor canvas").bounding_box()
    assert box is not None
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def _explore(page: Page, photo: Path) -> None:
    page.locator("#sample").click()
    page.locator("#sheet img").nth(15).wait_for()
    page.locator("#walk").click()
    page.locator("#steps img").wait_for()


def _batch(page: Page, photo: Path) -> None:
    page.locator("#photos input[type=file]").set_input_files([photo])
    page.locator("#photos tr.file, #photos .file").first.wait_for()
    page.locator("#run").click()
    _until(page, "#batch_status", "Done")


def _until(page: Page, where: str, words: str) -> None:
    page.wait_for_function(
        "([where, words]) => document.querySelector(where)?.innerText.includes(words)", arg=[where, words]
    )


if __name__ == "__main__":
    sys.exit(main())
