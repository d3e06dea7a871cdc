"""Photos read and searched in processes of their own, which limits end."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import FACE, PORTRAIT, box, save

from align.errors import PhotoError
from align.warp import Alignment
from completion import FaceCompleter
from dcgan.weights import Weights
from ui.config import Limits
from ui.reader import Reader, TooSlowError, read_reference, read_with_faces, search


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

    def locate_under(self, photo: Any, hole: Any, aligned: Any = None) -> tuple[list[Alignment], int]:
        if hole.all():
            time.sleep(1000)
        return super().locate_under(photo, hole, aligned)


class Dying(FaceCompleter):
    """Ends the process that receives it."""

    def __setstate__(self, state: Any) -> None:
        os._exit(1)


def end_processes() -> None:
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    end_processes()


def test_what_takes_too_much_time_or_memory_is_refused_and_the_next_photo_is_read(
    encoder_weights: Weights, tmp_path: Path
) -> None:
    limits = Limits(max_pixels=512 * 512, seconds=300)
    does = Reader(Slow(encoder_weights), limits)
    photo, text = save(tmp_path / "portrait.png", PORTRAIT), tmp_path / "text.png"
    text.write_text("text")
    wide = {width: save(tmp_path / f"{width}.png", np.resize(FACE, (8, width, 3))) for width in (33, 34, 35)}
    for path, words in ((text, "not an image"), (wide[34], "the memory of a photo"), (wide[35], "the memory of")):
        with pytest.raises(PhotoError, match=words):
            does(read_with_faces, path)
    completer = FaceCompleter(encoder_weights)
    does(read_with_faces, photo)
    end_processes()
    found, expected = does(read_with_faces, photo), read_with_faces(completer, limits, photo)
    assert np.array_equal(found.pixels, expected.pixels)
    places = [[face.matrix.tolist() for faces in each.faces.values() for face in faces] for each in (found, expected)]
    assert places[0] == places[1] and places[0]
    hole = box(PORTRAIT.shape[:2], 120, 150, 80, 140)
    (faces, hidden), (face, expected_hidden) = does(search, PORTRAIT, hole), completer.locate_under(PORTRAIT, hole)
    assert np.array_equal(faces[0].matrix, face[0].matrix) and hidden == expected_hidden
    [reference], [same] = does(read_reference, photo), read_reference(completer, limits, photo)
    assert np.array_equal(reference.portrait.pixels, same.portrait.pixels) and reference.portrait.name == photo.name
    hasty = Reader(Slow(encoder_weights), replace(limits, seconds=1))
    for work, words in ((read_with_faces, (wide[33],)), (search, (PORTRAIT, hole | True))):
        with pytest.raises(TooSlowError, match="took longer than 1 s"):
            hasty(work, *words)
    with pytest.raises(PhotoError, match="the memory of"):
        Reader(Dying(encoder_weights), limits)(read_with_faces, photo)
