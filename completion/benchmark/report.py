"""What a benchmark says: figures as JSON, tables, pictures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.files import write_json, write_text
from align.photo import write_photo
from completion.benchmark.compare import SHOWN, Row, Task
from completion.config import SLOW
from completion.picture import painted
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
- **Hole-PSNR** counts the pixels of the hole alone, **PSNR** all of them, both as means of each face's dB. They reward
  the mean of all possible faces, which is blurred; **SSIM** is of the whole crop.
- **Identity**: distance of dlib's descriptors of the completed and the true face; below 0.6 stands for one person.
- **Face found**: share of the completed faces that dlib's detector finds, enlarged and with air around.
- **Frechet**: squared distance of the descriptors' distribution to that of the true faces, the same ones; 0 if nothing
  is missing. It falls with n, so compare equal n only, and is left out below 50 faces, since there are 128 dimensions.
- **CPU s**: processor time of all threads for a face, blending included, training not; a GPU's work does not count.
  **vs paper** is how many times less that is than the method `paper` takes.
- **Peak MB**: the highest use of main memory above what was in use when the method began, the weights among it.
- {" and ".join(f"`{name}`" for name in SLOW)} search so long that they get the first faces only.
- What lies under a hole is blackened before a method sees the face. Holes for eyes and mouth are placed by the true
  face's landmarks, and faces without any are left out.
"""


class Report:
    """Collects what is measured.

    Args:
        facts: what the JSON begins with: "settings", "weights", "faces", "machine", "version", "notes".
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self._tasks: dict[str, Task] = {}
        self._rows: dict[str, dict[str, Row]] = {}

    def add(self, item: Task | Row) -> None:
        """Take in the next hole, or what the next method made of it."""
        if isinstance(item, Task):
            self._tasks[item.hole], self._rows[item.hole] = item, {}
        else:
            self._rows[item.hole][item.method] = item

    def record(self) -> dict[str, Any]:
        """All of it but the pictures; infinity is the text "inf", since JSON has no number for it."""
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
        """In Markdown, a table for each hole, then one of the faces that the slow methods have, too."""
        return "\n\n".join([*map(self._table, self._tasks), *self._same_faces()])

    def write(self, folder: Path) -> None:
        """Write all of it; files are replaced, the picture of the newest hole among them.

        Args:
            folder: where to; exists.
        """
        facts, newest = self._facts, list(self._tasks)[-1]
        parts = [
            f"# Completion by {facts['weights']['name']} and without",
            f"{facts['faces']['count']} faces, {facts['faces']['training']} training faces; seed "
            f"{facts['settings']['seed']}; weights' sha256 {facts['weights']['sha256'][:12]}; {facts['machine']}.",
            *(f"{note}." for note in facts["notes"]),
            *(f"{self._table(hole)}\n\n{self._legend(hole)}" for hole in self._tasks),
            *self._same_faces(),
            f"## What the figures are\n{_NOTES.rstrip()}",
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
        left_out = f"; {task.left_out} left out, no such part found" if task.left_out else ""
        body = [
            [f"`{name}`", *("" if found[key] is None else format(found[key], form) for _, key, form in _COLUMNS)]
            for name, found in figures.items()
        ]
        head = ["method", *(heading for heading, _, _ in _COLUMNS)]
        return f"## {hole}: {len(task.faces)} faces{left_out}\n\n{markdown([head, *body])}"

    def _same_faces(self) -> list[str]:
        """Hole-PSNR by method and hole, of the few faces that every method has; empty if these are all faces."""
        rows = [row for rows in self._rows.values() for row in rows.values()]
        if all(len({row.n for row in found.values()}) < 2 for found in self._rows.values()):
            return []
        methods = dict.fromkeys(row.method for row in rows)
        psnr = {(row.method, row.hole): f"{row.same_psnr:.2f}" for row in rows}
        body = [[f"`{method}`", *(psnr.get((method, hole), "") for hole in self._tasks)] for method in methods]
        few = self._facts["settings"]["slow_limit"]
        return [f"## Same faces: hole-PSNR of the first {few}\n\n{markdown([['method', *self._tasks], *body])}"]

    def _legend(self, hole: str) -> str:
        return f"From the top: {', '.join(['true face', 'hole', *self._rows[hole]])}.\n\n![{hole}]({hole}.png)"

    def _picture(self, hole: str) -> NDArray[np.uint8]:
        """Truth, holes and completions below each other; grey where a method has fewer faces."""
        task = self._tasks[hole]
        faces, holes = task.faces[:SHOWN], task.holes[:SHOWN]
        rows = [faces, np.stack([painted(*pair) for pair in zip(faces, holes, strict=True)])]
        for row in self._rows[hole].values():
            rows.append(np.full_like(faces, 128))
            rows[-1][: len(row.pictures)] = row.pictures
        return np.vstack([np.hstack(list(row)) for row in rows])
