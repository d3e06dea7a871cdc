"""The tab Complete: paint a hole on a photo and see it filled; and the same for programs."""

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
from ui.handlers import ALONE, QUIET, calmly, calmly_each, loaded, plain, refusal, whole
from ui.service import HOLE_COLOUR, HOLES, Filled, Service, ServiceError, Settings

_METHODS = [
    ("Fast: one pass, the sharpest", "fast"),
    ("Thorough: looks at the mirrored face, too; nearer to the truth, a little softer", "thorough"),
    ("Search: watch G look for the face, a few seconds", "search"),
    ("Paper: Yeh et al. 2017, half a minute a face", "paper"),
    ("Bamos: dcgan-completion.tensorflow, half a minute a face", "bamos"),
]
_BLENDS = [("Poisson: colours flow in from the rim", "poisson"), ("Soft edge", "alpha"), ("None", "none")]
_FIRST = "Load a photo, or try an example face; then paint over what is missing, and press **Complete**."


def complete_tab(service: Service) -> None:
    """Build the tab."""
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
                another = gr.Button("Another photo", size="sm", visible=False, elem_id="another")
            with gr.Column(visible=False) as tools:
                with gr.Row():
                    named = gr.Dropdown(
                        [("none", ""), *((name, name) for name in HOLES)],
                        value="",
                        label="Or take a hole by name",
                        min_width=160,
                        elem_id="named",
                    )
                    every = gr.Checkbox(label="in every face", min_width=160, elem_id="every")
                with gr.Row():
                    mask = gr.UploadButton(
                        "Upload a mask (white = fill)", file_types=["image"], size="sm", elem_id="mask"
                    )
                    inverted = gr.Button("Invert the hole", size="sm", elem_id="invert")
            with gr.Row():
                complete = gr.Button("Complete", variant="primary", min_width=100, elem_id="complete")
                again = gr.Button("New seed", min_width=100, elem_id="again")
                stop = gr.Button("Stop", variant="stop", min_width=100, elem_id="stop")
            status = gr.Markdown(_FIRST, elem_id="status")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                solver = gr.Radio(_METHODS, value="fast", label="Quality", elem_id="solver")
                with gr.Row():
                    candidates = gr.Slider(
                        1, 8, value=4, step=1, label="Candidates to choose from", min_width=160, elem_id="candidates"
                    )
                    seed = gr.Number(
                        0, precision=0, minimum=0, label="Seed, for other candidates", min_width=160, elem_id="seed"
                    )
                blend = gr.Radio(_BLENDS, value="poisson", label="Blending", elem_id="blend")
                as_png = gr.Checkbox(
                    label="Save as PNG",
                    info="Keeps every known pixel exactly; else the photo's own format.",
                    elem_id="as_png",
                )
                with gr.Accordion("Advanced", open=False):
                    weight = gr.Number(
                        None,
                        minimum=0,
                        label="Perceptual weight",
                        info="How much it minds what D takes for real; empty for the method's own.",
                        elem_id="weight",
                    )
        with gr.Column():
            growing = gr.Image(label="3. The completion", format="jpeg", buttons=["fullscreen"], elem_id="growing")
            slider = gr.ImageSlider(
                label="3. Before and after: drag the line",
                format="png",
                buttons=["fullscreen"],
                slider_position=15,
                visible=False,
                elem_id="slider",
            )
            gallery = gr.Gallery(
                label="4. Choose one",
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
                label="All files: completions in the photo's size, and the hole",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )

    def opened(path: dict[str, Any] | None) -> Any:
        if path is None:
            return {status: gr.skip()}
        try:
            return show(Path(path["path"]))
        except PhotoError as error:
            return closed() | {status: refusal(error)}

    def show(path: Path) -> dict[Any, Any]:
        shown, faces = service.load(path)
        found = "No face was found" if not faces else "1 face was found" if faces == 1 else f"{faces} faces were found"
        what = (
            f"{found} (outlined). Paint over what is missing, then press Complete."
            if faces
            else f"{found}. Paint over what is missing of the face: perhaps it is found once it is not in the way."
        )
        return {
            photo: gr.update(value=str(path), visible=False),
            editor: gr.update(value=_on_editor(shown), canvas_size=shown.shape[1::-1], visible=True),
            another: gr.update(visible=True),
            tools: gr.update(visible=True),
            named: "",
            status: what,
        }

    def shown_example(seed: int) -> Iterator[dict[Any, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "example.png")
            write_photo(path, service.example(seed))
            yield show(path) | {next_example: seed + 1}

    def closed() -> dict[Any, Any]:
        return {
            photo: gr.update(value=None, visible=True),
            editor: gr.update(value=None, visible=False),
            another: gr.update(visible=False),
            tools: gr.update(visible=False),
            named: "",
            status: _FIRST,
        }

    def drawn(path: dict[str, Any] | None, value: dict[str, Any] | None, **hole: Any) -> dict[str, Any]:
        """The editor with another hole on the same background."""
        shown = _background(value)
        return _on_editor(shown, service.drawing(service.hole(loaded(path), **hole)))

    def by_name(path: dict[str, Any] | None, value: dict[str, Any] | None, name: str, every: bool) -> Any:
        return drawn(path, value, named=name, every=every) if name and path else gr.skip()

    def by_mask(path: dict[str, Any] | None, value: dict[str, Any] | None, file: dict[str, Any]) -> Any:
        return drawn(path, value, mask=Path(file["path"]))

    def invert(path: dict[str, Any] | None, value: dict[str, Any] | None) -> Any:
        hole = service.hole(loaded(path), drawn=_layers(value))
        return _on_editor(_background(value), service.drawing(~hole))

    def fill(*inputs: Any) -> Iterator[dict[Any, Any]]:
        try:
            yield from filling(*inputs)
        except InputError as error:
            yield {status: refusal(error)}

    def filling(path: Any, value: Any, *chosen: Any) -> Iterator[dict[Any, Any]]:
        file = loaded(path)
        solver, candidates, blend, seed, weight, as_png = chosen
        settings = Settings(solver, whole(candidates), blend, whole(seed), weight, bool(as_png))
        hole = service.hole(file, drawn=_layers(value))
        if not hole.any():
            raise ServiceError("Nothing is painted over yet: take the brush and paint over what is missing.")
        yield {
            growing: gr.update(visible=True),
            **{component: gr.update(visible=False) for component in (slider, gallery, download, files)},
            status: "Looking for the face ...",
        }
        with tempfile.TemporaryDirectory() as folder:
            for item in service.complete(file, hole, settings, Path(folder), _stem(path)):
                if not isinstance(item, Filled):
                    yield {growing: item, status: "Filling ..."}
                    continue
                several = len(item.cuts) > 1
                after = service.shown(item.completions[0])
                written = [str(path) for path in [*item.completions, *item.files]]
                yield {
                    growing: gr.update(value=after, visible=False),
                    slider: gr.update(value=(item.before, after), visible=True),
                    gallery: gr.update(value=item.cuts, visible=several, selected_index=0),
                    download: gr.update(value=str(item.completions[0]), visible=True),
                    files: gr.update(value=written, visible=True),
                    status: _told(item, several),
                }

    def chosen(event: gr.SelectData, pair: Any, written: Any) -> dict[Any, Any]:
        """Show a candidate, and let it be downloaded."""
        file = written[event.index]["path"]
        return {slider: (pair[0]["path"], service.shown(Path(file))), download: file}

    shown = [photo, editor, another, tools, named, status]
    photo.input(opened, photo, shown, preprocess=False, **QUIET, **ALONE)
    next_example = gr.State(0)
    # The editor keeps the frame of its first picture until it is taken down.
    emptied = example.click(closed, None, shown, queue=False, **QUIET)
    emptied.then(calmly_each(shown_example), next_example, [*shown, next_example], **QUIET, **ALONE)
    another.click(closed, None, shown, queue=False, **QUIET)
    for changed in (named.input, every.input):
        changed(
            calmly(by_name),
            [photo, editor, named, every],
            editor,
            preprocess=False,
            **QUIET,
            **ALONE,
        )
    mask.upload(calmly(by_mask), [photo, editor, mask], editor, preprocess=False, **QUIET, **ALONE)
    inverted.click(calmly(invert), [photo, editor], editor, preprocess=False, **QUIET, **ALONE)
    result = [growing, slider, gallery, download, files, status]
    settings = [solver, candidates, blend, seed, weight, as_png]
    run: dict[str, Any] = {
        "fn": fill,
        "inputs": [photo, editor, *settings],
        "outputs": result,
        "preprocess": False,
        **QUIET,
        "show_progress": "hidden",
        "scroll_to_output": True,
        **ALONE,
    }
    first = complete.click(**run)
    second = again.click(lambda seed: (seed or 0) + 1, seed, seed, queue=False, **QUIET).then(**run)
    stop.click(lambda: "Stopped.", None, status, cancels=[first, second], queue=False, **QUIET)
    gallery.select(calmly(chosen), [slider, files], [slider, download], preprocess=False, **QUIET, **ALONE)
    _add_api(service)


def _add_api(service: Service) -> None:
    """The same for programs, without the steps in between."""

    def complete(
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
        """Fill a hole in a photo: give a mask file (white = fill), or the name of a hole."""
        path = loaded(photo)
        settings = Settings(solver, whole(candidates), blend, whole(seed), weight, as_png)
        hole = service.hole(path, mask=Path(mask_file)) if mask_file else mask
        with tempfile.TemporaryDirectory() as folder:
            for item in service.complete(path, hole, settings, Path(folder), path.stem):
                # Between the steps it ends if the client has gone.
                yield [str(file) for file in item.completions] if isinstance(item, Filled) else None

    with gr.Group(visible=False):
        inputs = [
            gr.File(label="photo"),
            gr.Textbox("center", label=f"hole by name, if there is no mask file: {', '.join(HOLES)}"),
            gr.File(label="mask file, white = fill"),
            gr.Textbox("fast", label="fast, thorough, search, encoder, paper or bamos"),
            gr.Number(1, label="how many completions, from 1 to 8"),
            gr.Textbox("poisson", label="poisson, alpha or none"),
            gr.Number(0, label="seed"),
            gr.Number(None, label="weight of the perceptual loss; none for the method's own"),
            gr.Checkbox(True, label="write PNG, in which known pixels keep their exact values"),
        ]
        output = gr.File(label="completions, the best first", file_count="multiple")
        gr.Button().click(calmly_each(complete), inputs, output, api_name="complete", **ALONE)


def _told(filled: Filled, several: bool) -> str:
    notes = "".join(f"\n* {plain(note[:1].upper() + note[1:])}." for note in filled.notes)
    choose = " Choose the one that fits best; " if several else " Drag the line to compare; "
    return f"Done in {filled.seconds:.1f} s.{choose}then download it, or paint on and complete again.{notes}"


def _on_editor(shown: NDArray[np.uint8], layer: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    return {"background": shown, "layers": [] if layer is None else [layer], "composite": None}


def _background(value: dict[str, Any] | None) -> NDArray[np.uint8]:
    """The picture under the drawing: ours, so that it need not be looked into; only its size is."""
    if not value or not value.get("background"):
        raise ServiceError("There is no photo yet: load one, or try an example face.")
    return read_photo(Path(value["background"]["path"])).pixels


def _layers(value: dict[str, Any] | None) -> list[Path]:
    return [Path(layer["path"]) for layer in (value or {}).get("layers") or []]


def _stem(photo: dict[str, Any]) -> str:
    """Name of the photo for the files that come of it."""
    return re.sub(r"[^\w-]+", "-", Path(photo.get("orig_name") or photo["path"]).stem)[:80] or "photo"
