"""Faces cut out in memory."""

import numpy as np
import pytest
from pictures import NO_FACE, PORTRAIT
from PIL import Image

from align import align_faces
from align.errors import InputError
from align.landmarks import find_faces
from align.template import TEMPLATES
from align.warp import fit


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_landmarks_of_each_face_lie_on_the_targets(template: str) -> None:
    pair = np.hstack([PORTRAIT, PORTRAIT])
    faces = align_faces(pair, size=96, template=template)
    found = find_faces(pair, TEMPLATES[template].points)
    assert len(faces) == len(found) == 2
    for face, landmarks in zip(faces, found, strict=True):
        assert np.array_equal(face.landmarks, landmarks)
        assert np.array_equal(face.alignment.matrix, fit(TEMPLATES[template], landmarks, 96).matrix)
        assert face.image.size == (96, 96) and np.array_equal(face.image, face.pixels)


def test_every_form_of_a_photo_gives_the_same_faces() -> None:
    [expected] = align_faces(PORTRAIT)
    for photo in (Image.fromarray(PORTRAIT), Image.fromarray(PORTRAIT).convert("RGBA"), PORTRAIT / 255):
        [face] = align_faces(photo)
        assert np.array_equal(face.pixels, expected.pixels) and face.pixels.shape == (64, 64, 3)


def test_a_photo_without_a_face_gives_none() -> None:
    assert align_faces(NO_FACE) == []


def test_unknown_templates_and_sizes_are_reported() -> None:
    for name, value in (("template", "faces"), ("template", 3), ("size", 0), ("size", "x"), ("upsample", -1)):
        with pytest.raises(InputError, match=f"{name} is {value!r}; expected"):
            align_faces(PORTRAIT, **{name: value})  # type: ignore[arg-type]
