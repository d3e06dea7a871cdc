"""The tab Batch: complete several photos and download the results as one ZIP file."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

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
            photos = gr.File(label="Photos", file_count="multiple", file_types=["image"], elem_id="photos")
            named = gr.Dropdown(list(HOLES), value="center", label="Hole by name", elem_id="batch_named")
            masks = gr.File(
                label="Or masks: one for all photos, or one for each (white = fill)",
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
            status = gr.Markdown("The results and a report come as one ZIP file.", elem_id="batch_status")
            archive = gr.File(label="Results", interactive=False, elem_id="archive")

    def complete_all(
        photos: Sequence[str] | None, named: str, masks: Sequence[str] | None, solver: str, seed: float
    ) -> Iterator[dict[Any, Any]]:
        """Complete several photos and return a ZIP file with the completions and a report."""
        lines: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(file) for file in photos or []]
            mask_files = [Path(file) for file in masks or []]
            for item in service.batch(files, named, mask_files, Settings(solver, seed=to_seed(seed)), Path(folder)):
                if isinstance(item, Path):
                    yield {status: "\n".join(["Done.", *lines]), archive: str(item)}
                else:
                    lines.append(f"* {escape(item)}")
                    yield {status: "\n".join([f"{len(lines)} of {len(files)}:", *lines]), archive: None}

    event = run.click(
        show_errors(complete_all),
        [photos, named, masks, solver, seed],
        [status, archive],
        api_name="batch",
        concurrency_id="batch",
        concurrency_limit=1,
    )
    stop.click(lambda: "Stopped.", None, status, cancels=event, queue=False, **PRIVATE)
