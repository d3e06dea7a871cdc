"""The tab Explore: generated faces, walks between them, and moves along a direction."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from dcgan.explore.arithmetic import LABELS
from ui.handlers import ALONE, QUIET, calmly, calmly_each, to_seed, whole
from ui.service import Service, ServiceError

_FACES = 16  # on the sheet of the Explore tab


def explore_tab(service: Service) -> None:
    """Build the tab."""
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
        return [(face, str(number)) for number, face in enumerate(service.sample(to_seed(seed), _FACES), start=1)]

    def walked(seed: float, start: float, end: float) -> Iterator[dict[Any, Any]]:
        """From one face of a seed to another: a film and its steps."""
        with tempfile.TemporaryDirectory() as folder:
            side_by_side, path = service.walk(to_seed(seed), _number(start), _number(end), Path(folder))
            yield {film: str(path), steps: side_by_side}

    def moving(seed: float, number: float, direction: str) -> NDArray[np.uint8]:
        """A face of a seed with less and more of a feature."""
        return service.move(to_seed(seed), _number(number), direction)

    def clicked(last: float, event: gr.SelectData) -> dict[Any, Any]:
        return {start: last, end: event.index + 1}

    sample.click(calmly(sampled), seed, sheet, api_name="sample", **ALONE)
    walk.click(calmly_each(walked), [seed, start, end], [film, steps], api_name="walk", **ALONE)
    move.click(calmly(moving), [seed, end, direction], moved, api_name="move", **ALONE)
    sheet.select(clicked, end, [start, end], queue=False, **QUIET)


def _number(value: Any) -> int:
    number = whole(value)
    if not isinstance(number, int) or not 1 <= number <= _FACES:
        raise ServiceError(f"The face is {value}: give a number from 1 to {_FACES}.")
    return number - 1
