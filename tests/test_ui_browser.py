"""The page in a real browser."""

import io
import os
import shutil
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import differences, pixels, save
from PIL import Image

from completion.__main__ import main
from dcgan.checkpoint import Weights
from ui.service import HOLE_COLOUR, Limits, Service

DEBIANS = "/usr/bin/chromium"
WAIT_MS = 120_000  # on a busy machine, where the canvas is drawn without a GPU
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def skip(reason: str) -> None:
    """Skip, or fail if the environment says that there must be a browser."""
    if os.environ.get("DCGAN_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


asked = defaultdict[str, list[NDArray[np.bool_]]](list)  # per photo, the holes to fill; the page refuses empty ones


class WatchedService(Service):
    """A service that tells the tests which hole the editor had when Complete was pressed."""

    def hole(self, photo: Any, **source: Any) -> NDArray[np.bool_]:
        hole = super().hole(photo, **source)
        if not hole.any():
            asked[photo.name].append(hole)
        return hole

    def complete(self, photo: Any, mask: Any, *arguments: Any) -> Iterator[Any]:
        asked[photo.name].append(mask)
        yield from super().complete(photo, mask, *arguments)


@pytest.fixture(scope="module")
def served(serve: Callable[..., AbstractContextManager[Any]], encoder_weights: Weights) -> Iterator[Any]:
    with serve(WatchedService(encoder_weights, Limits(max_pixels=1_000_000))) as page:
        yield page


@pytest.fixture(scope="module")
def browser(served: Any) -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip('playwright is missing: pip install -e ".[dev]"')
    executable = DEBIANS if Path(DEBIANS).exists() else shutil.which("chromium")
    if executable is None:
        skip("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, served: Any) -> Iterator[Callable[[], Any]]:
    """Opens the page as a new visitor; at the end, no request may have left the server or broken the CSP."""
    contexts, outside, complaints = [], [], []

    def opened() -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        own = (served.url, "blob:", "data:")
        page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(own) else None)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(served.url, wait_until="domcontentloaded")
        page.wait_for_selector("#photo input[type=file]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not outside
    assert not [words for words in complaints if "Content Security Policy" in words or "Refused to" in words]


@pytest.fixture
def face(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return astronaut[0:256, 100:356]


def until(page: Any, words: str, where: str = "#status") -> None:
    page.wait_for_function(
        "([where, words]) => document.querySelector(where)?.innerText.includes(words)", arg=[where, words]
    )


def eventually(page: Any, met: Callable[[], Any], what: str) -> Any:
    """Try again until something is true, however slow the machine is; its value."""
    ends = time.monotonic() + WAIT_MS / 1000
    while time.monotonic() < ends:
        if found := met():
            return found
        page.wait_for_timeout(300)
    raise AssertionError(f"never: {what}")


def canvas(page: Any) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(page.locator("#editor canvas").first.screenshot())).convert("RGB"))


def load(page: Any, photo: Path) -> None:
    page.locator("#photo input[type=file]").first.set_input_files(photo)
    until(page, "found")
    page.wait_for_selector("#editor canvas")
    eventually(page, lambda: canvas(page).std() > 20, "the photo is drawn in the editor")


def paint(page: Any, dx: float = 0, dy: float = -40) -> None:
    """Paint a stroke over the face, some pixels beside the middle of the canvas."""

    def stroke() -> bool:
        page.locator("#editor").get_by_label("Brush", exact=True).click()
        box = page.locator("#editor canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2 + dx, box["y"] + box["height"] / 2 + dy
        page.mouse.move(x - 20, y)
        page.mouse.down()
        page.mouse.move(x + 20, y + 20, steps=8)
        page.mouse.up()
        return (np.abs(canvas(page).astype(int) - HOLE_COLOUR).max(axis=2) < 30).sum() > 100

    eventually(page, stroke, "a stroke is drawn in the editor")


def offered_hole(page: Any) -> NDArray[np.bool_] | None:
    """The hole that the page offers for download."""
    link = page.locator("#files a[href$='-hole.png']")
    if not link.count():
        return None
    body = page.request.get(link.first.evaluate("link => link.href")).body()
    return np.asarray(Image.open(io.BytesIO(body)).convert("L")) > 127


def press_complete(page: Any, photo: str) -> Callable[[], NDArray[np.bool_]]:
    """Press Complete; returns a function that waits for the answer and returns the hole, empty if it was refused."""
    before = len(asked[photo])
    page.locator("#complete").click()

    def answer() -> NDArray[np.bool_]:
        eventually(page, lambda: len(asked[photo]) > before, "the page asks for a hole")
        hole = asked[photo][before]
        if hole.any():
            eventually(page, lambda: np.array_equal(offered_hole(page), hole), "the hole is filled")
        return hole

    return answer


def complete(page: Any, wanted: Callable[[NDArray[np.bool_]], Any] = np.any, photo: str = "a") -> NDArray[np.bool_]:
    """Press Complete, again if needed, until the page has filled the wanted hole: bool (H, W).

    The editor takes over a stroke or a hole some time after it was asked to. The last request has been answered
    before the next is made, so none can still be running at the end.
    """
    eventually(page, lambda: wanted(press_complete(page, photo)()), "the wanted hole is filled")
    until(page, "Done")
    return asked[photo][-1]


def downloaded(page: Any, folder: Path, link: Any = None) -> Path:
    with page.expect_download() as waiting:
        (link or page.locator("#download")).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def files(page: Any, folder: Path) -> dict[str, Path]:
    """All files of the list, by their names."""
    folder.mkdir(exist_ok=True)
    links = page.locator("#files a[download]")
    links.first.wait_for()
    found = [downloaded(page, folder, links.nth(number)) for number in range(links.count())]
    return {path.name: path for path in found}


def settings(page: Any, **values: str) -> None:
    page.locator("#settings button").first.click()
    for name, value in values.items():
        field = page.locator(f"#{name} input[type=number]").first
        field.fill(value)
        field.press("Tab")


def test_a_painted_hole_is_filled_and_downloads_equal_the_command_lines_files(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path, encoder_weights_file: Path
) -> None:
    photo = save(tmp_path / "anna.png", face)
    page = visit()
    load(page, photo)
    settings(page, seed="3", candidates="2")
    paint(page)
    hole = complete(page, photo="anna")
    page.locator("#slider").wait_for()
    best = downloaded(page, tmp_path)
    found = files(page, tmp_path / "all")
    assert [page.locator(f"#{name} input[type=number]").first.input_value() for name in ("seed", "candidates")] == [
        "3",
        "2",
    ]
    names = {f"anna-{name}.png" for name in ("completed", "completed.2", "completed.candidates", "hole")}
    assert set(found) == names and 0 < hole.mean() < 0.3
    changed = (pixels(best) != face).any(axis=2)
    assert changed[hole].any() and not changed[~hole].any()
    words = ["--seed", "3", "--candidates", "2", "--weights", str(encoder_weights_file), "--device", "cpu"]
    expected = tmp_path / "expected.png"
    assert main([*words, "--mask", str(found["anna-hole.png"]), "--output", str(expected), str(photo)]) == 0
    assert not differences(best, found["anna-completed.png"]) and not differences(best, expected)
    second = found["anna-completed.2.png"]
    assert not differences(second, expected.with_suffix(".2.png")) and differences(second, best)

    page.locator("#gallery button:has(img)").nth(1).click()
    # The button offers the first until the page has heard of the choice.
    eventually(page, lambda: not differences(downloaded(page, tmp_path), second), "the chosen candidate is offered")


def test_the_line_between_before_and_after_can_be_dragged(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    paint(page)
    complete(page)
    handle = page.locator("#slider .icon-wrap")

    def dragged() -> bool:
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 100, y, steps=5)
        page.mouse.up()
        page.wait_for_timeout(500)
        return abs(handle.bounding_box()["x"] - (box["x"] - 100)) < 5

    eventually(page, dragged, "the line follows the mouse")


def test_an_uploaded_mask_is_the_hole_and_can_be_inverted(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    hole = np.zeros(face.shape[:2], dtype=bool)
    hole[96:144, 104:152] = True
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    with page.expect_file_chooser() as waiting:
        page.locator("#mask").click()
    waiting.value.set_files(save(tmp_path / "mask.png", np.where(hole, 255, 0).astype(np.uint8)))
    complete(page, partial(np.array_equal, hole))
    page.locator("#invert").click()
    complete(page, partial(np.array_equal, ~hole))


def test_a_hole_by_name_is_that_of_the_service(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path, encoder_weights: Weights
) -> None:
    photo = save(tmp_path / "a.png", face)
    page = visit()
    load(page, photo)
    page.locator("#named input").click()
    page.get_by_role("option", name="mouth").click()
    service = Service(encoder_weights, Limits())
    complete(page, partial(np.array_equal, service.hole(service.read(photo), named="mouth")))


def test_unusable_files_get_a_message_and_the_page_keeps_working(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("text")
    large = save(tmp_path / "large.png", np.zeros((1100, 1000, 3), dtype=np.uint8))
    page = visit()
    for wrong, words in ((text, "JPEG"), (large, "pixels")):
        page.locator("#photo input[type=file]").first.set_input_files(wrong)
        page.get_by_text(words).first.wait_for()
        assert "Traceback" not in page.content()
        if page.locator("#photo").get_by_label("Clear").count():
            page.locator("#photo").get_by_label("Clear").first.click()
    load(page, save(tmp_path / "a.png", face))
    paint(page)
    complete(page)


def test_without_a_hole_the_page_asks_for_one(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    page.locator("#complete").click()
    page.get_by_text("Nothing is painted over yet").first.wait_for()


def test_two_visitors_at_once_each_get_their_own_photo(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    people = []
    for name, photo in (("anna", face), ("bert", np.ascontiguousarray(face[:, ::-1, ::-1]))):
        page = visit()
        load(page, save(tmp_path / f"{name}.png", photo))
        paint(page, dy=-40 if name == "anna" else -10)
        people.append((page, name, photo))
    answers = [press_complete(page, name) for page, name, _ in people]
    for (page, name, photo), answer in zip(people, answers, strict=True):
        hole = answer()
        if not hole.any():
            hole = complete(page, photo=name)
        found = files(page, tmp_path / name)
        assert all(file.startswith(name) for file in found)
        completed = pixels(found[f"{name}-completed.png"])
        assert np.array_equal(completed[~hole], photo[~hole])


def test_an_example_face_can_be_loaded(visit: Callable[[], Any]) -> None:
    page = visit()
    page.locator("#example").click()
    until(page, "found")


def test_explore_shows_faces_and_walks_between_two(visit: Callable[[], Any]) -> None:
    page = visit()
    page.get_by_role("tab", name="Explore").click()
    page.locator("#sample").click()
    page.locator("#sheet img").nth(15).wait_for()
    assert page.locator("#sheet img").count() == 16
    page.locator("#walk").click()
    for name in ("film", "steps"):
        page.locator(f"#{name} img").first.wait_for()


def test_a_batch_downloads_as_one_zip_file(visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path) -> None:
    photos = [save(tmp_path / "a.png", face), save(tmp_path / "b.png", np.ascontiguousarray(face[:, ::-1]))]
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#photos input[type=file]").set_input_files(photos)
    page.wait_for_function("document.querySelectorAll('#photos tr.file, #photos .file').length >= 2")
    page.locator("#run").click()
    until(page, "Done", "#batch_status")
    archive = downloaded(page, tmp_path, page.locator("#archive a[download]").first)
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == ["a.png", "b.png", "report.json"]
