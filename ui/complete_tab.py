"""The tab Complete: paint a hole on a photo and fill it; and the same for programs, as the endpoint /complete."""

import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from align.errors import InputError, PhotoError
from align.photo import read_photo, write_photo
from ui.handlers import ONE_AT_A_TIME, PRIVATE, TAKING_TURNS, escape, photo_path, show_errors, to_int, visitor, warn
from ui.service import HOLE_COLOUR, HOLES, Filled, Service, ServiceError, Settings, Upload, shown
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
    running: set[str | None] = set()  # sessions of the pages that complete a photo
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                label="1. Your photo: drop it here, paste it, or take one",
                sources=["upload", "clipboard", "webcam"],
                buttons=[],
                height=420,
                elem_id="photo",
            )
            editor = gr.ImageEditor(
                label="2. Paint over what is missing",
                format="png",
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(colors=["#{:02x}{:02x}{:02x}".format(*HOLE_COLOUR)], color_mode="fixed"),
                buttons=[],
                height=520,
                visible=False,
                elem_id="editor",
            )
            with gr.Row():
                example = gr.Button("Try an example face", size="sm", elem_id="example")
                another = gr.Button("Choose another photo", size="sm", visible=False, elem_id="another")
            with gr.Column(visible=False) as tools:
                with gr.Row():
                    named = gr.Dropdown(
                        [("none", ""), *((name, name) for name in HOLES)],
                        value="",
                        label="Or choose a hole by name",
                        min_width=160,
                        elem_id="named",
                    )
                    every = gr.Checkbox(label="In every face", min_width=160, elem_id="every")
                with gr.Row():
                    mask = gr.UploadButton(
                        "Upload a mask (white = fill)", file_types=["image"], size="sm", elem_id="mask"
                    )
                    invert = gr.Button("Invert the hole", size="sm", elem_id="invert")
            with gr.Row():
                complete = gr.Button("Complete", variant="primary", min_width=100, elem_id="complete")
                again = gr.Button("New seed", min_width=100, elem_id="again")
                stop = gr.Button("Stop", variant="stop", min_width=100, elem_id="stop")
            status = gr.Markdown(_FIRST_STEP, elem_id="status")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
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
        with gr.Column():
            preview = gr.Image(label="3. The completion", format="jpeg", buttons=["fullscreen"], elem_id="preview")
            slider = gr.ImageSlider(
                label="3. Before and after: drag the line",
                format="png",
                buttons=["fullscreen"],
                slider_position=15,
                visible=False,
                elem_id="slider",
            )
            gallery = gr.Gallery(
                label="4. Choose a candidate",
                format="png",
                columns=4,
                height="auto",
                allow_preview=False,
                object_fit="contain",
                buttons=[],
                visible=False,
                elem_id="gallery",
            )
            download = gr.DownloadButton("Download", visible=False, elem_id="download")
            files = gr.File(
                label="All files: the completions in the photo's size, and the hole",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )

    def open_photo(path: dict[str, Any] | None) -> Any:
        if path is None:
            return {status: gr.skip()}
        try:
            return show_photo(photo_path(path))
        except PhotoError as error:
            return close_photo() | {status: warn(error)}

    def show_photo(path: Path) -> dict[Any, Any]:
        outlined, faces = service.outline(service.read(path))
        if faces:
            found = "1 face was found" if faces == 1 else f"{faces} faces were found"
            next_step = f"{found} (outlined). Paint over what is missing, then press **Complete**."
        else:
            next_step = "No face was found. Paint over what covers it: the rest of the face may be recognised."
        return {
            photo: gr.update(value=str(path), visible=False),
            editor: gr.update(value=_on_editor(outlined), canvas_size=outlined.shape[1::-1], visible=True),
            another: gr.update(visible=True),
            tools: gr.update(visible=True),
            named: "",
            status: next_step,
        }

    def show_example(seed: int) -> Iterator[dict[Any, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "example.png")
            write_photo(path, service.example(seed))
            yield show_photo(path) | {next_example: seed + 1}

    def close_photo() -> dict[Any, Any]:
        return {
            photo: gr.update(value=None, visible=True),
            editor: gr.update(value=None, visible=False),
            another: gr.update(visible=False),
            tools: gr.update(visible=False),
            named: "",
            status: _FIRST_STEP,
        }

    def draw_hole(path: dict[str, Any] | None, value: dict[str, Any] | None, **source: Any) -> dict[str, Any]:
        """The editor with another hole on the same background."""
        hole = service.hole(service.read(photo_path(path)), **source)
        return _on_editor(_background(value), service.drawing(hole))

    def draw_name(path: dict[str, Any] | None, value: dict[str, Any] | None, name: str, every: bool) -> Any:
        return draw_hole(path, value, named=name, every=every) if name and path else gr.skip()

    def draw_mask(path: dict[str, Any] | None, value: dict[str, Any] | None, file: dict[str, Any]) -> Any:
        return draw_hole(path, value, mask=Path(file["path"]))

    def draw_inverted(path: dict[str, Any] | None, value: dict[str, Any] | None) -> Any:
        hole = service.hole(service.read(photo_path(path)), drawn=_layers(value))
        return _on_editor(_background(value), service.drawing(~hole))

    def fill(request: gr.Request, *inputs: Any) -> Iterator[dict[Any, Any]]:
        if request.session_hash in running:  # a double click
            yield {status: gr.skip()}
            return
        running.add(request.session_hash)
        try:
            yield from fill_hole(visitor(request), *inputs)
        except InputError as error:
            yield {status: warn(error)}
        finally:
            running.discard(request.session_hash)

    def fill_hole(
        who: str, path: Any, value: Any, solver: str, candidates: Any, blend: str, seed: Any, weight: Any, as_png: Any
    ) -> Iterator[dict[Any, Any]]:
        settings = Settings(solver, to_int(candidates), blend, to_int(seed), weight, bool(as_png))
        upload = _read(service, path)
        hole = service.hole(upload, drawn=_layers(value))
        if not hole.any():
            raise ServiceError("Nothing is painted over yet. Take the brush and paint over what is missing.")
        yield {
            preview: gr.update(visible=True),
            **{component: gr.update(visible=False) for component in (slider, gallery, download, files)},
        }
        large = service.is_large(upload, settings)
        with turns.ticket(who, large) as ticket, tempfile.TemporaryDirectory() as folder:
            for place in turns.places(ticket):
                yield {status: _waiting(place)}
            yield {status: "Looking for the face ..."}
            for item in service.complete(upload, hole, settings, Path(folder)):
                if not isinstance(item, Filled):
                    yield {preview: item.picture, status: f"Filling the hole: {item.share:.0%} ..."}
                    continue
                several = len(item.completions) > 1
                written = [str(path) for path in [*item.completions, *item.files]]
                yield {
                    preview: gr.update(value=item.after, visible=False),
                    slider: gr.update(value=(item.before, item.after), visible=True),
                    gallery: gr.update(value=item.crops, visible=several, selected_index=0),
                    download: gr.update(value=written[0], visible=True),
                    files: gr.update(value=written, visible=True),
                    status: _summary(item, several),
                }

    def choose_candidate(event: gr.SelectData, pair: Any, written: Any) -> dict[Any, Any]:
        """Show a candidate and offer it for download."""
        file = written[event.index]["path"]
        return {slider: (pair[0]["path"], shown(service.read(Path(file)).pixels)), download: file}

    unprocessed: dict[str, Any] = {"preprocess": False, **PRIVATE, **ONE_AT_A_TIME}
    opened = [photo, editor, another, tools, named, status]
    photo.input(open_photo, photo, opened, **unprocessed)
    next_example = gr.State(0)
    # The editor keeps the frame of its first picture until it is taken down.
    closed = example.click(close_photo, None, opened, queue=False, **PRIVATE)
    closed.then(show_errors(show_example), next_example, [*opened, next_example], **PRIVATE, **ONE_AT_A_TIME)
    another.click(close_photo, None, opened, queue=False, **PRIVATE)
    for changed in (named.input, every.input):
        changed(show_errors(draw_name), [photo, editor, named, every], editor, **unprocessed)
    mask.upload(show_errors(draw_mask), [photo, editor, mask], editor, **unprocessed)
    invert.click(show_errors(draw_inverted), [photo, editor], editor, **unprocessed)
    run: dict[str, Any] = {
        "fn": fill,
        "inputs": [photo, editor, solver, candidates, blend, seed, weight, as_png],
        "outputs": [preview, slider, gallery, download, files, status],
        "show_progress": "hidden",
        "scroll_to_output": True,
        **unprocessed,
        **TAKING_TURNS,
    }
    first = complete.click(**run)
    second = again.click(lambda seed: (seed or 0) + 1, seed, seed, queue=False, **PRIVATE).then(**run)
    stop.click(lambda: "Stopped.", None, status, cancels=[first, second], queue=False, **PRIVATE)
    gallery.select(show_errors(choose_candidate), [slider, files], [slider, download], **unprocessed)
    _add_endpoint(service, turns)


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


def _summary(filled: Filled, several: bool) -> str:
    notes = "".join(f"\n* {escape(note[:1].upper() + note[1:])}." for note in filled.notes)
    choose = "Choose the candidate that fits best" if several else "Drag the line to compare"
    return f"Done in {filled.seconds:.1f} s. {choose}, then download it or paint on and complete again.{notes}"


def _on_editor(background: NDArray[np.uint8], layer: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    return {"background": background, "layers": [] if layer is None else [layer], "composite": None}


def _background(value: dict[str, Any] | None) -> NDArray[np.uint8]:
    """The picture under the drawing: the photo in page size with its outlined faces."""
    return read_photo(photo_path((value or {}).get("background"))).pixels


def _layers(value: dict[str, Any] | None) -> list[Path]:
    return [Path(layer["path"]) for layer in (value or {}).get("layers") or []]


def _read(service: Service, photo: dict[str, Any] | str | None) -> Upload:
    """Decode a photo; files made from it are named like the visitor's own file."""
    path = photo_path(photo)
    name = photo.get("orig_name") if isinstance(photo, dict) else None
    return service.read(path, re.sub(r"[^\w-]+", "-", Path(name or path).stem)[:80] or "photo")
