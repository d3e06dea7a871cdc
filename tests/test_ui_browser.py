"""The page in a real browser."""

import base64
import io
import os
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from completion.solve import State
from numpy.typing import NDArray
from pictures import differences, pixels, save
from PIL import Image

from completion import solve as solve_module
from completion.__main__ import main
from dcgan.weights import Weights
from ui.service import Limits, Service

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


@pytest.fixture(scope="module")
def served(serve: Callable[..., AbstractContextManager[Any]], encoder_weights: Weights) -> Iterator[Any]:
    with serve(Service(encoder_weights, Limits(max_pixels=1_000_000))) as page:
        yield page


@pytest.fixture(scope="module")
def browser(served: Any) -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip('playwright is missing: pip install "dcgan-completion[dev]"')
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


def on_canvas(page: Any) -> NDArray[np.bool_]:
    """The hole in the editor: bool (h, w) in page size."""
    url = page.evaluate("document.querySelector('#editor canvas').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))[..., 3] > 127


def load(page: Any, photo: Path) -> None:
    page.locator("#photo input[type=file]").first.set_input_files(photo)
    until(page, "found")
    page.locator("#editor canvas").wait_for()
    page.wait_for_function("document.querySelector('#editor .photo').complete")


def paint(page: Any, dx: float = 0, dy: float = -40) -> None:
    """Paint a stroke over the face, some pixels beside the middle of the canvas."""
    page.locator("#editor canvas").scroll_into_view_if_needed()
    box = page.locator("#editor canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2 + dx, box["y"] + box["height"] / 2 + dy
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 20, steps=8)
    page.mouse.up()


def choose_hole(page: Any, name: str) -> None:
    before = on_canvas(page)
    page.locator("#named input").click()
    page.get_by_role("option", name=name).click()
    eventually(page, lambda: (on_canvas(page) != before).any(), "the hole is drawn")


def complete(page: Any, press: Callable[[], None] | None = None) -> NDArray[np.bool_]:
    """Press Complete and wait for the result; the hole that was filled: bool (H, W)."""
    page.evaluate("document.querySelector('#result .after').removeAttribute('src')")
    (press or page.locator("#complete").click)()
    page.wait_for_function("document.querySelector('#result .after').src.startsWith('http')")
    until(page, "Done")
    body = page.request.get(page.locator("#files a[href$='-hole.png']").evaluate("link => link.href")).body()
    return np.asarray(Image.open(io.BytesIO(body)).convert("L")) > 127


def downloaded(page: Any, folder: Path, link: Any = None) -> Path:
    with page.expect_download() as waiting:
        (link or page.locator("#download")).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def files(page: Any, folder: Path) -> dict[str, Path]:
    """All files of the list, by their names."""
    folder.mkdir(exist_ok=True)
    page.locator("#files summary").click()
    links = page.locator("#files a[download]")
    found = [downloaded(page, folder, links.nth(number)) for number in range(links.count())]
    return {path.name: path for path in found}


def upload_mask(page: Any, mask: Path) -> None:
    with page.expect_file_chooser() as waiting:
        page.locator("#mask").click()
    waiting.value.set_files(mask)
    eventually(page, lambda: on_canvas(page).any(), "the mask is drawn")


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
    hole = complete(page)
    best = downloaded(page, tmp_path)
    found = files(page, tmp_path / "all")
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

    chosen = page.locator("#result .candidates button").nth(1)
    chosen.click()
    assert chosen.get_attribute("aria-pressed") == "true"
    assert page.locator("#result .candidates button[aria-pressed=true]").count() == 1
    assert not differences(downloaded(page, tmp_path), second)


def test_before_is_the_photo_and_keys_move_the_line_and_show_the_original(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    paint(page)
    complete(page)
    body = page.request.get(page.locator("#result .before").evaluate("image => image.src")).body()
    before = np.asarray(Image.open(io.BytesIO(body)).resize(face.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(before.astype(int) - face).mean() < 5  # a JPEG of the photo, without paint

    def hidden() -> str:
        """How much of the picture before is cut off, from the right."""
        clip = page.locator("#result .before").evaluate("image => getComputedStyle(image).clipPath")
        return "0%" if clip == "none" else re.findall(r"(\d+%)", clip)[0]

    assert hidden() == "100%"
    page.locator("#result .compare input").focus()
    page.keyboard.press("End")
    assert hidden() == "0%"
    page.keyboard.press("Home")
    page.keyboard.down("o")
    assert hidden() == "0%"
    page.keyboard.up("o")
    assert hidden() == "100%"


def test_an_uploaded_mask_is_the_hole_and_can_be_inverted(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    hole = np.zeros(face.shape[:2], dtype=bool)
    hole[96:144, 104:152] = True
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    upload_mask(page, save(tmp_path / "mask.png", np.where(hole, 255, 0).astype(np.uint8)))
    assert np.array_equal(complete(page), hole)
    page.locator("#editor [data-do=invert]").click()
    assert np.array_equal(complete(page), ~hole)


def test_a_mask_of_another_shape_is_explained(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    upload_mask(page, save(tmp_path / "mask.png", np.full((100, 300), 255, dtype=np.uint8)))
    until(page, "300x100 pixels and the photo 256x256, another shape")


def test_a_hole_by_name_replaces_or_adds_to_the_hole_and_can_be_undone(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path, encoder_weights: Weights
) -> None:
    photo = save(tmp_path / "a.png", face)
    page = visit()
    load(page, photo)
    paint(page, dy=-100)
    stroke = on_canvas(page)
    choose_hole(page, "mouth")
    mouth = on_canvas(page)
    assert not (mouth & stroke).any()
    page.keyboard.press("Control+z")
    eventually(page, lambda: np.array_equal(on_canvas(page), stroke), "undo brings the stroke back")
    page.locator("#add").get_by_role("checkbox").check()
    choose_hole(page, "mouth")
    assert np.array_equal(on_canvas(page), stroke | mouth)
    for _ in range(2):
        page.keyboard.press("Control+z")
    eventually(page, lambda: not on_canvas(page).any(), "all is undone")
    for _ in range(2):
        page.keyboard.press("Control+Shift+Z")
    eventually(page, lambda: np.array_equal(on_canvas(page), stroke | mouth), "all is done again")
    page.locator("#add").get_by_role("checkbox").uncheck()
    choose_hole(page, "mouth")
    service = Service(encoder_weights, Limits())
    assert np.array_equal(complete(page), service.hole(service.read(photo), named="mouth"))


def test_clearing_removes_the_hole_and_never_the_photo(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    paint(page)
    hole = on_canvas(page)
    page.locator("#editor [data-do=clear]").click()
    assert hole.any() and not on_canvas(page).any()
    assert page.locator("#editor .photo").evaluate("image => image.naturalWidth") == 512
    page.locator("#editor [data-do=undo]").click()
    eventually(page, lambda: np.array_equal(on_canvas(page), hole), "the hole is back")
    assert complete(page).any()


def test_keys_complete_change_the_brush_list_themselves_and_move_the_photo(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    size = page.locator("#editor .size")
    first = int(size.input_value())
    page.keyboard.press("]")
    larger = int(size.input_value())
    page.keyboard.press("[")
    assert int(size.input_value()) < larger > first
    page.keyboard.press("h")
    assert page.locator("#editor dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#editor dialog").is_visible()

    there = page.locator("#editor canvas").bounding_box()
    page.keyboard.down(" ")
    page.mouse.move(there["x"] + 100, there["y"] + 100)
    page.mouse.down()
    page.mouse.move(there["x"] + 150, there["y"] + 120)
    page.mouse.up()
    page.keyboard.up(" ")
    moved = page.locator("#editor canvas").bounding_box()
    assert (moved["x"], moved["y"]) == (there["x"] + 50, there["y"] + 20) and not on_canvas(page).any()
    page.keyboard.press("Escape")
    assert page.locator("#editor canvas").bounding_box() == there

    paint(page)
    complete(page, lambda: page.keyboard.press("Enter"))
    complete(page, lambda: page.keyboard.press("r"))
    page.locator("#settings button").first.click()
    assert page.locator("#seed input").input_value() == "1"


def test_a_hole_is_made_and_filled_by_keyboard_alone(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    page.locator("#editor .box summary").focus()
    page.keyboard.press("Enter")
    for value in ("40", "30", "25", "20"):
        page.keyboard.press("Tab")
        page.keyboard.press("Control+a")
        page.keyboard.type(value)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#complete").focus()
    hole = complete(page, lambda: page.keyboard.press("Enter"))
    ys, xs = np.nonzero(hole)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx((102, 77, 166, 128), abs=1)
    assert hole.sum() == (np.ptp(xs) + 1) * (np.ptp(ys) + 1)


def test_a_face_that_is_not_found_is_marked_by_its_eyes(visit: Callable[[], Any], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    page = visit()
    load(page, save(tmp_path / "a.png", noise))
    until(page, "No face was found")
    page.locator("#editor [data-tool=eyes]").click()
    box = page.locator("#editor canvas").bounding_box()
    for x in (0.6, 0.4):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + 0.4 * box["height"])
    until(page, "1 face was found")
    assert page.locator("#editor polygon").count() == 1 and not on_canvas(page).any()
    paint(page, dy=0)
    assert complete(page).any()


def test_a_new_photo_leaves_nothing_of_the_last_one(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    load(page, save(tmp_path / "anna.png", face))
    paint(page)
    complete(page)
    assert page.locator("#result #download").is_visible()
    page.locator("#another").click()
    page.locator("#result .empty").wait_for()
    assert not page.locator("#result #download").is_visible() and not page.locator("#result img").first.is_visible()
    assert not page.locator("#editor canvas").is_visible()
    load(page, save(tmp_path / "bert.png", face[::-1]))
    assert not on_canvas(page).any() and not page.locator("#result #download").is_visible()


def test_stop_is_there_only_while_something_runs(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    solve = solve_module.solve

    def endless(*arguments: Any) -> Iterator[State]:
        for step in solve(*arguments):
            yield step
            while not stopped.wait(0.1):
                yield step

    monkeypatch.setattr(solve_module, "solve", endless)
    page = visit()
    load(page, save(tmp_path / "a.png", face))
    assert not page.locator("#stop").is_visible()
    paint(page)
    page.locator("#complete").click()
    until(page, "Filling the hole:")
    with page.expect_response("**/cancel"):
        page.locator("#stop").click()
    until(page, "Stopped.")
    page.locator("#stop").wait_for(state="hidden")
    stopped.set()
    complete(page)
    assert not page.locator("#stop").is_visible()


def test_a_server_that_is_gone_and_comes_back_is_reported(visit: Callable[[], Any]) -> None:
    page = visit()
    page.route("**/healthz", lambda route: route.abort())
    until(page, "cannot be reached", "#connection")
    page.unroute("**/healthz")
    until(page, "The server is back", "#connection")


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_photo_tools_and_result_are_in_view(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path, size: tuple[int, int]
) -> None:
    def in_view(where: str) -> bool:
        box = page.locator(where).bounding_box()
        inside = box["x"] >= 0 and box["x"] + box["width"] <= size[0]
        return bool(inside and box["y"] >= 0 and box["y"] + box["height"] <= size[1])

    page = visit()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    load(page, save(tmp_path / "a.png", face))
    paint(page)
    needed = ["#editor .stage", "#editor .tools", "#complete", "#another"]
    assert all(map(in_view, needed))
    buttons = page.locator("#editor .tools button")
    assert len({buttons.nth(number).bounding_box()["y"] for number in range(buttons.count())}) == 1
    complete(page)
    eventually(page, lambda: in_view("#result .compare"), "the whole result is in view")
    if size[0] > 640:
        assert all(map(in_view, [*needed, "#status"]))


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
    for page, _, _ in people:
        page.locator("#complete").click()
    for page, name, photo in people:
        hole = complete(page)
        found = files(page, tmp_path / name)
        assert all(file.startswith(name) for file in found)
        completed = pixels(found[f"{name}-completed.png"])
        assert np.array_equal(completed[~hole], photo[~hole])


# What Gradio's own components do wrong; a page cannot change it.
OF_GRADIO = {
    "aria-prohibited-attr",
    "button-name",
    "label-content-name-mismatch",
    "nested-interactive",
    "target-size",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_in_any_tab(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path, scheme: str
) -> None:
    sync_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}

    def check(state: str) -> None:
        found = sync_playwright.Axe().run(page, options=rules).response["violations"]
        wrong = [
            (state, rule["id"], node["html"][:200], node["failureSummary"])
            for rule in found
            for node in rule["nodes"]
            if rule["id"] not in OF_GRADIO or re.search("editor|result|connection|stage|tools", str(node["target"]))
        ]
        assert not wrong

    page = visit()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(f"{page.url}?__theme={scheme}")
    page.wait_for_selector("#photo input[type=file]", state="attached")
    check("empty")
    page.locator("#complete").click()
    until(page, "There is no photo yet")
    check("an error")
    load(page, save(tmp_path / "a.png", face))
    page.locator("#editor .box summary").click()
    page.locator("#settings button").first.click()
    check("a photo")
    page.locator("#editor [data-do=keys]").click()
    check("the list of keys")
    page.keyboard.press("Escape")
    page.locator("#settings button").first.click()
    paint(page)
    complete(page)
    check("a result")
    for tab in ("Explore", "Batch"):
        page.get_by_role("tab", name=tab).click()
        page.locator("#sample, #run").locator("visible=true").first.wait_for()
        check(tab)


def test_changes_of_the_status_are_read_out_and_pictures_have_names(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    page = visit()
    for tab, name in (("Batch", "batch_status"), ("Complete", "status")):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"#{name}[role=status][aria-live=polite]").wait_for()
    load(page, save(tmp_path / "a.png", face))
    paint(page)
    complete(page)
    for picture in page.locator("#editor img, #result img").all():
        assert picture.get_attribute("alt")
    assert page.locator("#editor canvas").get_attribute("aria-label")


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


def test_a_batch_shows_every_file_and_downloads_as_one_zip_file(
    visit: Callable[[], Any], face: NDArray[np.uint8], tmp_path: Path
) -> None:
    photos = [save(tmp_path / "a.png", face), save(tmp_path / ".b.png", np.ascontiguousarray(face[:, ::-1]))]
    photos.append(tmp_path / "notes.txt")
    photos[-1].write_text("notes")
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#photos input[type=file]").set_input_files(photos)
    page.wait_for_function("document.querySelectorAll('#photos tr.file, #photos .file').length >= 3")
    page.locator("#run").click()
    until(page, "Done: 2 of 3", "#batch_status")
    until(page, "notes.txt: Not an image", "#batch_status")
    page.locator("#pictures img").nth(1).wait_for()
    assert page.locator("#pictures img").count() == 2
    archive = downloaded(page, tmp_path, page.locator("#archive a[download]").first)
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == [".b.png", "a.png", "report.json"]
