"""The tab Complete: paint a hole on a photo and fill it; and the same for programs, as the endpoint /complete."""

import base64
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import FileData
from numpy.typing import NDArray

from align.errors import InputError, NoFaceError, PhotoError
from align.photo import write_photo
from ui.component import component, data_url, order
from ui.handlers import ONE_AT_A_TIME, PRIVATE, TAKING_TURNS, escape, failed, photo_path, show_errors, to_int, visitor
from ui.service import HOLES, Filled, Service, ServiceError, Settings, Upload, shown
from ui.turns import Place, Turns

_SOLVERS = [
    ("Fast: one pass of the encoder, the sharpest result", "fast"),
    ("Thorough: averages the face and its mirror image, closer to the original but a little softer", "thorough"),
    ("Search: watch the generator approach the face, a few seconds", "search"),
    ("Paper: the search of Yeh et al. 2017, half a minute a face", "paper"),
    ("Bamos: the search of dcgan-completion.tensorflow, half a minute a face", "bamos"),
]
_BLENDS = [("Poisson: matches the colours at the edge", "poisson"), ("Soft edge", "alpha"), ("None", "none")]
_FIRST_STEP = "Load a photo, or try an example face. Then paint over what is missing and press **Complete**."


def complete_tab(service: Service, turns: Turns) -> None:
    """Build the tab."""
    running: dict[str | None, object] = {}  # sessions of the pages that complete a photo, each with its run
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                label="1. Your photo: drop it here, paste it, or take one",
                sources=["upload", "clipboard", "webcam"],
                buttons=[],
                height=380,
                elem_id="photo",
            )
            editor = component("editor")
            with gr.Row(elem_id="go"):
                complete = gr.Button("Complete", variant="primary", min_width=90, elem_id="complete")
                again = gr.Button("New seed", min_width=80, elem_id="again")
                stop = gr.Button("Stop", variant="stop", min_width=60, visible=False, elem_id="stop")
                example = gr.Button("Example", min_width=90, elem_id="example")
                another = gr.Button("New photo", min_width=80, visible=False, elem_id="another")
            status = gr.Markdown(_FIRST_STEP, elem_id="status")
            with gr.Row(visible=False) as tools:
                named = gr.Dropdown(
                    list(HOLES), value=None, label="A hole by name", min_width=130, interactive=True, elem_id="named"
                )
                with gr.Column(min_width=150):
                    add = gr.Checkbox(label="Add to the hole", container=False, elem_id="add")
                    every = gr.Checkbox(label="In every face", container=False, elem_id="every")
                mask = gr.UploadButton("Upload a mask", file_types=["image"], size="sm", min_width=110, elem_id="mask")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                inputs = _settings()
        with gr.Column():
            result = component("result")

    def open_photo(path: dict[str, Any] | None) -> Any:
        if path is None:
            return {status: gr.skip()}
        try:
            return show_photo(photo_path(path))
        except PhotoError as error:
            return close_photo() | {status: failed(error)}

    def show_photo(path: Path) -> dict[Any, Any]:
        """The page with a new photo and nothing of the last one."""
        upload = service.read(path)
        faces = service.faces(upload)
        picture = shown(upload.pixels)
        size = picture.shape[1::-1]
        return {
            photo: gr.update(value=str(path), visible=False),
            editor: order(photo=data_url(picture), size=size, faces=service.corners(upload, faces)),
            another: gr.update(visible=True),
            tools: gr.update(visible=True),
            result: None,
            status: _found(len(faces)),
        }

    def show_example(seed: int) -> Iterator[dict[Any, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "example.png")
            write_photo(path, service.example(seed))
            yield show_photo(path) | {next_example: seed + 1}

    def close_photo() -> dict[Any, Any]:
        return {
            photo: gr.update(value=None, visible=True),
            editor: order(photo=None),
            another: gr.update(visible=False),
            tools: gr.update(visible=False),
            result: None,
            status: _FIRST_STEP,
        }

    def mark_face(path: Any, value: Any) -> dict[Any, Any]:
        upload = _read(service, path)
        try:
            faces = service.faces(upload, _eyes(value))
        except NoFaceError as error:
            raise ServiceError(str(error)) from error
        return {editor: order(faces=service.corners(upload, faces)), status: _found(len(faces))}

    def draw_name(event: gr.SelectData, path: Any, value: Any, every: bool, add: bool) -> dict[Any, Any]:
        upload = _read(service, path)
        faces = service.faces(upload, _eyes(value)) if _eyes(value) else None
        hole = service.hole(upload, named=str(event.value), every=every, faces=faces)
        return {editor: order(hole=data_url(service.drawing(hole)), add=add), named: None}

    def draw_mask(path: Any, file: dict[str, Any], add: bool) -> dict[Any, Any]:
        upload = _read(service, path)
        hole, note = service.mask(upload, Path(file["path"]))
        drawn = order(hole=data_url(service.drawing(hole)), add=add)
        return {editor: drawn, status: f"{escape(note)}." if note else "The mask is the hole now."}

    def fill(request: gr.Request, *inputs: Any) -> Iterator[dict[Any, Any]]:
        if request.session_hash in running:  # a double click
            yield {status: gr.skip()}
            return
        run = running[request.session_hash] = object()
        try:
            yield from fill_hole(visitor(request), *inputs)
        except InputError as error:
            yield {status: failed(error), stop: gr.update(visible=False)}
        finally:
            if running.get(request.session_hash) is run:
                del running[request.session_hash]

    def stop_run(request: gr.Request) -> dict[Any, Any]:
        running.pop(request.session_hash, None)  # its last step may take a while, and the next run need not wait
        return {status: "Stopped.", stop: gr.update(visible=False)}

    def fill_hole(
        who: str, path: Any, value: Any, solver: str, candidates: Any, blend: str, seed: Any, weight: Any, as_png: Any
    ) -> Iterator[dict[Any, Any]]:
        settings = Settings(solver, to_int(candidates), blend, to_int(seed), weight, bool(as_png))
        upload = _read(service, path)
        hole = service.hole(upload, drawn=_drawn(value))
        if not hole.any():
            raise ServiceError("Nothing is painted over yet. Take the brush and paint over what is missing.")
        large = service.is_large(upload, settings)
        with turns.ticket(who, large) as ticket, tempfile.TemporaryDirectory() as folder:
            yield {stop: gr.update(visible=True)}
            for place in turns.places(ticket):
                yield {status: _waiting(place)}
            yield {status: "Looking for the face ..."}
            faces = service.faces(upload, _eyes(value)) if _eyes(value) else None
            for item in service.complete(upload, hole, settings, Path(folder), faces):
                if isinstance(item, Filled):
                    shown_files = _files_of(item, Path(folder))
                    yield {result: shown_files, status: _summary(item), stop: gr.update(visible=False)}
                else:
                    preview = {"preview": data_url(item.picture)}
                    yield {result: preview, status: f"Filling the hole: {item.share:.0%} ..."}

    unprocessed: dict[str, Any] = {"preprocess": False, **PRIVATE, **ONE_AT_A_TIME}
    opened = [photo, editor, another, tools, result, status]
    photo.input(open_photo, photo, opened, **unprocessed)
    next_example = gr.State(0)
    example.click(show_errors(show_example), next_example, [*opened, next_example], **PRIVATE, **ONE_AT_A_TIME)
    another.click(close_photo, None, opened, queue=False, **PRIVATE)
    editor.marked(show_errors(mark_face), [photo, editor], [editor, status], **unprocessed)
    named.select(show_errors(draw_name), [photo, editor, every, add], [editor, named], **unprocessed)
    mask.upload(show_errors(draw_mask), [photo, mask, add], [editor, status], **unprocessed)
    run: dict[str, Any] = {
        "fn": fill,
        "inputs": [photo, editor, *inputs],
        "outputs": [result, status, stop],
        "show_progress": "hidden",
        **unprocessed,
        **TAKING_TURNS,
    }
    first = complete.click(**run)
    seed = inputs[3]
    second = again.click(lambda seed: (seed or 0) + 1, seed, seed, queue=False, **PRIVATE).then(**run)
    stop.click(stop_run, None, [status, stop], cancels=[first, second], queue=False, **PRIVATE)
    _add_endpoint(service, turns)


def _settings() -> list[Any]:
    """The settings of a completion: solver, candidates, blend, seed, prior weight, PNG."""
    solver = gr.Radio(_SOLVERS, value="fast", label="Quality", elem_id="solver")
    with gr.Row():
        candidates = gr.Slider(
            1, 8, value=4, step=1, label="Candidates to choose from", min_width=160, elem_id="candidates"
        )
        seed = gr.Number(
            0,
            precision=0,
            minimum=0,
            label="Seed: another seed gives other candidates",
            min_width=160,
            elem_id="seed",
        )
    blend = gr.Radio(_BLENDS, value="poisson", label="Blending", elem_id="blend")
    as_png = gr.Checkbox(
        label="Save as PNG",
        info="Keeps every pixel outside the hole exactly. Otherwise the photo's own format is used.",
        elem_id="as_png",
    )
    with gr.Accordion("Advanced", open=False):
        weight = gr.Number(
            None,
            minimum=0,
            label="Prior weight",
            info="Weight of the discriminator's loss. Leave it empty for the default of the method.",
            elem_id="weight",
        )
    return [solver, candidates, blend, seed, weight, as_png]


def _add_endpoint(service: Service, turns: Turns) -> None:
    """Add /complete, which fills a hole in a single request."""

    def complete(
        request: gr.Request,
        photo: str,
        mask: str = "center",
        mask_file: str | None = None,
        solver: str = "fast",
        candidates: float = 1,
        blend: str = "poisson",
        seed: float = 0,
        weight: float | None = None,
        as_png: bool = True,
    ) -> Iterator[list[str] | None]:
        """Fill a hole in a photo. Give a mask file (white = fill) or the name of a hole."""
        settings = Settings(solver, to_int(candidates), blend, to_int(seed), weight, as_png)
        upload = _read(service, photo)
        hole = service.hole(upload, mask=Path(mask_file)) if mask_file else mask
        large = service.is_large(upload, settings)
        # If the client has gone, Gradio ends the work at a yield.
        with turns.ticket(visitor(request), large) as ticket, tempfile.TemporaryDirectory() as folder:
            for _ in turns.places(ticket):
                yield None
            for item in service.complete(upload, hole, settings, Path(folder)):
                yield [str(file) for file in item.completions] if isinstance(item, Filled) else None

    with gr.Group(visible=False):
        inputs = [
            gr.File(label="photo"),
            gr.Textbox("center", label=f"name of the hole, used without a mask file: {', '.join(HOLES)}"),
            gr.File(label="mask file, white = fill"),
            gr.Textbox("fast", label="solver: fast, thorough, search, encoder, paper or bamos"),
            gr.Number(1, label="number of different completions, 1 to 8"),
            gr.Textbox("poisson", label="blending: poisson, alpha or none"),
            gr.Number(0, label="seed of the search"),
            gr.Number(None, label="weight of the prior (discriminator) loss; none for the solver's default"),
            gr.Checkbox(True, label="write PNG, which keeps every pixel outside the hole exactly"),
        ]
        output = gr.File(label="completions, the best first", file_count="multiple")
        gr.Button().click(show_errors(complete), inputs, output, api_name="complete", **TAKING_TURNS)


def _waiting(place: Place) -> str:
    ahead = "1 request is" if place.ahead == 1 else f"{place.ahead} requests are"
    return f"Waiting: {ahead} before yours, about {math.ceil(place.seconds)} s."


def _found(faces: int) -> str:
    if not faces:
        return "No face was found. Press **Face** and click both eyes, or paint over what covers the face."
    found = "1 face was found" if faces == 1 else f"{faces} faces were found"
    return f"{found} (outlined). Paint over what is missing, then press **Complete**."


def _summary(filled: Filled) -> str:
    notes = "".join(f"\n* {escape(note[:1].upper() + note[1:])}." for note in filled.notes)
    choose = "Choose the candidate that fits best" if len(filled.completions) > 1 else "Drag the line to compare"
    return f"Done in {filled.seconds:.1f} s. {choose}, then download it or paint on and complete again.{notes}"


def _files_of(filled: Filled, folder: Path) -> dict[str, Any]:
    """What the component "result" shows."""

    def on_page(name: str, pictures: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        paths = [folder / f"{name}-{number}.jpg" for number in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            write_photo(path, picture)
        return [FileData(path=str(path)).model_dump() for path in paths]

    return {
        "before": on_page("before", [filled.before])[0],
        "afters": on_page("after", filled.afters),
        "crops": on_page("crop", filled.crops),
        "files": [
            FileData(path=str(path), orig_name=path.name).model_dump() for path in (*filled.completions, *filled.files)
        ],
    }


def _drawn(value: dict[str, Any] | None) -> bytes:
    """The drawing of the editor, as PNG."""
    _, _, text = str((value or {}).get("hole") or "").partition("base64,")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ServiceError("the drawing cannot be read; load the page again") from error


def _eyes(value: dict[str, Any] | None) -> Any:
    return (value or {}).get("eyes") or ()


def _read(service: Service, photo: dict[str, Any] | str | None) -> Upload:
    """Decode a photo; files made from it are named like the visitor's own file."""
    path = photo_path(photo)
    name = photo.get("orig_name") if isinstance(photo, dict) else None
    return service.read(path, re.sub(r"[^\w-]+", "-", Path(name or path).stem)[:80] or "photo")
