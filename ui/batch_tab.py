"""The tab Batch: complete several photos and download the results as one ZIP file."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from ui.handlers import PRIVATE, escape, show_errors, to_seed
from ui.service import HOLES, Service, Settings


def batch_tab(service: Service) -> None:
    """Build the tab."""
    gr.Markdown(
        f"Complete up to {service.limits.photos} photos at once. Choose a hole by name, or upload masks: one mask for "
        "all photos, or one for each photo with the same file name as the photo."
    )
    with gr.Row():
        with gr.Column():
            photos = gr.File(label="Photos", file_count="multiple", elem_id="photos")
            named = gr.Dropdown(list(HOLES), value="center", label="Hole by name", elem_id="batch_named")
            masks = gr.File(
                label="Or masks: one for all photos, or one for each (white = fill)",
                file_count="multiple",
                elem_id="masks",
            )
            with gr.Row():
                solver = gr.Radio(["fast", "thorough"], value="fast", label="Quality")
                seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=80)
            run = gr.Button("Complete all", variant="primary", elem_id="run")
            stop = gr.Button("Stop", variant="stop", visible=False)
        with gr.Column():
            status = gr.Markdown(
                "The results and a report come as one ZIP file.", label="report", elem_id="batch_status"
            )
            archive = gr.File(label="Results", interactive=False, elem_id="archive")
            pictures = gr.Gallery(
                label="Completed photos",
                format="jpeg",
                columns=4,
                height="auto",
                allow_preview=False,
                buttons=[],
                elem_id="pictures",
            )

    def complete_all(
        photos: Sequence[str] | None,
        named: str = "center",
        masks: Sequence[str] | None = None,
        solver: str = "fast",
        seed: float = 0,
    ) -> Iterator[dict[Any, Any]]:
        """Complete several photos and return a ZIP file with the completions and a report."""
        lines: list[str] = []
        done: list[tuple[NDArray[np.uint8], str]] = []
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(file) for file in photos or []]
            mask_files = [Path(file) for file in masks or []]
            for item in service.batch(files, named, mask_files, Settings(solver, seed=to_seed(seed)), Path(folder)):
                if isinstance(item, Path):
                    yield {
                        status: "\n".join([f"Done: {len(done)} of {len(files)} photos completed.", *lines]),
                        archive: str(item),
                        pictures: done,
                    }
                    return
                lines.append(f"* {escape(item.text)}")
                if item.picture is not None:
                    done.append((item.picture, item.name))
                yield {
                    status: "\n".join([f"{len(lines)} of {len(files)}:", *lines]),
                    archive: None,
                    pictures: done,
                }

    begun = run.click(lambda: gr.update(visible=True), None, stop, queue=False, **PRIVATE)
    event = begun.then(
        show_errors(complete_all),
        [photos, named, masks, solver, seed],
        [status, archive, pictures],
        api_name="batch",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    event.then(lambda: gr.update(visible=False), None, stop, queue=False, **PRIVATE)
    stopped = {status: "Stopped.", stop: gr.update(visible=False)}
    stop.click(lambda: stopped, None, [status, stop], cancels=event, queue=False, **PRIVATE)
