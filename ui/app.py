"""How the page looks, and what its buttons do."""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.exceptions import ServerFailedToStartError
from gradio.themes import Default
from numpy.typing import NDArray
from starlette.middleware import Middleware

from align.errors import NoFaceError, PhotoError
from align.photo import read_photo, write_photo
from completion.holes import MaskError
from dcgan.checkpoint import WeightsError
from dcgan.dataset import DatasetError
from dcgan.explore.arithmetic import LABELS
from ui.server import Guard
from ui.service import HOLE_COLOUR, HOLES, Filled, Limits, Settings

_TOLD = (PhotoError, MaskError, NoFaceError, WeightsError, DatasetError, DeskError)
_METHODS = [
    ("Fast: one pass, the sharpest", "fast"),
    ("Thorough: looks at the mirrored face, too; nearer to the truth, a little softer", "thorough"),
    ("Search: watch G look for the face, a few seconds", "search"),
    ("Paper: Yeh et al. 2017, half a minute a face", "paper"),
    ("Bamos: dcgan-completion.tensorflow, half a minute a face", "bamos"),
]
_BLENDS = [("Poisson: colours flow in from the rim", "poisson"), ("Soft edge", "alpha"), ("None", "none")]
_FIRST = "Load a photo, or try an example face; then paint over what is missing, and press **Complete**."
_FAILED = "That did not work"
_FACES = 16  # on the sheet of the Explore tab
_ALONE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
_QUIET: dict[str, Any] = {"api_visibility": "private"}
_CSS = """
#sheet .grid-wrap, #gallery .grid-wrap { height: auto !important; max-height: none !important; min-height: 0 }
#sheet .grid-container, #gallery .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important }
.gradio-container { max-width: 1200px !important; width: 100% !important; margin: 0 auto !important }
"""


def build_app(desk: Desk) -> gr.Blocks:
    """The page; give it to `launch`."""
    with gr.Blocks(title="Fill in a face", analytics_enabled=False) as app:
        gr.Markdown(
            "# Fill in a face\nWhat a photo lacks of a face, made up by a network. Photos are kept for an hour at most."
        )
        with gr.Tab("Complete"):
            _completing(desk)
        with gr.Tab("Explore"):
            _exploring(desk)
        with gr.Tab("Batch"):
            _batching(desk)
    app.queue(max_size=desk.limits.waiting, default_concurrency_limit=1, api_open=False)
    return app


def launch(
    app: gr.Blocks,
    limits: Limits,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    root_path: str = "",
    in_browser: bool = False,
) -> dict[str, Any]:
    """Serve the page from a thread of its own.

    Args:
        app: of build_app.
        limits: of uploads.
        host: address to listen on.
        port: to listen on; None for one that is free.
        auth: name and password to ask for.
        root_path: where a reverse proxy shows the page.
        in_browser: open it.
    Returns:
        the state of the Guard, for ui.server.drained.
    Raises:
        OSError: the port is taken.
    """
    state: dict[str, Any] = {"requests": 0, "closing": False}
    guard = Middleware(Guard, upload_bytes=4 * limits.file_bytes, state=state)
    try:
        app.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            root_path=root_path,
            inbrowser=in_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=limits.file_bytes,
            footer_links=["api", "settings"],
            app_kwargs={"middleware": [guard]},
            theme=Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=_CSS,
        )
    except OSError as error:
        raise OSError(
            f"port {port} at {host} is taken, or not this machine's; give another --port or --host"
        ) from error
    except ServerFailedToStartError as error:  # Gradio waits for five seconds
        raise OSError("the page did not start in time: the machine is too busy; try again") from error
    return state


def _completing(desk: Desk) -> None:
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
            return [gr.skip()] * 6
        try:
            return show(Path(path["path"]))
        except PhotoError as error:
            return [*closed()[:-1], _refusal(error)]

    def show(path: Path) -> list[Any]:
        shown, faces = desk.load(path)
        found = "No face was found" if not faces else "1 face was found" if faces == 1 else f"{faces} faces were found"
        what = (
            f"{found} (outlined). Paint over what is missing, then press Complete."
            if faces
            else f"{found}. Paint over what is missing of the face: perhaps it is found once it is not in the way."
        )
        return [
            gr.update(value=str(path), visible=False),
            gr.update(value=_on_editor(shown), canvas_size=shown.shape[1::-1], visible=True),
            gr.update(visible=True),
            gr.update(visible=True),
            "",
            what,
        ]

    def shown_example(seed: int) -> Iterator[list[Any]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "example.png")
            write_photo(path, desk.example(seed))
            yield [*show(path), seed + 1]

    def closed() -> list[Any]:
        hidden = [gr.update(visible=False)] * 2
        return [gr.update(value=None, visible=True), gr.update(value=None, visible=False), *hidden, "", _FIRST]

    def drawn(path: dict[str, Any] | None, value: dict[str, Any] | None, **hole: Any) -> dict[str, Any]:
        """The editor with another hole on the same background."""
        shown = _background(value)
        return _on_editor(shown, desk.drawing(desk.hole(_loaded(path), **hole)))

    def by_name(path: dict[str, Any] | None, value: dict[str, Any] | None, name: str, every: bool) -> Any:
        return drawn(path, value, named=name, every=every) if name and path else gr.skip()

    def by_mask(path: dict[str, Any] | None, value: dict[str, Any] | None, file: dict[str, Any]) -> Any:
        return drawn(path, value, mask=Path(file["path"]))

    def invert(path: dict[str, Any] | None, value: dict[str, Any] | None) -> Any:
        hole = desk.hole(_loaded(path), drawn=_layers(value))
        return _on_editor(_background(value), desk.drawing(~hole))

    def fill(*inputs: Any) -> Iterator[list[Any]]:
        try:
            yield from filling(*inputs)
        except _TOLD as error:
            yield [*[gr.skip()] * 5, _refusal(error)]

    def filling(path: Any, value: Any, *chosen: Any) -> Iterator[list[Any]]:
        photo = _loaded(path)
        solver, candidates, blend, seed, weight, as_png = chosen
        settings = Settings(solver, _whole(candidates), blend, _whole(seed), weight, bool(as_png))
        hole = desk.hole(photo, drawn=_layers(value))
        if not hole.any():
            raise DeskError("Nothing is painted over yet: take the brush and paint over what is missing.")
        hidden = gr.update(visible=False)
        yield [gr.update(visible=True), hidden, hidden, hidden, hidden, "Looking for the face ..."]
        with tempfile.TemporaryDirectory() as folder:
            for item in desk.complete(photo, hole, settings, Path(folder), _stem(path)):
                if not isinstance(item, Filled):
                    yield [item, *[gr.skip()] * 4, "Filling ..."]
                    continue
                several = len(item.cuts) > 1
                after = desk.shown(item.completions[0])
                yield [
                    gr.update(value=after, visible=False),
                    gr.update(value=(item.before, after), visible=True),
                    gr.update(value=item.cuts, visible=several, selected_index=0),
                    gr.update(value=str(item.completions[0]), visible=True),
                    gr.update(value=[str(file) for file in [*item.completions, *item.files]], visible=True),
                    _told(item, several),
                ]

    def chosen(event: gr.SelectData, pair: Any, files: Any) -> list[Any]:
        """Show a candidate, and let it be downloaded."""
        file = files[event.index]["path"]
        return [(pair[0]["path"], desk.shown(Path(file))), file]

    shown = [photo, editor, another, tools, named, status]
    photo.input(opened, photo, shown, preprocess=False, **_QUIET, **_ALONE)
    next_example = gr.State(0)
    # The editor keeps the frame of its first picture until it is taken down.
    emptied = example.click(closed, None, shown, queue=False, **_QUIET)
    emptied.then(_calmly_each(shown_example), next_example, [*shown, next_example], **_QUIET, **_ALONE)
    another.click(closed, None, shown, queue=False, **_QUIET)
    for changed in (named.input, every.input):
        changed(
            _calmly(by_name),
            [photo, editor, named, every],
            editor,
            preprocess=False,
            **_QUIET,
            **_ALONE,
        )
    mask.upload(_calmly(by_mask), [photo, editor, mask], editor, preprocess=False, **_QUIET, **_ALONE)
    inverted.click(_calmly(invert), [photo, editor], editor, preprocess=False, **_QUIET, **_ALONE)
    result = [growing, slider, gallery, download, files, status]
    settings = [solver, candidates, blend, seed, weight, as_png]
    run: dict[str, Any] = {
        "fn": fill,
        "inputs": [photo, editor, *settings],
        "outputs": result,
        "preprocess": False,
        **_QUIET,
        "show_progress": "hidden",
        "scroll_to_output": True,
        **_ALONE,
    }
    first = complete.click(**run)
    second = again.click(lambda seed: (seed or 0) + 1, seed, seed, queue=False, **_QUIET).then(**run)
    stop.click(lambda: "Stopped.", None, status, cancels=[first, second], queue=False, **_QUIET)
    gallery.select(_calmly(chosen), [slider, files], [slider, download], preprocess=False, **_QUIET, **_ALONE)
    _completing_api(desk)


def _completing_api(desk: Desk) -> None:
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
        path = _loaded(photo)
        settings = Settings(solver, _whole(candidates), blend, _whole(seed), weight, as_png)
        hole = desk.hole(path, mask=Path(mask_file)) if mask_file else mask
        with tempfile.TemporaryDirectory() as folder:
            for item in desk.complete(path, hole, settings, Path(folder), path.stem):
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
        gr.Button().click(_calmly_each(complete), inputs, output, api_name="complete", **_ALONE)


def _exploring(desk: Desk) -> None:
    gr.Markdown(
        "The faces that the networks can make: none of these people exist. Click two faces to walk from the one to the "
        "other; the last one clicked can be moved along a direction."
    )
    with gr.Row():
        with gr.Column():
            sheet = gr.Gallery(
                label="Faces",
                format="png",
                columns=4,
                height="auto",
                allow_preview=False,
                buttons=[],
                elem_id="sheet",
            )
            with gr.Row():
                seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=100, elem_id="sheet_seed")
                sample = gr.Button("Make faces", variant="primary", elem_id="sample")
        with gr.Column():
            with gr.Row():
                start = gr.Number(1, precision=0, minimum=1, maximum=_FACES, label="From face", min_width=80)
                end = gr.Number(2, precision=0, minimum=1, maximum=_FACES, label="to face", min_width=80)
                walk = gr.Button("Walk", elem_id="walk")
            film = gr.Image(label="The walk", format="gif", buttons=[], height=240, elem_id="film")
            steps = gr.Image(label="Its steps", show_label=False, format="png", buttons=[], elem_id="steps")
            with gr.Row():
                direction = gr.Dropdown(list(LABELS), label="More and less of", min_width=120, elem_id="direction")
                move = gr.Button("Move", elem_id="move")
            moved = gr.Image(label="Moved", show_label=False, format="png", buttons=[], elem_id="moved")

    def sampled(seed: float) -> list[tuple[NDArray[np.uint8], str]]:
        """Sixteen generated faces of a seed."""
        return [(face, str(number)) for number, face in enumerate(desk.sample(_seed(seed), _FACES), start=1)]

    def walked(seed: float, start: float, end: float) -> Iterator[list[Any]]:
        """From one face of a seed to another: a film and its steps."""
        with tempfile.TemporaryDirectory() as folder:
            side_by_side, path = desk.walk(_seed(seed), _number(start), _number(end), Path(folder))
            yield [str(path), side_by_side]

    def moving(seed: float, number: float, direction: str) -> NDArray[np.uint8]:
        """A face of a seed with less and more of a feature."""
        return desk.move(_seed(seed), _number(number), direction)

    def clicked(end: float, event: gr.SelectData) -> list[float]:
        return [end, event.index + 1]

    sample.click(_calmly(sampled), seed, sheet, api_name="sample", **_ALONE)
    walk.click(_calmly_each(walked), [seed, start, end], [film, steps], api_name="walk", **_ALONE)
    move.click(_calmly(moving), [seed, end, direction], moved, api_name="move", **_ALONE)
    sheet.select(clicked, end, [start, end], queue=False, **_QUIET)


def _batching(desk: Desk) -> None:
    gr.Markdown(
        "The same hole in several photos: by name, by one mask for all of them, or by a mask for each with its photo's "
        f"name. At most {desk.limits.photos} photos at a time."
    )
    with gr.Row():
        with gr.Column():
            photos = gr.File(label="Photos", file_count="multiple", file_types=["image"], elem_id="photos")
            named = gr.Dropdown(list(HOLES), value="center", label="Hole by name", elem_id="batch_named")
            masks = gr.File(
                label="or masks: one, or one for each photo (white = fill)",
                file_count="multiple",
                file_types=["image"],
                elem_id="masks",
            )
            with gr.Row():
                solver = gr.Radio(["fast", "thorough"], value="fast", label="Quality")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=80)
            run = gr.Button("Complete all", variant="primary", elem_id="run")
            stop = gr.Button("Stop", variant="stop")
        with gr.Column():
            told = gr.Markdown("Results and a report come as one ZIP file.", elem_id="told")
            archive = gr.File(label="Results", interactive=False, elem_id="archive")

    def completed(
        photos: Sequence[str] | None, named: str, masks: Sequence[str] | None, solver: str, seed: float
    ) -> Iterator[list[Any]]:
        """Complete several photos: a ZIP with the completions and a report."""
        lines: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(file) for file in photos or []]
            holes = [Path(file) for file in masks or []]
            for item in desk.batch(files, named, holes, Settings(solver, seed=_seed(seed)), Path(folder)):
                if isinstance(item, Path):
                    yield ["\n".join(["Done.", *lines]), str(item)]
                else:
                    lines.append(f"* {_plain(item)}")
                    yield ["\n".join([f"{len(lines)} of {len(files)}:", *lines]), None]

    event = run.click(
        _calmly_each(completed),
        [photos, named, masks, solver, seed],
        [told, archive],
        api_name="batch",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    stop.click(lambda: "Stopped.", None, told, cancels=event, queue=False, **_QUIET)


def _calmly(work: Callable[..., Any]) -> Callable[..., Any]:
    """What a person can mend is told on the page; all else stays in the log."""

    @wraps(work)
    def calm(*arguments: Any, **named: Any) -> Any:
        try:
            return work(*arguments, **named)
        except _TOLD as error:
            raise _told_error(error) from error

    return calm


def _calmly_each(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for generators."""

    @wraps(work)
    def calm(*arguments: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from work(*arguments, **named)
        except _TOLD as error:
            raise _told_error(error) from error

    return calm


def _told_error(error: Exception) -> gr.Error:
    return gr.Error(_words(error), title=_FAILED, print_exception=False)


def _refusal(error: Exception) -> str:
    """What went wrong: in the corner of the page for a while, and where the next step is told until it is mended."""
    gr.Warning(_words(error), title=_FAILED)
    return f"**{_FAILED}.** {_words(error)}"


def _words(error: Exception) -> str:
    words = re.sub(r"say where it is \(--.*?\), ", "", str(error))  # which only the command line can be told
    return _plain(words[:1].upper() + words[1:])


def _plain(text: str) -> str:
    """Names of files are other people's words: nothing in them is markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|~&])", r"\\\1", text)


def _told(filled: Filled, several: bool) -> str:
    notes = "".join(f"\n* {_plain(note[:1].upper() + note[1:])}." for note in filled.notes)
    choose = " Choose the one that fits best; " if several else " Drag the line to compare; "
    return f"Done in {filled.seconds:.1f} s.{choose}then download it, or paint on and complete again.{notes}"


def _on_editor(shown: NDArray[np.uint8], layer: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    return {"background": shown, "layers": [] if layer is None else [layer], "composite": None}


def _background(value: dict[str, Any] | None) -> NDArray[np.uint8]:
    """The picture under the drawing: ours, so that it need not be looked into; only its size is."""
    if not value or not value.get("background"):
        raise DeskError("There is no photo yet: load one, or try an example face.")
    return read_photo(Path(value["background"]["path"])).pixels


def _layers(value: dict[str, Any] | None) -> list[Path]:
    return [Path(layer["path"]) for layer in (value or {}).get("layers") or []]


def _loaded(photo: dict[str, Any] | str | None) -> Path:
    if not photo:
        raise DeskError("There is no photo yet: load one, or try an example face.")
    return Path(photo if isinstance(photo, str) else photo["path"])


def _stem(photo: dict[str, Any]) -> str:
    """Name of the photo for the files that come of it."""
    return re.sub(r"[^\w-]+", "-", Path(photo.get("orig_name") or photo["path"]).stem)[:80] or "photo"


def _whole(value: Any) -> Any:
    """A number as pages send it; whether it will do, Settings tells."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seed(value: Any) -> int:
    return Settings(seed=_whole(value)).seed


def _number(value: Any) -> int:
    number = _whole(value)
    if not isinstance(number, int) or not 1 <= number <= _FACES:
        raise DeskError(f"The face is {value}: give a number from 1 to {_FACES}.")
    return number - 1
