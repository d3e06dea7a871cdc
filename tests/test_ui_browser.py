"""The page in a real browser: its logic against prepared answers, and a walk with the real server."""

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import FACE, pixels, save
from PIL import Image

from completion import FaceCompleter
from completion.__main__ import main
from dcgan.weights import Weights
from ui.config import Limits
from ui.service import Service

DEBIANS = "/usr/bin/chromium"
WAIT_MS = 120_000  # on a busy machine, where the canvas is drawn without a GPU
OPTIONS = "--no-sandbox --disable-gpu --disable-background-networking --disable-sync --no-first-run"
SIZES = {
    "desktop": (1280, 900),
    "large": (1920, 1080),
    "tablet": (768, 1024),
    "phone": (390, 844),
    "sideways": (844, 390),
}
GREY, RED, GREEN = (120, 120, 120), (255, 0, 0), (0, 255, 0)
WIDTH, HEIGHT = 400, 300
# A fill whose stream sends one answer and goes on.
HOLD = """answer => {
    window.unheld = window.fetch;
    window.fetch = (path, options) => {
        if (!path.includes("call/fill")) return window.unheld(path, options);
        if (options.method === "POST") return Promise.resolve(Response.json({ event_id: "held" }));
        const start = (stream) => {
            const words = `event: generating\\ndata: ${JSON.stringify([answer])}\\n\\n`;
            stream.enqueue(new TextEncoder().encode(words));
            options.signal.onabort = () => stream.error(options.signal.reason);
        };
        return Promise.resolve(new Response(new ReadableStream({ start })));
    };
}"""
# Until what the page keeps is stored: transactions run one after the other.
STORED = """() => new Promise((done) => {
    indexedDB.open("fill-in-a-face", 1).onsuccess = ({ target }) => {
        const transaction = target.result.transaction("photos", "readwrite");
        transaction.objectStore("photos").count();
        transaction.oncomplete = () => done(true);
    };
})"""
Start = Callable[..., tuple[Any, "Answers"]]
PARTS = ("eyes", "left eye", "right eye", "nose", "mouth", "left half", "right half", "whole face")


def skip(reason: str) -> None:
    """Skip, or fail if the environment says that there must be a browser."""
    if os.environ.get("DCGAN_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def served(serve: Callable[..., AbstractContextManager[Any]], encoder_weights: Weights) -> Iterator[Any]:
    with serve(Service(FaceCompleter(encoder_weights, aligned=True), Limits(max_pixels=1_000_000))) as page:
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
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, served: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page as a new visitor; at the end, no request may have left the server or broken the CSP."""
    contexts, outside, complaints = [], [], []

    def opened(size: str = "desktop", **settings: Any) -> Any:
        width, height = SIZES[size]
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, has_touch=size in ("phone", "sideways"), **settings)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        own = (served.url, "blob:", "data:")
        page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(own) else None)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(f"Refused to go on: {error}"))
        page.goto(served.url, wait_until="domcontentloaded")
        until(page, "empty")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not outside
    assert not [words for words in complaints if "Content Security Policy" in words or "Refused to" in words]


class Answers:
    """Takes the place of the server's endpoints.

    Attributes:
        calls: (name, data) of each call.
        uploads: (name, bytes) of each upload.
        faces: what `open` answers.
        patches: (colour, x, y, side) of the next fills; the last one is repeated.
        damage: outlines that `damage` answers.
        errors: endpoint -> what it answers instead, once.
    """

    def __init__(self, page: Any, faces: int = 1) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.uploads: list[tuple[str, bytes]] = []
        self.faces = [face(150 * number) for number in range(faces)]
        self.patches = [(RED, 50, 60, 40), (GREEN, 200, 160, 40)]
        self.damage: list[list[list[int]]] = []
        self.errors: dict[str, list[str]] = {}
        page.route("**/gradio_api/upload", self._upload)
        page.route("**/gradio_api/call/**", self._call)
        page.route("**/gradio_api/file=**", self._file)

    def named(self, name: str) -> list[list[Any]]:
        """The data of all calls of an endpoint."""
        return [data for called, data in self.calls if called == name]

    def marks(self) -> list[NDArray[np.bool_]]:
        """What was painted, of each fill."""
        files = [data for name, data in self.uploads if name == "marks.png"]
        return [np.asarray(Image.open(io.BytesIO(data)))[..., 3] > 127 for data in files]

    def _upload(self, route: Any) -> None:
        body = route.request.post_data_buffer
        head, _, rest = body.partition(b"\r\n\r\n")
        name = re.search(rb'filename="(.*?)"', head)
        assert name
        self.uploads.append((name[1].decode(), rest.rpartition(b"\r\n--")[0]))
        route.fulfill(json=[f"/uploads/{len(self.uploads)}"])

    def _call(self, route: Any) -> None:
        name = route.request.url.rpartition("/call/")[2].partition("/")[0]
        if route.request.method == "POST":
            if self.errors.get(name) and self.errors[name][0].startswith("400"):
                route.fulfill(status=400, body=self.errors[name].pop(0)[4:])
                return
            self.calls.append((name, route.request.post_data_json["data"]))
            route.fulfill(json={"event_id": "1"})
            return
        event, answer = "complete", [self._answer(name)]
        if self.errors.get(name):
            event, answer = "error", {"error": self.errors[name].pop(0)}  # type: ignore[assignment]
        route.fulfill(content_type="text/event-stream", body=f"event: {event}\ndata: {json.dumps(answer)}\n\n")

    def _answer(self, name: str) -> dict[str, Any]:
        if name == "open":
            return {"width": WIDTH, "height": HEIGHT, "faces": [face(20)] if self.calls[-1][1][1] else self.faces}
        if name == "fill":
            _, x, y, _ = self._patch(len(self.named("fill")) - 1)
            file = {"path": f"/patches/{len(self.named('fill')) - 1}", "orig_name": "step.png"}
            return {"state": "done", "file": file, "x": x, "y": y, "faces": 1, "outside": False, "quick": False}
        if name == "damage":
            return {"outlines": self.damage}
        return {"path": f"/results/{name}", "orig_name": f"{name}.jpg"}

    def _patch(self, number: int) -> tuple[tuple[int, int, int], int, int, int]:
        return self.patches[min(number, len(self.patches) - 1)]

    def _file(self, route: Any) -> None:
        path = route.request.url.rpartition("/")[2]
        colour, side = (self._patch(int(path))[0], self._patch(int(path))[3]) if path.isdigit() else (RED, 8)
        route.fulfill(body=png(np.full((side, side, 4), (*colour, 255), dtype=np.uint8)), content_type="image/png")


def face(left: int = 0) -> dict[str, Any]:
    """A face as `open` describes it: a square of 100 pixels; its parts are squares of 20."""

    def square(x: int, y: int, side: int) -> list[list[int]]:
        return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]

    parts = {name: [square(left + 20, 40 + 10 * number, 20)] for number, name in enumerate(PARTS)}
    eyes = [[left + 35, 80], [left + 65, 80]]
    return {"alignment": [1, 0, -left, 0, 1, -40, 32], "corners": square(left, 40, 100), "eyes": eyes, "parts": parts}


def png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def grey(width: int = WIDTH, height: int = HEIGHT, name: str = "photo.png") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": png(np.full((height, width, 3), 120, dtype=np.uint8))}


def until(page: Any, state: str) -> None:
    page.wait_for_selector(f"body[data-state={state}]")


def says(page: Any, words: str) -> None:
    page.locator("#status", has_text=words).wait_for()


def steps(page: Any, *labels: str) -> None:
    """Wait until the strip has these steps."""
    from playwright.sync_api import expect

    expect(page.locator("#steps button")).to_have_text(list(labels), timeout=WAIT_MS)


def load(page: Any, *files: Any) -> None:
    page.locator("#files").set_input_files(list(files))
    until(page, "ready")


def on_page(page: Any, x: float, y: float, width: int = WIDTH, height: int = HEIGHT) -> tuple[float, float]:
    """Where a point of a photo is on the page, while the whole photo shows."""
    box = page.locator("#stage").bounding_box()
    scale = min((box["width"] - 16) / width, (box["height"] - 16) / height)
    left, top = (box["width"] - width * scale) / 2, (box["height"] - height * scale) / 2
    return box["x"] + left + x * scale, box["y"] + top + y * scale


def stroke(page: Any, *points: tuple[float, float], width: int = WIDTH, height: int = HEIGHT) -> None:
    for number, point in enumerate(points):
        page.mouse.move(*on_page(page, *point, width, height), steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def colour(page: Any, x: float, y: float, canvas: str = "picture") -> tuple[int, ...]:
    """The colour that shows at a point of the photo, after the next frame."""
    left, top = on_page(page, x, y)
    read = """([id, x, y]) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
        const canvas = document.getElementById(id), box = canvas.getBoundingClientRect();
        const point = [(x - box.left) * devicePixelRatio, (y - box.top) * devicePixelRatio];
        done([...canvas.getContext("2d").getImageData(...point, 1, 1).data]);
    })))"""
    return tuple(page.evaluate(read, [canvas, left, top])[: 3 if canvas == "picture" else 4])


def painted(page: Any, x: float, y: float) -> bool:
    return colour(page, x, y, "marks")[3] > 0


def fill(page: Any, steps: int, button: str = "#fill") -> None:
    page.locator(button).click()
    page.locator("#steps li").nth(steps - 1).wait_for()
    until(page, "ready")


def go_on(page: Any, held: list[Any]) -> None:
    """Let a request go on that a route holds, as soon as it is there."""
    while not held:
        page.wait_for_timeout(20)
    held.pop().fallback()


@pytest.fixture
def start(visit: Callable[..., Any]) -> Start:
    """Opens the page with prepared answers and a photo, or several."""

    def started(*photos: Any, faces: int = 1, size: str = "desktop") -> tuple[Any, Answers]:
        page = visit(size)
        answers = Answers(page, faces)
        load(page, *photos or [grey()])
        return page, answers

    return started


# Opening


def test_a_photo_shows_before_its_faces_are_found(visit: Callable[..., Any]) -> None:
    page = visit()
    Answers(page)
    held: list[Any] = []
    page.route("**/gradio_api/call/open", lambda route: held.append(route))
    page.locator("#files").set_input_files(grey())
    until(page, "opening")
    says(page, "Looking for faces")
    assert colour(page, 200, 150) == GREY
    held[0].fallback()
    until(page, "ready")
    says(page, "1 face. Paint over what is missing, or choose a part of a face.")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_photos_are_dropped_and_pasted_anywhere_at_any_time(visit: Callable[..., Any], way: str) -> None:
    page = visit()
    Answers(page)
    load(page, grey())
    many = [[*png(np.full((HEIGHT, WIDTH, 3), shade, dtype=np.uint8))] for shade in (10, 250)]
    page.evaluate(
        """([way, files]) => {
            const data = new DataTransfer();
            for (const [index, bytes] of files.entries()) {
                data.items.add(new File([new Uint8Array(bytes)], `${index}.png`, { type: "image/png" }));
            }
            const options = { dataTransfer: data, clipboardData: data, bubbles: true, cancelable: true };
            const event = way === "drop" ? new DragEvent("drop", options) : new ClipboardEvent("paste", options);
            document.querySelector("header").dispatchEvent(event);
        }""",
        [way, many],
    )
    page.locator("#photos li").nth(2).wait_for()
    until(page, "ready")
    assert page.locator("#photos button span").all_inner_texts() == ["photo.png", "0.png", "1.png"]
    assert colour(page, 200, 150) == (10, 10, 10)
    page.locator("#photos button").nth(0).click()
    page.locator("#photos button[aria-current=true]", has_text="photo.png").wait_for()
    assert colour(page, 200, 150) == GREY


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"text", '"notes.txt" is not a photo. Use JPEG, PNG, WebP or BMP.'),
        ("scan.tiff", b"II*\0", '"scan.tiff" is not a photo.'),
        ("empty.jpg", b"", '"empty.jpg" cannot be read. It may be damaged.'),
        ("fake.jpg", b"text", '"fake.jpg" cannot be read. It may be damaged.'),
        ("IMG_1.heic", b"", "This is an iPhone photo (HEIC). Choose it from the Photos app, or export it as JPEG."),
        ("IMG_1.jpg", b"\0\0\0\x18ftypheic", "This is an iPhone photo (HEIC)."),
    ],
)
def test_a_file_that_is_no_photo_says_what_to_do(visit: Callable[..., Any], name: str, data: bytes, words: str) -> None:
    page = visit()
    Answers(page)
    page.locator("#files").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": data})
    says(page, words)
    load(page, grey())
    page.locator("#files").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": data})
    says(page, "1 face.")  # what was said before stays
    says(page, words)


def test_a_larger_photo_than_the_server_takes_is_reduced_and_the_page_says_so(start: Start) -> None:
    page, answers = start(grey(2000, 1000))
    says(page, "This photo is very large (2000x1000). It is used at 1414x707.")
    [(_, sent)] = answers.uploads
    assert Image.open(io.BytesIO(sent)).size == (1414, 707)


# Painting and history


def test_the_brush_paints_at_the_size_of_the_photo_and_nowhere_else(start: Start) -> None:
    page, answers = start(grey(1200, 800))
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 6, box["y"] + 5, steps=4)  # outside the photo
    page.mouse.up()
    assert page.locator("#undo").is_disabled()
    stroke(page, (400, 400), (800, 400), width=1200, height=800)
    fill(page, 2)
    [marks] = answers.marks()
    assert marks.shape == (800, 1200)
    rows, columns = np.nonzero(marks)
    width = np.ptp(rows) + 1
    assert abs(np.ptp(columns) - 400 - width) <= 3 and abs(rows.mean() - 400) < 2
    lower = marks[:, 300:405].sum(axis=0)  # the round end of the stroke: no steps as of an enlarged drawing
    assert len({*lower[lower > 0]}) > width / 4


def test_every_fill_starts_from_what_is_shown_and_undo_leads_back_through_all(start: Start) -> None:
    page, answers = start()
    stroke(page, (60, 80), (80, 80))
    fill(page, 2)
    assert colour(page, 70, 80) == RED and not painted(page, 40, 80)
    stroke(page, (220, 180))
    fill(page, 3)
    assert [colour(page, *point) for point in ((70, 80), (220, 180), (350, 20))] == [RED, GREEN, GREY]
    page.keyboard.down("o")
    assert colour(page, 70, 80) == GREY
    page.keyboard.up("o")
    first, second = answers.named("fill")
    assert first[2] == [] and [(step["x"], step["y"]) for step in second[2]] == [(50, 60)]
    assert first[3] == second[3] == [answers.faces[0]["alignment"]]
    marks = answers.marks()
    assert not (marks[0] & marks[1]).any()

    for shown in ((RED, GREY), (RED, GREY), (GREY, GREY), (GREY, GREY)):
        page.keyboard.press("Control+z")
        assert (colour(page, 70, 80), colour(page, 220, 180)) == shown
    assert not painted(page, 70, 80) and page.locator("#undo").is_disabled()
    for _ in range(4):
        page.keyboard.press("Control+Shift+z")
    assert (colour(page, 70, 80), colour(page, 220, 180)) == (RED, GREEN)
    page.locator("#steps button").nth(1).click()
    assert (colour(page, 70, 80), colour(page, 220, 180)) == (RED, GREY)


def test_another_try_adds_an_alternative_from_the_same_picture(start: Start) -> None:
    page, answers = start()
    assert page.locator("#again").is_disabled()
    page.get_by_role("button", name="Mouth").click()
    fill(page, 2)
    page.locator("#again").click()
    steps(page, "original", "1 mouth", "1b mouth")
    until(page, "ready")
    page.keyboard.press("r")
    steps(page, "original", "1 mouth", "1b mouth", "1c mouth")
    until(page, "ready")
    fills = answers.named("fill")
    assert [data[4] for data in fills] == [0, 1, 2] and all(data[2] == [] for data in fills)
    assert all(np.array_equal(marks, answers.marks()[0]) for marks in answers.marks())


def test_parts_are_buttons_for_a_face_or_for_all(start: Start) -> None:
    page, _ = start(faces=24)
    for part in PARTS:
        box = page.get_by_role("button", name=part.capitalize(), exact=True).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES["desktop"][0], part
    mouth = page.get_by_role("button", name="Mouth")
    first, second = (30, 90), (180, 90)
    mouth.click()
    assert mouth.get_attribute("aria-pressed") == "true" and (painted(page, *first), painted(page, *second)) == (1, 0)
    says(page, "Press Fill in, or mark more.")
    page.keyboard.press("2")
    assert mouth.get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="All faces").click()
    mouth.click()
    assert (painted(page, *first), painted(page, *second)) == (1, 1)
    mouth.click()
    assert (painted(page, *first), painted(page, *second)) == (0, 0)
    mouth.click(modifiers=["Shift"])
    assert (painted(page, *first), painted(page, *second)) == (1, 1)


def test_found_damage_is_marked_with_its_gaps_and_the_slider_finds_again(start: Start) -> None:
    page, answers = start()
    page.locator("#damage").click()
    says(page, "No damage was found")
    answers.damage = [[[50, 50], [150, 50], [150, 150], [50, 150]], [[80, 80], [120, 80], [120, 120], [80, 120]]]
    stroke(page, (300, 200))
    page.locator("#sensitivity").fill("80")
    says(page, "Damage is marked")
    assert painted(page, 60, 60) and not painted(page, 112, 112) and painted(page, 300, 200)
    assert [data[2] for data in answers.named("damage")] == [0.5, 0.8]
    for _ in range(10):
        page.locator("#sensitivity").press("ArrowLeft")  # while it searches, too
    until(page, "ready")
    assert answers.named("damage")[-1][2] == 0.7
    assert page.evaluate("document.activeElement.id") == "sensitivity"
    fill(page, 2)
    [marks] = answers.marks()
    assert marks[60, 60] and not marks[100, 100] and marks[200, 300] and not marks[45, 100]
    page.locator("#undo").click()
    assert painted(page, 60, 60)


def test_other_photos_of_a_person_are_sent_with_each_fill(start: Start) -> None:
    page, answers = start()
    with page.expect_file_chooser() as chooser:
        page.locator("#reference").click()
    chooser.value.set_files([grey(name="younger.png"), grey(name="older.png")])
    says(page, "2 photos of this person are used from now on")
    stroke(page, (300, 200))
    fill(page, 2)
    fill(page, 3, "#again")
    names = [name for name, _ in answers.uploads]
    sent = [f"/uploads/{1 + names.index(name)}" for name in ("younger.png", "older.png")]
    assert [[file["path"] for file in data[5]] for data in answers.named("fill")] == [sent, sent]
    assert names.count("younger.png") == 1
    page.locator("#reference").click()
    says(page, "No other photo of this person is used")
    fill(page, 4, "#again")
    assert answers.named("fill")[-1][5] == []


def test_someone_missing_is_marked_by_both_eyes_and_eyes_can_be_dragged(start: Start) -> None:
    page, answers = start(faces=0)
    says(page, "No face found. Tap both eyes of the person, the left one in the picture first.")
    for eye in ((85, 80), (55, 80)):
        page.mouse.click(*on_page(page, *eye))
    says(page, "1 face.")
    assert np.abs(np.subtract(answers.named("open")[-1][1], [55, 80, 85, 80])).max() < 1
    page.locator("#missing").click()
    stroke(page, (55, 80), (45, 70))
    says(page, "1 face.")
    assert np.abs(np.subtract(answers.named("open")[-1][1], [45, 70, 85, 80])).max() < 1
    assert page.locator("#undo").is_disabled()


def test_faces_are_searched_again_if_that_failed(start: Start) -> None:
    page, answers = start()
    answers.errors["open"] = ["You have sent too many requests.", "It hangs."]
    page.locator("#files").set_input_files(grey(name="other.png"))
    says(page, "You have sent too many requests.")
    for number, words in enumerate(("1 face.", "It hangs.")):
        page.locator("#photos button").nth(number).click()
        says(page, words)
    stroke(page, (70, 80))
    fill(page, 2)
    assert answers.named("fill")[0][3] == [answers.faces[0]["alignment"]]
    assert len(answers.named("open")) == 4


def test_a_photo_that_failed_for_want_of_a_face_takes_its_eyes(start: Start) -> None:
    page, answers = start()
    page.get_by_role("button", name="Mouth").click()
    answers.faces = []
    page.locator("#files").set_input_files([grey(name="other.png"), {**grey(), "name": "a.txt", "buffer": b"text"}])
    says(page, "No face found.")
    says(page, '"a.txt" is not a photo.')
    for number in (0, 1):
        page.locator("#photos button").nth(number).click()
        if number == 0:
            page.locator("#fillall").click()
            says(page, "1 of 2 photos could not be filled.")
    says(page, "Tap both eyes")
    for eye in ((55, 80), (85, 80)):
        page.mouse.click(*on_page(page, *eye))
    says(page, "1 face.")
    assert page.locator("#photos button").nth(1).get_attribute("data-state") == "open"


def test_the_photo_stays_where_it_is_when_its_room_changes(start: Start) -> None:
    page, _ = start()
    page.mouse.move(*on_page(page, 60, 60))
    page.mouse.wheel(0, -800)

    def middle() -> tuple[float, float]:
        box = page.locator("#stage").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    page.mouse.click(*middle())
    page.set_viewport_size({"width": 1000, "height": 700})
    assert painted(page, WIDTH / 2, HEIGHT / 2)  # the middle of the stage, were the whole photo shown
    page.keyboard.press("Escape")
    assert not painted(page, WIDTH / 2, HEIGHT / 2)
    page.set_viewport_size({"width": 900, "height": 900})
    assert colour(page, 2, 2) == colour(page, WIDTH - 2, HEIGHT - 2) == GREY


def test_a_reload_keeps_photos_strokes_and_steps(start: Start) -> None:
    page, answers = start(grey(), grey(name="other.png"))
    stroke(page, (70, 80))
    fill(page, 2)
    stroke(page, (300, 200))
    page.evaluate(STORED)
    page.reload()
    until(page, "ready")
    steps(page, "original", "1")
    assert page.locator("#photos li").count() == 2
    assert colour(page, 70, 80) == RED and painted(page, 300, 200)
    fill(page, 3)
    assert [step["x"] for step in answers.named("fill")[-1][2]] == [50]
    assert [name for name, _ in answers.uploads[-3:]] == ["photo.png", "step.png", "marks.png"]


def test_a_photo_is_removed_after_a_question(start: Start) -> None:
    page, _ = start()
    for answer, state in (("Keep", "ready"), ("Remove", "empty")):
        page.keyboard.press("h")
        page.locator("#remove").click()
        page.get_by_role("button", name=answer, exact=True).click()
        until(page, state)
    page.reload()
    until(page, "empty")


# Fingers


@pytest.fixture
def touch(start: Start) -> tuple[Any, Callable[..., None]]:
    """A phone with a photo, and its fingers."""
    page, _ = start(size="phone")
    session = page.context.new_cdp_session(page)

    def dispatch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": fingers})

    return page, dispatch


def test_two_fingers_zoom_the_photo_and_leave_no_stroke(touch: Any) -> None:
    page, dispatch = touch
    x, y = on_page(page, 200, 150)
    dispatch("Start", (x, y))
    dispatch("Move", (x + 3, y))
    dispatch("Start", (x + 3, y), (x + 60, y))
    for by in (20, 60, 100):
        dispatch("Move", (x + 3 - by, y), (x + 60 + by, y))
    dispatch("End")
    assert page.locator("#undo").is_disabled() and not painted(page, 200, 150)
    assert page.evaluate("visualViewport.scale") == 1
    assert colour(page, 200, -20) == GREY  # what was above the photo is covered by it now
    page.keyboard.press("Escape")
    assert colour(page, 200, -20) != GREY


def test_a_swipe_outside_the_photo_leaves_no_stroke(touch: Any) -> None:
    page, dispatch = touch
    x, y = on_page(page, 200, -40)
    dispatch("Start", (x, y))
    dispatch("Move", (x, y + 80))
    dispatch("End")
    assert page.locator("#undo").is_disabled() and page.evaluate("scrollY") == 0


# Waiting, failures, many photos


def test_waiting_shows_the_place_and_stop_ends_the_fill(start: Start) -> None:
    page, _ = start()
    page.locator("#fill").click()
    says(page, "Nothing is marked yet. Paint over what is missing.")
    stroke(page, (70, 80))
    answers = {"waiting": {"state": "waiting", "ahead": 2, "seconds": 6}, "filling": {"state": "filling"}}
    for state, words in (("waiting", "2 people are before you, about 6 seconds."), ("filling", "Filling in ...")):
        page.evaluate(HOLD, answers[state])
        page.locator("#fill").click()
        until(page, state)
        says(page, words)
        page.locator("#files").set_input_files({**grey(name="notes.txt"), "buffer": b"text"})
        says(page, '"notes.txt" is not a photo.')
        assert not page.locator("#fill").is_visible()
        page.locator("#stop").click()
        says(page, "Stopped.")
        says(page, '"notes.txt" is not a photo.')
        page.evaluate("window.fetch = window.unheld")
    assert painted(page, 70, 80)
    fill(page, 2)


def test_a_stroke_during_a_fill_is_filled_after_it(start: Start) -> None:
    page, answers = start()
    page.keyboard.press("h")
    page.get_by_label("Fill in as soon as a stroke ends").check()
    page.keyboard.press("Escape")
    held: list[Any] = []
    page.route("**/gradio_api/call/fill", lambda route: held.append(route), times=1)
    stroke(page, (70, 80))
    until(page, "filling")
    stroke(page, (220, 180))
    assert painted(page, 220, 180)
    go_on(page, held)
    steps(page, "original", "1", "2")
    until(page, "ready")
    first, second = answers.marks()
    assert first[80, 70] and second[180, 220] and not (first & second).any()


def test_another_photo_can_be_chosen_while_all_are_filled(start: Start) -> None:
    page, answers = start(grey(name="a.png"), grey(name="b.png"))
    page.locator("#fillall").click()
    says(page, "Nothing is marked yet. Paint over what is missing.")
    held: list[Any] = []
    page.get_by_role("button", name="Mouth").click()
    page.route("**/gradio_api/call/fill", lambda route: held.append(route))
    page.locator("#fillall").click()
    says(page, "Filling in 1 of 2 ...")
    page.locator("#photos button").nth(1).click()
    page.locator("#photos button[aria-current=true]", has_text="b.png").wait_for()
    page.route("**/gradio_api/call/open", lambda route: None)  # it is never answered
    go_on(page, held)
    says(page, "Filling in 2 of 2 ...")
    page.locator("#stop").click()
    says(page, "Stopped.")
    page.unroute("**/gradio_api/call/open")
    assert colour(page, 70, 80) == GREY
    page.locator("#photos button").nth(0).click()
    steps(page, "original", "1 mouth")
    assert colour(page, 70, 80) == RED


def test_the_page_goes_on_when_the_server_is_back_or_has_forgotten_the_photo(start: Start) -> None:
    page, answers = start()
    stroke(page, (70, 80))
    answers.errors["fill"] = ["400 the request names a file that was not uploaded; upload it first"]
    fill(page, 2)
    assert [name for name, _ in answers.uploads] == ["photo.png", "marks.png", "photo.png", "marks.png"]

    gone = True
    for path in ("**/healthz", "**/gradio_api/call/fill"):
        page.route(path, lambda route: route.abort() if gone else route.fallback())
    stroke(page, (220, 180))
    page.locator("#fill").click()
    says(page, "No connection. Your work is kept here; trying again ...")
    gone = False
    steps(page, "original", "1", "2")
    until(page, "ready")


def test_many_photos_are_filled_one_after_the_other_and_failures_have_a_reason(start: Start) -> None:
    page, answers = start(grey(name="a.png"), grey(name="b.png"), grey(name="c.png"))
    page.get_by_role("button", name="Mouth").click()
    page.locator("#photos button").nth(1).click()
    stroke(page, (200, 200))
    page.locator("#photos button").nth(0).click()
    page.locator("#photos button[aria-current=true]", has_text="a.png").wait_for()
    answers.patches = [(RED, 50, 60, 40)]

    def fail_third(route: Any) -> None:
        if len(answers.named("fill")) == 2:
            answers.errors["fill"] = ["The networks are tired."]
        route.fallback()

    page.route("**/gradio_api/call/fill", fail_third)
    page.locator("#fillall").click()
    says(page, "1 of 3 photos could not be filled. Choose one to see why.")
    states = [button.get_attribute("data-state") for button in page.locator("#photos button").all()]
    assert states == ["filled", "filled", "failed"]
    one, other, third = answers.marks()
    assert np.array_equal(one, third) and not np.array_equal(one, other)
    page.locator("#photos button").nth(2).click()
    says(page, "The networks are tired.")
    with page.expect_download() as download:
        page.locator("#saveall").click()
    assert download.value.suggested_filename == "save_all.jpg"
    [[items]] = answers.named("save_all")
    assert [(item["name"], item["reason"], len(item.get("steps", []))) for item in items] == [
        ("a.png", "", 1),
        ("b.png", "", 1),
        ("c.png", "The networks are tired.", 0),
    ]


# Layout, keys, accessibility


SCROLLS = """() => [...document.querySelectorAll("html, body, main, #tools, header, #history")].some((item) =>
    item.scrollHeight > item.clientHeight + 1 || item.scrollWidth > item.clientWidth + 1)"""
TARGETS = """() => [...document.querySelectorAll("button, input, a")].filter((item) => item.checkVisibility())
    .map((item) => [item.id || item.textContent, item.getBoundingClientRect().toJSON()])"""


@pytest.mark.parametrize(
    ("size", "share"), [("desktop", 0.6), ("large", 0.6), ("tablet", 0.5), ("phone", 0.5), ("sideways", 0.45)]
)
def test_the_picture_has_the_room_and_nothing_scrolls(visit: Callable[..., Any], size: str, share: float) -> None:
    page = visit(size)
    Answers(page, faces=2)
    width, height = SIZES[size]
    for state in ("empty", "ready", "done"):
        if state == "ready":
            load(page, *[grey()] * (2 if size == "sideways" else 1))
        if state == "done":
            stroke(page, (70, 80))
            fill(page, 2)
        assert not page.evaluate(SCROLLS), state
        boxes = dict(page.evaluate(TARGETS))
        if state != "empty":
            for name in ("brush", "fill", "save", "undo", "again", "damage"):
                box = boxes[name]
                assert box["x"] >= 0 and box["right"] <= width and box["bottom"] <= height, (state, name)
            stage = page.locator("#stage").bounding_box()
            assert stage["width"] * stage["height"] >= share * width * height
        if size == "phone":
            small = {name: box for name, box in boxes.items() if min(box["width"], box["height"]) < 44}
            assert not small, small
            for name, box in boxes.items():
                for other, its in boxes.items():
                    across = max(box["x"], its["x"]) - min(box["right"], its["right"])
                    down = max(box["y"], its["y"]) - min(box["bottom"], its["bottom"])
                    assert name == other or max(across, down) >= 3.9, (name, other)


def test_the_page_is_small(visit: Callable[..., Any]) -> None:
    page = visit()
    entries = page.evaluate(
        "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))"
        ".map((entry) => [entry.name, entry.transferSize])"
    )
    assert len(entries) <= 15
    assert sum(size for _, size in entries) <= 150_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_axe_finds_nothing_wrong_in_any_state(visit: Callable[..., Any], scheme: str, size: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here").Axe()
    page = visit(size, color_scheme=scheme, bypass_csp=True)
    answers = Answers(page, faces=2)

    def check(state: str) -> None:
        found = axe.run(page).response["violations"]
        assert not found, (state, [(item["id"], [node["html"] for node in item["nodes"]]) for item in found])

    check("empty")
    load(page, grey(), grey(name="b.png"))
    check("ready")
    stroke(page, (70, 80))
    page.evaluate(HOLD, {"state": "filling"})
    page.locator("#fill").click()
    until(page, "filling")
    check("filling")
    page.locator("#stop").click()
    says(page, "Stopped.")
    page.evaluate("window.fetch = window.unheld")
    fill(page, 2)
    check("done")
    answers.errors["fill"] = ["Something is wrong."]
    page.locator("#again").click()
    until(page, "failed")
    check("failed")
    page.locator("#help").click()
    check("keys")
    page.locator("#remove").click()
    check("remove")


def test_a_face_is_filled_and_saved_by_keyboard_alone(visit: Callable[..., Any]) -> None:
    page = visit()
    answers = Answers(page)
    page.keyboard.press("h")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    with page.expect_file_chooser() as chooser:
        for _ in range(3):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "open":
                break
        page.keyboard.press("Enter")
    chooser.value.set_files(grey())
    until(page, "ready")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "stage":
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.down(" ")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.up(" ")
    page.keyboard.press("Enter")
    steps(page, "original", "1")
    until(page, "ready")
    [marks] = answers.marks()
    rows, columns = np.nonzero(marks)
    assert np.ptp(rows) > np.ptp(columns) > 0
    with page.expect_download() as download:
        page.keyboard.press("Control+s")
    assert download.value.suggested_filename == "save.jpg"
    page.keyboard.press("h")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    assert page.evaluate("document.activeElement.id") == "stage"
    for button, labels in (("again", ("original", "1", "1b")), ("damage", ("original", "1", "1b"))):
        page.locator(f"#{button}").press("Enter")
        steps(page, *labels)
        until(page, "ready")
        assert page.evaluate("document.activeElement.id") == button
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {})")  # as without HTTPS
    page.keyboard.press("Control+c")
    says(page, "The browser lets this page copy nothing.")


# With the real server


def test_a_fill_has_the_bytes_of_the_command_line(
    visit: Callable[..., Any], tmp_path: Path, encoder_weights_file: Path
) -> None:
    photo = save(tmp_path / "face.jpg", FACE, quality=90)
    page = visit()
    sent: list[bytes] = []
    page.route("**/upload", lambda route: (sent.append(route.request.post_data_buffer), route.continue_()))
    load(page, photo)
    stroke(page, (12, 12), (18, 20), width=32, height=32)
    fill(page, 2)
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "face-filled.jpg"
    marks = sent[-1].partition(b"\r\n\r\n")[2]
    hole = np.asarray(Image.open(io.BytesIO(marks)))[..., 3] > 127
    mask = save(tmp_path / "hole.png", np.where(hole, 255, 0))
    output = tmp_path / "out.jpg"
    words = ["--weights", encoder_weights_file, "--device", "cpu", "--aligned", "--mask", mask, "--output", output]
    assert main([str(word) for word in [*words, photo]]) == 0
    assert Path(download.value.path()).read_bytes() == output.read_bytes()


def test_three_fills_change_nothing_but_what_was_painted(
    visit: Callable[..., Any], astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    photo = save(tmp_path / "astronaut.png", astronaut[:300, 60:360])
    page = visit()
    load(page, photo)
    says(page, "1 face.")
    page.get_by_role("button", name="Mouth").click()
    fill(page, 2)
    first = _saved(page)
    page.get_by_role("button", name="Left eye").click()
    fill(page, 3)
    stroke(page, (20, 280), width=300, height=300)
    fill(page, 4)
    says(page, "No face lies there. It was filled from what is around it.")
    last, before = _saved(page), pixels(photo)
    changed = (last != before).any(axis=2)
    mouth = (first != before).any(axis=2)
    assert mouth.any() and np.array_equal(last[mouth], first[mouth])
    assert mouth.sum() < changed.sum() < 0.2 * changed.size
    assert not changed[40:70].any()  # the forehead


def _saved(page: Any) -> NDArray[np.uint8]:
    with page.expect_download() as download:
        page.locator("#save").click()
    return pixels(download.value.path())


def test_explore_shows_generated_faces(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#help").click()
    page.locator("#explore").click()
    page.get_by_role("button", name="Generate faces").click()
    page.locator(".thumbnail-item img").nth(15).wait_for()
