"""Photos read in processes of their own, which limits end."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import FACE, PORTRAIT, save

from align.errors import PhotoError
from align.warp import Alignment
from completion import FaceCompleter
from dcgan.weights import Weights
from ui.config import Limits
from ui.reader import Reader, read_with_faces


class Slow(FaceCompleter):
    """Searches for ever in a photo of a certain width, and takes all memory in another."""

    def locate(self, photo: Any, *words: Any, **named: Any) -> list[Alignment]:
        if photo.pixels.shape[1] == 33:
            time.sleep(1000)
        if photo.pixels.shape[1] == 34:
            np.ones(2**34)
        if photo.pixels.shape[1] == 35:
            os._exit(1)
        return super().locate(photo, *words, **named)


class Dying(FaceCompleter):
    """Ends the process that receives it."""

    def __setstate__(self, state: Any) -> None:
        os._exit(1)


def test_what_takes_too_much_time_or_memory_is_refused_and_the_next_photo_is_read(
    encoder_weights: Weights, tmp_path: Path
) -> None:
    limits = Limits(max_pixels=512 * 512, seconds=300)
    reads = Reader(Slow(encoder_weights), limits)
    photo, text = save(tmp_path / "portrait.png", PORTRAIT), tmp_path / "text.png"
    text.write_text("text")
    wide = {width: save(tmp_path / f"{width}.png", np.resize(FACE, (8, width, 3))) for width in (33, 34, 35)}
    for path, words in ((text, "not an image"), (wide[34], "the memory of a photo"), (wide[35], "the memory of")):
        with pytest.raises(PhotoError, match=words):
            reads(path)
    found, expected = reads(photo), read_with_faces(photo, FaceCompleter(encoder_weights), limits)
    assert np.array_equal(found.pixels, expected.pixels)
    places = [[face.matrix.tolist() for faces in each.faces.values() for face in faces] for each in (found, expected)]
    assert places[0] == places[1] and places[0]
    with pytest.raises(PhotoError, match="took longer than 1 s"):
        Reader(Slow(encoder_weights), replace(limits, seconds=1))(wide[33])
    with pytest.raises(PhotoError, match="the memory of"):
        Reader(Dying(encoder_weights), limits)(photo)
