"""The page /explore: faces that the network generates, walks between them, and moves along a direction.

torch is imported with the first request.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import cv2
import gradio as gr
import numpy as np
from numpy.typing import NDArray

from dcgan.explore.registry import LABELS
from ui.server import upload_folder
from ui.service import Service

_FACES = 16  # on the sheet; always drawn together, because torch draws a single z differently
_FACE_PX = 64  # most pixels a side of a generated face, before it is enlarged
_MOST_BYTES = 2**21  # of the files of an answer
_ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "explore", "concurrency_limit": 1}


def build_explore(service: Service, store: Callable[[gr.Request, int], None]) -> gr.Blocks:
    """Build the page, for the largest networks of a service; `store` reserves bytes for the files of an answer."""
    weights = service.completer.weights[service.completer.size]

    def draw(seed: float) -> Any:
        import torch

        from dcgan.sampling import sample_z

        return sample_z(_FACES, weights.network, torch.Generator().manual_seed(int(seed)))

    def generated(z: Any) -> list[NDArray[np.uint8]]:
        from dcgan.sampling import generate

        faces = generate(weights.generator, z)
        side = 3 * min(_FACE_PX, faces.shape[1])
        return [cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8) for face in faces]

    @cache
    def found_directions() -> Any:
        from dcgan.explore.arithmetic import directions

        return directions(weights)

    def sample(seed: float, request: gr.Request) -> list[tuple[NDArray[np.uint8], str]]:
        store(request, _MOST_BYTES)
        return [(face, str(number)) for number, face in enumerate(generated(draw(seed)), start=1)]

    def walk(seed: float, start: float, end: float, request: gr.Request) -> tuple[str, NDArray[np.uint8]]:
        """A spherical walk between two faces: a GIF, and some of its faces side by side."""
        from completion.picture import write_animation
        from dcgan.sampling import slerp

        store(request, _MOST_BYTES)
        drawn, path = draw(seed), Path(mkdtemp(dir=upload_folder()), "walk.gif")
        faces = generated(slerp(drawn[int(start) - 1], drawn[int(end) - 1], 31))
        write_animation(path, [*faces, *faces[-2:0:-1]])
        return str(path), np.hstack(faces[::5])

    def move(seed: float, number: float, direction: str, request: gr.Request) -> NDArray[np.uint8]:
        """A face moved along a direction, from less to more, with the face itself in the middle."""
        import torch

        store(request, _MOST_BYTES)
        z = draw(seed)[int(number) - 1]
        return np.hstack(generated(z + torch.linspace(-3, 3, 7)[:, None] * found_directions()[direction]))

    def choose(last: float, event: gr.SelectData) -> tuple[float, float]:
        return last, event.index + 1

    with gr.Blocks(title="Generated faces", analytics_enabled=False) as page:
        gr.Markdown(
            "# Generated faces\nNone of these people exist. Click two faces to choose both ends of a walk. "
            "The face that you clicked last can also be moved along a direction. [Fill in a face](..)"
        )
        with gr.Row():
            with gr.Column():
                sheet = gr.Gallery(label="Faces", format="png", columns=4, height="auto", allow_preview=False)
                with gr.Row():
                    seed = gr.Number(0, precision=0, minimum=0, maximum=2**53, label="Seed")
                    gr.Button("Generate faces", variant="primary").click(sample, seed, sheet, **_ONE_AT_A_TIME)
            with gr.Column():
                with gr.Row():
                    start, end = (
                        gr.Slider(1, _FACES, value=value, step=1, label=label, buttons=[])
                        for value, label in ((1, "From face"), (2, "To face"))
                    )
                    go = gr.Button("Walk")
                film = gr.Image(label="Walk", format="gif", buttons=[], height=240)
                steps = gr.Image(label="Steps of the walk", format="png", buttons=[])
                with gr.Row():
                    direction = gr.Dropdown(list(LABELS), label="Direction")
                    push = gr.Button("Move")
                moved = gr.Image(label="Moved face", format="png", buttons=[])
        go.click(walk, [seed, start, end], [film, steps], **_ONE_AT_A_TIME)
        push.click(move, [seed, end, direction], moved, **_ONE_AT_A_TIME)
        sheet.select(choose, end, [start, end], queue=False)
    page.queue(max_size=64, api_open=False)
    return page
