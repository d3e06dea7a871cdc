"""Report of the benchmark on aligned faces: JSON, tables and pictures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.files import write_json, write_text
from align.photo import write_photo
from completion.benchmark.compare import SHOWN, Row, Task
from completion.config import SLOW
from completion.picture import overlay_mask
from dcgan.report import markdown

JSON_FILE, MARKDOWN_FILE = "benchmark.json", "benchmark.md"
# heading, figure, format
_COLUMNS = (
    ("n", "n", "d"),
    ("hole-PSNR", "hole_psnr", ".2f"),
    ("PSNR", "psnr", ".2f"),
    ("SSIM", "ssim", ".3f"),
    ("identity", "identity", ".3f"),
    ("face found", "found", ".1%"),
    ("Frechet", "frechet", ".4f"),
    ("CPU s", "cpu_s", ".3g"),
    ("vs paper", "vs_paper", ".3g"),
    ("wall s", "wall_s", ".3g"),
    ("peak MB", "memory_mb", ".0f"),
)
_NOTES = f"""
- **Hole-PSNR** covers the pixels of the hole, **PSNR** the whole crop; both are means over the faces, in dB. They
  favour blurred fills, near the mean of all plausible faces. **SSIM** covers the whole crop.
- **Identity**: distance between dlib's face embeddings of the completed and the true face; below 0.6, they count as
  the same person.
- **Face found**: share of the completed faces that dlib's detector finds, after enlarging and padding.
- **Frechet**: squared Frechet distance between the face embeddings of the completed and of the same true faces; 0 for
  perfect completions. It decreases with n, so only rows of equal n are comparable. It is omitted below 50 faces, since
  the embeddings have 128 dimensions.
- **CPU s**: processor time per face, summed over threads, with blending but without training; GPU time is not counted.
  **vs paper** is the processor time of the method `paper` divided by that.
- **Peak MB**: peak main memory while the method runs, above the use at its start, which includes the weights.
- {" and ".join(f"`{name}`" for name in SLOW)} are slow and run on the first faces only.
- Pixels under a hole are blackened before a method sees the face. Holes for eyes and mouth are placed by landmarks of
  the true face; faces without landmarks are left out.
"""


class Report:
    """Collects the results of a benchmark and writes them.

    Args:
        facts: metadata at the start of the JSON: "settings", "weights", "faces", "machine", "version", "notes".
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self._tasks: dict[str, Task] = {}
        self._rows: dict[str, dict[str, Row]] = {}

    def add(self, item: Task | Row) -> None:
        """Add the next hole, or the next method's results on it."""
        if isinstance(item, Task):
            self._tasks[item.hole], self._rows[item.hole] = item, {}
        else:
            self._rows[item.hole][item.method] = item

    def record(self) -> dict[str, Any]:
        """Return metadata and figures as plain JSON; infinity becomes the string "inf"."""
        holes = {
            hole: {
                "faces": len(task.faces),
                "left_out": task.left_out,
                "methods": {
                    name: {key: "inf" if value == math.inf else value for key, value in figures.items()}
                    for name, figures in self._figures(hole).items()
                },
            }
            for hole, task in self._tasks.items()
        }
        return self._facts | {"holes": holes}

    def tables(self) -> str:
        """Format one Markdown table per hole, and one for the faces that all methods share."""
        return "\n\n".join([*map(self._table, self._tasks), *self._same_faces()])

    def write(self, folder: Path) -> None:
        """Write the JSON, the Markdown and the picture of the latest hole, replacing existing files.

        Args:
            folder: an existing folder.
        """
        facts, newest = self._facts, list(self._tasks)[-1]
        parts = [
            f"# Completion with and without {facts['weights']['name']}",
            f"{facts['faces']['count']} faces, {facts['faces']['training']} training faces; seed "
            f"{facts['settings']['seed']}; weights {facts['weights']['sha256'][:12]} (SHA-256); {facts['machine']}.",
            *(f"{note}." for note in facts["notes"]),
            *(f"{self._table(hole)}\n\n{self._legend(hole)}" for hole in self._tasks),
            *self._same_faces(),
            f"## Measures\n{_NOTES.rstrip()}",
        ]
        write_json(folder / JSON_FILE, self.record())
        write_text(folder / MARKDOWN_FILE, "\n\n".join(parts) + "\n")
        write_photo(folder / f"{newest}.png", self._picture(newest))

    def _figures(self, hole: str) -> dict[str, dict[str, Any]]:
        rows = self._rows[hole]
        paper = rows["paper"].cpu_s if "paper" in rows else None
        return {
            name: row.figures() | {"vs_paper": paper / row.cpu_s if paper and row.cpu_s else None}
            for name, row in rows.items()
        }

    def _table(self, hole: str) -> str:
        task, figures = self._tasks[hole], self._figures(hole)
        left_out = f"; {task.left_out} without landmarks left out" if task.left_out else ""
        body = [
            [f"`{name}`", *("" if found[key] is None else format(found[key], form) for _, key, form in _COLUMNS)]
            for name, found in figures.items()
        ]
        head = ["method", *(heading for heading, _, _ in _COLUMNS)]
        return f"## {hole}: {len(task.faces)} faces{left_out}\n\n{markdown([head, *body])}"

    def _same_faces(self) -> list[str]:
        """Table of hole-PSNR on the faces that all methods share; empty if these are all faces."""
        rows = [row for rows in self._rows.values() for row in rows.values()]
        if all(len({row.n for row in found.values()}) < 2 for found in self._rows.values()):
            return []
        methods = dict.fromkeys(row.method for row in rows)
        psnr = {(row.method, row.hole): f"{row.same_psnr:.2f}" for row in rows}
        body = [[f"`{method}`", *(psnr.get((method, hole), "") for hole in self._tasks)] for method in methods]
        few = self._facts["settings"]["slow_limit"]
        return [f"## Same faces: hole-PSNR of the first {few}\n\n{markdown([['method', *self._tasks], *body])}"]

    def _legend(self, hole: str) -> str:
        return f"From top to bottom: {', '.join(['true face', 'hole', *self._rows[hole]])}.\n\n![{hole}]({hole}.png)"

    def _picture(self, hole: str) -> NDArray[np.uint8]:
        """Stack rows of true faces, holes and completions; grey where a method has fewer faces."""
        task = self._tasks[hole]
        faces, holes = task.faces[:SHOWN], task.holes[:SHOWN]
        rows = [faces, np.stack([overlay_mask(*pair) for pair in zip(faces, holes, strict=True)])]
        for row in self._rows[hole].values():
            rows.append(np.full_like(faces, 128))
            rows[-1][: len(row.pictures)] = row.pictures
        return np.vstack([np.hstack(list(row)) for row in rows])
