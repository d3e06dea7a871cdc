"""Report of the benchmark: JSON, tables and pictures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.files import write_json, write_text
from align.photo import write_photo
from align.picture import grid
from completion.benchmark.config import SLOW
from completion.benchmark.measure import Row, Task
from completion.benchmark.tones import COLOUR
from dcgan.report import markdown

JSON_FILE, MARKDOWN_FILE = "benchmark.json", "benchmark.md"
_GROUPS = ((0, 100), (100, 180), (180, 320), (320, math.inf))  # ranges of the crop's side, in pixels of the photo
# heading, figure, format; a table has those that were measured
_COLUMNS = (
    ("n", "n", "d"),
    ("hole-PSNR", "hole_psnr", ".2f"),
    ("PSNR", "psnr", ".2f"),
    ("SSIM", "ssim", ".3f"),
    ("detail", "detail", ".2f"),
    ("colour", "colour", ".1f"),
    ("rim", "rim", ".2f"),
    ("error", "error", ".3f"),
    ("stray", "stray", ".2f"),
    ("identity", "identity", ".3f"),
    ("face found", "found", ".1%"),
    ("located", "located", ".1%"),
    ("Frechet", "frechet", ".4f"),
    ("CPU s", "cpu_s", ".3g"),
    ("vs paper", "vs_paper", ".3g"),
    ("wall s", "wall_s", ".3g"),
)
_RATIOS = ("detail", "rim")  # averaged as geometric means
_OF_FACES = "name", "crop_px", "tone"
_NOTES = f"""
- **Hole-PSNR** covers the pixels of the hole, **PSNR** the whole crop; both are means over the faces, in dB. They
  favour blurred fills, near the mean of all plausible faces. **SSIM** covers the whole crop.
- **Detail**: mean absolute Laplacian after a Gaussian blur of 1.5 px, completed / original; geometric mean, ideally 1.
- **Colour**: distance between the mean colours of the hole in 8-bit Lab; ideally 0.
- **Rim**: mean absolute difference between neighbouring pixels across the edge of the hole, completed / original;
  geometric mean, ideally 1.
- **Error**: mean absolute error in the hole / standard deviation of the photo. **Stray**: in photos of one tone, mean
  distance of the chroma in the hole from what the photo has at the same luminance, in Lab; ideally 0.
- **Identity**: distance between dlib's face embeddings of the completed and the true face; below 0.6, they count as
  the same person.
- **Face found**: share of the completed faces that dlib's detector finds.
- **Located**: share of holes in which the method found the face; the others are filled by Telea's method.
- **Frechet**: squared Frechet distance between the face embeddings of the completed and of the same true faces; 0 for
  perfect completions. It decreases with n, so only rows of equal n are comparable. It is omitted below 50 faces, since
  the embeddings have 128 dimensions.
- **CPU s**: processor time per face, summed over threads, with blending and, in whole photos, face detection, but
  without training; GPU time is not counted. **vs paper** is the processor time of the method `paper` divided by that.
- {" and ".join(f"`{name}`" for name in SLOW)} are slow and run on the first faces only.
- Pixels under a hole are blackened before a method sees the photo. Holes for eyes and mouth in aligned faces are placed
  by landmarks of the true face; faces without landmarks are left out.
"""


class Report:
    """Collects the results of a benchmark and writes them.

    Args:
        metadata: start of the JSON: "settings", "weights", "faces", "machine", "version", "notes".
    """

    def __init__(self, metadata: dict[str, Any]) -> None:
        self._metadata = metadata
        self._tasks: dict[str, Task] = {}
        self._rows: list[Row] = []

    def add(self, item: Task | Row) -> None:
        """Add the next hole, or the next method's results on it."""
        if isinstance(item, Task):
            self._tasks[item.hole] = item
        else:
            self._rows.append(item)

    def tables(self) -> str:
        """Format a Markdown table per hole; for whole photos also by face size, over all, and by tone."""
        tables = []
        if self._metadata["settings"]["whole"]:
            for least, most in _GROUPS:
                title = f"{least} to {most} px" if most < math.inf else f"above {least} px"
                tables.append(self._table(title, self._rows, least, most))
        for hole, task in self._tasks.items():
            left_out = f"; {task.left_out} without landmarks left out" if task.left_out else ""
            title = f"{hole}: {len(task.samples)} faces{left_out}"
            tables.append(self._table(title, [row for row in self._rows if row.hole == hole]))
        if self._metadata["settings"]["whole"]:
            tables.append(self._table("all", self._rows))
            tones = dict.fromkeys(sample.tone for row in self._rows for sample in row.samples)
            tables += [self._table(tone, self._rows, tone=tone) for tone in tones if tone != COLOUR]
        return "\n\n".join([*filter(None, tables), *self._same_faces()])

    def write(self, folder: Path) -> None:
        """Write the JSON, the Markdown and the pictures of the latest hole to an existing folder, replacing files."""
        metadata, newest = self._metadata, list(self._tasks)[-1]
        methods = ", ".join(dict.fromkeys(row.method for row in self._rows))
        parts = [
            f"# Completion with and without {metadata['weights']['name']}",
            f"{metadata['faces']['count']} faces, {metadata['faces']['training']} training faces; seed "
            f"{metadata['settings']['seed']}; weights {', '.join(each[:12] for each in metadata['weights']['sha256'])} "
            f"(SHA-256); {metadata['machine']}.",
            *(f"{note}." for note in metadata["notes"]),
            self.tables(),
            f"## Measures\n{_NOTES.rstrip()}",
            f"## Pictures\n\nFrom left to right: true face, hole, {methods}.",
            *(f"![{hole}]({hole}.jpg)" for hole in self._tasks),
        ]
        write_json(folder / JSON_FILE, self._metadata | {"rows": [_record(row) for row in self._rows]})
        write_text(folder / MARKDOWN_FILE, "\n\n".join(parts) + "\n")
        write_photo(folder / f"{newest}.jpg", self._sheet(newest))

    def _table(
        self, title: str, rows: list[Row], least_px: float = 0, most_px: float = math.inf, tone: str = COLOUR
    ) -> str:
        """Format the means of each method over faces of some sizes in one tone; empty if there are none."""
        found: dict[str, dict[str, Any]] = {}
        for method in dict.fromkeys(row.method for row in rows):
            means = _means([row for row in rows if row.method == method], least_px, most_px, tone)
            if means["n"]:
                found[method] = means
        if not found:
            return ""
        for means in found.values():
            if "paper" in found and means["cpu_s"]:
                means["vs_paper"] = found["paper"]["cpu_s"] / means["cpu_s"]
        columns = [column for column in _COLUMNS if any(column[1] in means for means in found.values())]
        body = [
            [f"`{method}`", *(format(means[key], form) if key in means else "" for _, key, form in columns)]
            for method, means in found.items()
        ]
        return f"## {title}\n\n{markdown([['method', *(heading for heading, _, _ in columns)], *body])}"

    def _same_faces(self) -> list[str]:
        """Table of hole-PSNR on the faces that all methods share; empty if these are all faces."""
        few = min((len(row.samples) for row in self._rows), default=0)
        if all(len(row.samples) == len(self._tasks[row.hole].samples) for row in self._rows):
            return []
        psnr = {(row.method, row.hole): f"{row.figures['hole_psnr'][:few].mean():.2f}" for row in self._rows}
        body = [
            [f"`{method}`", *(psnr.get((method, hole), "") for hole in self._tasks)]
            for method in dict.fromkeys(row.method for row in self._rows)
        ]
        return [f"## Same faces: hole-PSNR of the first {few}\n\n{markdown([['method', *self._tasks], *body])}"]

    def _sheet(self, hole: str) -> NDArray[np.uint8]:
        """Arrange a row per face: the true face, its hole and its completions; white where a method has fewer faces."""
        columns = [row.pictures for row in self._rows if row.hole == hole]
        lines = self._tasks[hole].pictures
        blank = np.full_like(lines[0][0], 255)
        cells = [
            cell
            for index, line in enumerate(lines)
            for cell in [*line, *(column[index] if index < len(column) else blank for column in columns)]
        ]
        return grid(cells, 2 + len(columns))


def _means(rows: list[Row], least_px: float = 0, most_px: float = math.inf, tone: str = COLOUR) -> dict[str, Any]:
    """The means of one method's figures over faces of some sizes in one tone."""
    chosen = [np.array([least_px <= s.crop_px < most_px and s.tone == tone for s in row.samples]) for row in rows]
    means: dict[str, Any] = {"n": int(sum(map(np.sum, chosen)))}
    if not means["n"]:
        return means
    for key in rows[0].figures:
        values = np.concatenate([row.figures[key][where] for row, where in zip(rows, chosen, strict=True)])
        if not np.isnan(values).any():
            means[key] = float(np.exp(np.log(values).mean()) if key in _RATIOS else values.mean())
    if len(rows) == 1 and rows[0].frechet is not None:
        means["frechet"] = rows[0].frechet
    return means


def _record(row: Row) -> dict[str, Any]:
    """The means and all figures of a row as plain JSON; what is not finite becomes the string "inf" or "nan"."""

    def finite(value: float) -> float | str:
        return value if math.isfinite(value) else str(value)

    faces: dict[str, list[Any]] = {name: [getattr(each, name) for each in row.samples] for name in _OF_FACES}
    return {
        "hole": row.hole,
        "method": row.method,
        "means": {key: finite(value) for key, value in _means([row]).items()},
        "faces": faces | {key: [finite(value) for value in values.tolist()] for key, values in row.figures.items()},
    }
