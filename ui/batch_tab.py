"""The tab Batch: the same hole in several photos, and a ZIP of the results."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ui.handlers import QUIET, calmly_each, plain, to_seed
from ui.service import HOLES, Service, Settings


def batch_tab(service: Service) -> None:
    """Build the tab."""
    gr.Markdown(
        "The same hole in several photos: by name, by one mask for all of them, or by a mask for each with its photo's "
        f"name. At most {service.limits.photos} photos at a time."
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
    ) -> Iterator[dict[Any, Any]]:
        """Complete several photos: a ZIP with the completions and a report."""
        lines: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(file) for file in photos or []]
            holes = [Path(file) for file in masks or []]
            for item in service.batch(files, named, holes, Settings(solver, seed=to_seed(seed)), Path(folder)):
                if isinstance(item, Path):
                    yield {told: "\n".join(["Done.", *lines]), archive: str(item)}
                else:
                    lines.append(f"* {plain(item)}")
                    yield {told: "\n".join([f"{len(lines)} of {len(files)}:", *lines]), archive: None}

    event = run.click(
        calmly_each(completed),
        [photos, named, masks, solver, seed],
        [told, archive],
        api_name="batch",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    stop.click(lambda: "Stopped.", None, told, cancels=event, queue=False, **QUIET)
