"""The tab Explore: generated faces, walks between them, and moves along a direction."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from dcgan.explore.registry import LABELS
from ui.handlers import ONE_AT_A_TIME, PRIVATE, show_errors, to_int, to_seed
from ui.service import Service, ServiceError

_FACES = 16  # on the sheet


def explore_tab(service: Service) -> None:
    """Build the tab."""
    gr.Markdown(
        "Faces that the network generates; none of these people exist. Click two faces to choose both ends of a walk. "
        "The face you clicked last can also be moved along a direction."
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
                sample = gr.Button("Generate faces", variant="primary", elem_id="sample")
        with gr.Column():
            with gr.Row():
                start = gr.Number(1, precision=0, minimum=1, maximum=_FACES, label="From face", min_width=80)
                end = gr.Number(2, precision=0, minimum=1, maximum=_FACES, label="To face", min_width=80)
                walk = gr.Button("Walk", elem_id="walk")
            film = gr.Image(label="Walk", format="gif", buttons=[], height=240, elem_id="film")
            steps = gr.Image(label="Steps of the walk", show_label=False, format="png", buttons=[], elem_id="steps")
            with gr.Row():
                direction = gr.Dropdown(list(LABELS), label="Direction", min_width=120, elem_id="direction")
                move = gr.Button("Move", elem_id="move")
            moved = gr.Image(label="Moved face", show_label=False, format="png", buttons=[], elem_id="moved")

    def sample_faces(seed: float) -> list[tuple[NDArray[np.uint8], str]]:
        """Generate the sixteen faces of a seed."""
        return [(face, str(number)) for number, face in enumerate(service.sample(to_seed(seed), _FACES), start=1)]

    def walk_between(seed: float, start: float, end: float) -> Iterator[dict[Any, Any]]:
        """Walk from one face of a seed to another: a GIF, and some of its steps side by side."""
        with tempfile.TemporaryDirectory() as folder:
            side_by_side, path = service.walk(to_seed(seed), _index(start), _index(end), Path(folder))
            yield {film: str(path), steps: side_by_side}

    def move_face(seed: float, number: float, direction: str) -> NDArray[np.uint8]:
        """Move a face of a seed along a direction, from less to more."""
        return service.move(to_seed(seed), _index(number), direction)

    def choose_face(last: float, event: gr.SelectData) -> dict[Any, Any]:
        return {start: last, end: event.index + 1}

    sample.click(show_errors(sample_faces), seed, sheet, api_name="sample", **ONE_AT_A_TIME)
    walk.click(show_errors(walk_between), [seed, start, end], [film, steps], api_name="walk", **ONE_AT_A_TIME)
    move.click(show_errors(move_face), [seed, end, direction], moved, api_name="move", **ONE_AT_A_TIME)
    sheet.select(choose_face, end, [start, end], queue=False, **PRIVATE)


def _index(value: Any) -> int:
    number = to_int(value)
    if not isinstance(number, int) or not 1 <= number <= _FACES:
        raise ServiceError(f"the face is {value}; give a number from 1 to {_FACES}")
    return number - 1
