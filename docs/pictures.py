"""Draw the pictures of completed photos in README.md and completion.md: `python docs/pictures.py`.

They show the astronaut of scikit-image (NASA, public domain) and faces that our generator drew, and nobody else.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from align.photo import read_photo, write_photo
from align.warp import Alignment
from completion import FaceCompleter
from completion.benchmark.damage import MIXED, damage_photo
from completion.picture import overlay_mask
from dcgan.sampling import generate, sample_z

DOCS = Path(__file__).parent
SIDE_PX = 384
BLACK, GREY, WHITE = (34, 20, 10), (148, 122, 94), (250, 234, 200)  # of the sepia print
CHOSEN = (26, 44, 43, 12, 53)  # faces of the generator


def sepia(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Print a photo in sepia, with grain."""
    light = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) + np.random.default_rng(0).normal(0, 3, photo.shape[:2])
    return np.stack(
        [np.interp(light, (0, 128, 255), ends) for ends in zip(BLACK, GREY, WHITE, strict=True)], -1
    ).astype(np.uint8)


def grey(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo in grey, saved in three channels as scanners do."""
    return cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8)


def print_holes(side: int) -> NDArray[np.bool_]:
    """A tear through an eye, a stain beside the mouth, a torn corner and scratches."""
    hole = np.zeros((side, side), dtype=np.uint8)

    def line(points: list[tuple[float, float]], width: float) -> None:
        path = np.round(np.array(points) * side).astype(np.int32)
        cv2.polylines(hole, [path], False, 1, max(1, round(width * side)))

    line([(0.0, 0.62), (0.22, 0.53), (0.37, 0.335), (0.52, 0.30), (0.75, 0.12), (1.0, 0.06)], 0.03)
    cv2.ellipse(
        hole, (round(0.38 * side), round(0.29 * side)), (round(0.075 * side), round(0.05 * side)), 0, 0, 360, 1, -1
    )
    cv2.fillPoly(hole, [np.round(np.array([(1, 0.72), (0.86, 0.83), (0.8, 1), (1, 1)]) * side).astype(np.int32)], 1)
    line([(0.6, 0.0), (0.58, 0.35), (0.61, 1.0)], 0.006)
    line([(0.1, 0.1), (0.3, 0.9)], 0.006)
    return hole > 0


def face_hole(side: int, kind: int) -> NDArray[np.bool_]:
    """A hole on an aligned face: an eye, the mouth, or one half."""
    hole = np.zeros((side, side), dtype=np.uint8)
    if kind == 2:
        hole[:, : side // 2] = 1
    else:
        centre, axes = ((0.345, 0.40), (0.12, 0.085)) if kind == 0 else ((0.5, 0.73), (0.17, 0.09))
        cv2.ellipse(hole, [round(side * x) for x in centre], [round(side * x) for x in axes], 0, 0, 360, 1, -1)
    return hole > 0


def main() -> None:
    """Write the first picture of the README, the one of found damage, and the sheet."""
    completer = FaceCompleter.load(device="cpu")
    astronaut = read_photo(DOCS / "astronaut.jpg").pixels
    photo = sepia(astronaut[:SIDE_PX, 40 : 40 + SIDE_PX])
    hole = print_holes(SIDE_PX)
    torn = np.where(hole[..., None], np.uint8(243), photo)
    done = completer(torn, hole)
    write_photo(DOCS / "print.jpg", np.hstack([torn, overlay_mask(photo, hole), done.pixels]))

    cracked = damage_photo(astronaut[:SIDE_PX, 40 : 40 + SIDE_PX], MIXED, 2, 18).pixels
    done = completer(cracked, "damage")
    write_photo(DOCS / "damage.jpg", np.hstack([cracked, overlay_mask(cracked, done.hole), done.pixels]))

    weights = completer.weights[128].generator
    z = 0.6 * sample_z(60, weights.config, torch.Generator().manual_seed(7))[list(CHOSEN)]  # nearer to the usual face
    faces = [cv2.resize(face, (256, 256), interpolation=cv2.INTER_CUBIC) for face in generate(weights, z)]
    [place] = completer.locate(astronaut)[:1]
    faces = [place.resized(256).warp(astronaut), *faces]
    rows = []
    for index, face in enumerate(faces):
        toned = (lambda each: each, grey, sepia)[index % 3](face)
        under = face_hole(256, (index // 3 + index) % 3)
        position = Alignment.identity(128).rescaled(2)
        found = completer(np.where(under[..., None], np.uint8(0), toned), under, faces=[position])
        rows.append(np.hstack([toned, overlay_mask(toned, under), found.pixels]))
    write_photo(DOCS / "whole.jpg", np.hstack([np.vstack(rows[::2]), np.vstack(rows[1::2])]))


if __name__ == "__main__":
    main()
