"""Output files of the experiments: sheets of images, plots, animations, JSON and lists."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from align.files import write_json, write_text
from align.photo import write_photo
from align.picture import write_animation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FONT_PX, _MARGIN_PX = 12, 4

# Content by file name: uint8 (H, W, 3) for .png, frames (F, H, W, 3) for .gif, lines for .txt, values for .json.
Outputs = dict[str, Any]


def write_files(folder: Path, outputs: Outputs) -> None:
    """Write files in the formats of their suffixes; creates the folder and replaces existing files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in outputs.items():
        path = folder / name
        if path.suffix == ".png":
            write_photo(path, content)
        elif path.suffix == ".gif":
            write_animation(path, [*content, *content[-2:0:-1]])  # there and back
        elif path.suffix == ".txt":
            write_text(path, "".join(f"{line}\n" for line in content))
        else:
            write_json(path, content)


def sheet(rows: Sequence[tuple[str, NDArray[np.uint8]]], columns: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Arrange rows of images, uint8 (N, S, S, 3), with their labels on white; the rows may differ in N."""
    side = rows[0][1].shape[1]
    font = ImageFont.load_default(_FONT_PX)
    left = math.ceil(max(font.getlength(label) for label, _ in rows)) + 2 * _MARGIN_PX
    top = _FONT_PX + _MARGIN_PX if columns else 0
    across = max(len(images) for _, images in rows)
    picture = Image.new("RGB", (left + across * side, top + len(rows) * side), "white")
    draw = ImageDraw.Draw(picture)
    for column, label in enumerate(columns):
        draw.text((left + (column + 0.5) * side, top / 2), label, "black", font, anchor="mm")
    for row, (label, images) in enumerate(rows):
        draw.text((_MARGIN_PX, top + (row + 0.5) * side), label, "black", font, anchor="lm")
        for column, image in enumerate(images):
            picture.paste(Image.fromarray(image), (left + column * side, top + row * side))
    return np.array(picture)


def plotted(figure: "Figure") -> NDArray[np.uint8]:
    """Render a matplotlib figure without a display: uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
