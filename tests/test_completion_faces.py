"""The position of a partly hidden face is found from what is visible of it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import PORTRAIT

import weights
from align import locate as locate_module
from align.errors import NoFaceError
from align.locate import VIEW_PX, eyes_in_view, locate, view_of
from align.template import TEMPLATES
from align.warp import Alignment, fit, transform
from completion.config import FillOptions
from completion.faces import faces_under, given_face, locate_hidden, moved
from completion.runtime import bundled_session
from dcgan.weights import WeightsError

FACE = TEMPLATES["face"]
EYES = np.array(FACE.targets)  # in a crop, relative to its side


@pytest.fixture(scope="module")
def true() -> Alignment:
    """Where the face of PORTRAIT lies."""
    [found] = locate(PORTRAIT, FACE, 64)
    return found


def placed(left: tuple[float, float], right: tuple[float, float], size: int = 64) -> Alignment:
    """The alignment of a face by its eyes."""
    return fit(FACE, np.array([right, right, left, left, left], dtype=np.float64), size)


def eyes(face: Alignment) -> NDArray[np.float64]:
    return transform(face.inverse, EYES * face.size)


def error(face: Alignment, true: Alignment) -> float:
    """How far the worse eye is off, in distances between the eyes."""
    off = np.linalg.norm(eyes(face) - eyes(true), axis=1).max()
    return float(off / np.linalg.norm(np.diff(eyes(true), axis=0)))


def covered(true: Alignment, left: float, top: float, right: float, bottom: float) -> NDArray[np.bool_]:
    """A rectangle on the crop, whose sides are relative to the crop's."""
    ys, xs = np.mgrid[: PORTRAIT.shape[0], : PORTRAIT.shape[1]]
    x, y = np.moveaxis(true.apply(np.stack([xs, ys], axis=-1)) / true.size, -1, 0)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def under(hole: NDArray[np.bool_]) -> Alignment:
    """The only face of PORTRAIT under a hole."""
    [found], _ = faces_under(PORTRAIT, hole, FACE, 64)
    return found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eyes": (38, 40, 38.001, 40)}, r"side of 0.00\d+ px; expected 4 to 400 in a photo of 100x50"),
        ({"eyes": (-1e6, 40, 1e6, 40)}, "not both inside"),
        ({"box": (10, 10, 0, 20)}, "the box is 0x20"),
    ],
)
def test_an_impossible_position_is_refused(options: dict[str, tuple[float, ...]], words: str) -> None:
    with pytest.raises(NoFaceError, match=words):
        given_face(FillOptions(**options), (50, 100), FACE, 64)  # type: ignore[arg-type]
    assert given_face(FillOptions(), (50, 100), FACE, 64) is None


def test_a_view_shows_the_crop_its_margin_and_the_eyes_of_the_template() -> None:
    crop = placed((30, 40), (50, 45))
    corners = transform(crop.inverse, np.array([(-0.5, -0.5), (63.5, 63.5)]))
    # 62.5 of 100 pixels, about the centre.
    assert view_of(crop, 100, 1.6).apply(corners) == pytest.approx(np.array([(18.25, 18.25), (80.75, 80.75)]))
    face = Alignment.identity(VIEW_PX)
    assert transform(view_of(face).inverse, eyes_in_view()) == pytest.approx(EYES * VIEW_PX)


@pytest.mark.parametrize("size", [64, 128])
def test_a_face_moves_to_where_its_eyes_are(size: int) -> None:
    here, there = placed((30, 40), (50, 45), size), placed((33, 36), (58, 41), size)
    where = view_of(here).apply(eyes(placed((33, 36), (58, 41), VIEW_PX)))
    assert moved(here, where).matrix == pytest.approx(there.matrix)


@pytest.mark.parametrize(
    "hole", [(0.5, 0, 1, 1), (0, 0, 0.5, 1), (0.2, 0.3, 0.8, 0.55), (0.15, 0.2, 0.85, 0.7)], ids=str
)
def test_hidden_eyes_are_found(true: Alignment, hole: tuple[float, float, float, float]) -> None:
    hidden, errors = covered(true, *hole), []
    apart = np.linalg.norm(np.diff(eyes(true), axis=0))
    for dx, dy, turn in ((0.3, 0, 0), (-0.3, 0.1, 0), (0, -0.3, 0.1), (0, 0, -0.3)):
        left, right = eyes(true) + apart * np.array([(dx, dy + turn), (dx, dy - turn)])
        start = placed(tuple(left), tuple(right))
        found = locate_hidden(PORTRAIT, hidden, start)
        assert found.size == start.size
        errors.append((error(start, true), error(found, true)))
    before, after = np.mean(errors, axis=0)
    assert after < 0.7 * before


@pytest.mark.parametrize("times", [1, 4])
def test_the_position_does_not_depend_on_the_size_of_the_photo(true: Alignment, times: int) -> None:
    hole = covered(true, 0.5, 0, 1, 1)
    expected = locate_hidden(PORTRAIT, hole, true)
    large, large_hole = (values.repeat(times, axis=0).repeat(times, axis=1) for values in (PORTRAIT, hole))
    found = locate_hidden(large, large_hole, true.rescaled(times))
    assert error(found.rescaled(1 / times), expected) < 0.02


def test_what_is_under_the_hole_has_no_effect_on_the_position(true: Alignment) -> None:
    hole = covered(true, 0.5, 0, 1, 1)
    one = locate_hidden(PORTRAIT, hole, true)
    other = locate_hidden(np.where(hole[..., None], 255 - PORTRAIT, PORTRAIT), hole, true)
    elsewhere = locate_hidden(np.where(hole[..., None], PORTRAIT, 255 - PORTRAIT), hole, true)
    # Views are interpolated, so pixels next to the hole are marked as hidden as well.
    assert error(one, other) == pytest.approx(0, abs=1e-6) and error(one, elsewhere) > 1e-3


@pytest.mark.parametrize(
    ("hole", "hides"),
    [((0.3, 0.6, 0.7, 0.9), False), ((0.6, 0.38, 0.7, 0.44), True), ((0, 0, 1, 1), True), ((0, 0.9, 1, 1), False)],
)
def test_only_a_face_whose_eyes_are_hidden_moves(
    true: Alignment, hole: tuple[float, float, float, float], hides: bool
) -> None:
    assert (locate_hidden(PORTRAIT, covered(true, *hole), true) is not true) is hides


def test_the_position_of_a_detected_face_is_corrected_unless_it_strays_to_another(
    true: Alignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error(under(covered(true, 0.5, 0, 1, 1)), true) < 0.15
    assert error(under(covered(true, 0.3, 0.65, 0.7, 0.85)), true) < 0.05
    monkeypatch.setattr("completion.faces.locate_hidden", lambda photo, hole, face: placed((10, 20), (20, 20)))
    assert error(under(covered(true, 0.5, 0.3, 0.8, 0.5)), true) < 0.2


def test_a_face_that_one_fill_hides_is_found_with_the_other(monkeypatch: pytest.MonkeyPatch, true: Alignment) -> None:
    hole, fills = covered(true, 0.5, 0, 1, 1), []

    def find_faint(photo: NDArray[np.uint8], *_: object) -> list[Alignment]:
        fills.append(photo)
        return [true] if len(fills) == 2 else []

    monkeypatch.setattr(locate_module, "find_upright", lambda *_: [])
    monkeypatch.setattr(locate_module, "find_hard", lambda *_: [])
    monkeypatch.setattr(locate_module, "find_faint", find_faint)
    assert error(under(hole), true) < 0.2
    assert len(fills) == 2 and not np.array_equal(*fills)
    assert np.array_equal(fills[1][~hole], PORTRAIT[~hole])


def test_a_damaged_locator_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, true: Alignment) -> None:
    bundled_session.cache_clear()
    (tmp_path / weights.LOCATOR).write_bytes((weights.FOLDER / weights.LOCATOR).read_bytes()[:-1])
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    for words in (r"locator.onnx has sha256 \w+, expected \w+; reinstall", "locator.onnx cannot be read.*; reinstall"):
        with pytest.raises(WeightsError, match=words):
            locate_hidden(PORTRAIT, covered(true, 0.5, 0, 1, 1), true)
        (tmp_path / weights.LOCATOR).unlink(missing_ok=True)


def test_a_large_photo_is_searched_at_reduced_size(monkeypatch: pytest.MonkeyPatch, true: Alignment) -> None:
    hole = covered(true, 0, 0.6, 1, 1)
    monkeypatch.setattr("completion.faces._SEARCHED_PX", 180)
    assert error(under(hole), true) < 0.1
