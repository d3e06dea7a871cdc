import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import PORTRAIT, box

from align.locate import locate
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion import FaceCompleter
from completion.octave import sharpen
from completion.regions import hole_in_crop
from completion.tone import grey, luma

[FACE] = locate(PORTRAIT, TEMPLATES["face"], 64)
FINE = FACE.resized(128)  # about the size of the face in the photo
x, y = transform(FINE.inverse, np.array([[64, 90]]))[0].astype(int)
MOUTH = box(PORTRAIT.shape, y - 18, y + 18, x - 26, x + 26)


def sharpened(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The crop with its mouth from a crop of half the size."""
    return sharpen(photo, MOUTH, FACE, FACE.warp(PORTRAIT), False)


def test_a_soft_fill_becomes_as_sharp_as_the_photo() -> None:
    def detail(crop: NDArray[np.uint8]) -> float:
        light = cv2.GaussianBlur(luma(crop).astype(np.float32), (0, 0), 1)
        return float(np.abs(cv2.Laplacian(light, cv2.CV_32F))[hole_in_crop(MOUTH, FINE)].mean())

    small = FACE.warp(PORTRAIT)
    fill = FaceCompleter.load(device="cpu")(small, hole_in_crop(MOUTH, FACE), faces=[Alignment.identity(64)]).pixels
    enlarged = cv2.resize(fill, (128, 128), interpolation=cv2.INTER_CUBIC)
    soft, made, true = map(detail, (enlarged, sharpen(PORTRAIT, MOUTH, FACE, fill, False), FINE.warp(PORTRAIT)))
    assert soft < 0.9 * true
    assert abs(made - true) < 0.7 * (true - soft)


def test_visible_pixels_stay_and_those_under_the_hole_have_no_effect() -> None:
    covered = np.where(MOUTH[..., None], np.uint8(255), PORTRAIT)
    made, visible = sharpened(PORTRAIT), ~hole_in_crop(MOUTH, FINE)
    assert np.array_equal(made, sharpened(covered))
    assert np.array_equal(made[visible], FINE.warp(PORTRAIT)[visible])


def test_grey_stays_grey() -> None:
    made = sharpen(grey(PORTRAIT), MOUTH, FACE, FACE.warp(grey(PORTRAIT)), True)
    assert np.array_equal(made, grey(made))


def test_only_enlarged_faces_are_sharpened_unless_the_networks_are_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    completer, sizes = FaceCompleter.load(device="cpu"), list[int]()

    def seen(*inputs: object) -> NDArray[np.uint8]:
        made = sharpen(*inputs)  # type: ignore[arg-type]
        sizes.append(len(made))
        return made

    monkeypatch.setattr("completion.variants.sharpen", seen)
    large = cv2.resize(PORTRAIT, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    completer(PORTRAIT, MOUTH)
    completer(large, MOUTH.repeat(2, 0).repeat(2, 1), detail="network")
    assert not sizes
    completer(large, MOUTH.repeat(2, 0).repeat(2, 1))
    assert sizes == [256]
