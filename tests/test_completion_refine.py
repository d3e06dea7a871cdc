"""The position of a partly hidden face is found from what is visible of it."""

from pathlib import Path

import numpy as np
import pytest
from completion.complete import FaceCompleter
from completion.refine import locate_hidden, moved
from numpy.typing import NDArray
from pictures import PORTRAIT

import weights
from align import locate as locate_module
from align.locate import eyes_in_view, locate, view_of
from align.template import TEMPLATES
from align.warp import Alignment, fit, transform
from completion import refine
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


def test_a_view_shows_the_crop_and_as_much_around_it_as_its_reach_says() -> None:
    view = view_of(placed((30, 40), (50, 45)), 100, 1.6)
    corners = np.array([(-0.5, -0.5), (63.5, 63.5)])
    in_view = view.apply(transform(placed((30, 40), (50, 45)).inverse, corners))
    assert in_view == pytest.approx(np.array([(18.25, 18.25), (80.75, 80.75)]))  # 62.5 of 100 pixels, about the centre


@pytest.mark.parametrize("size", [64, 128])
def test_a_face_moves_to_where_its_eyes_are(size: int) -> None:
    here, there = placed((30, 40), (50, 45), size), placed((33, 36), (58, 41), size)
    where = view_of(here).apply(eyes(placed((33, 36), (58, 41), refine.VIEW_PX)))
    assert moved(here, where).matrix == pytest.approx(there.matrix)


@pytest.mark.parametrize(
    "hole", [(0.5, 0, 1, 1), (0, 0, 0.5, 1), (0.2, 0.3, 0.8, 0.55), (0.15, 0.2, 0.85, 0.7)], ids=str
)
def test_the_eyes_of_a_face_are_found_although_they_are_hidden(
    true: Alignment, hole: tuple[float, float, float, float]
) -> None:
    under, errors = covered(true, *hole), []
    apart = np.linalg.norm(np.diff(eyes(true), axis=0))
    for dx, dy, turn in ((0.3, 0, 0), (-0.3, 0.1, 0), (0, -0.3, 0.1), (0, 0, -0.3)):
        left, right = eyes(true) + apart * np.array([(dx, dy + turn), (dx, dy - turn)])
        start = placed(tuple(left), tuple(right))
        found = locate_hidden(PORTRAIT, under, start)
        assert found.size == start.size
        errors.append((error(start, true), error(found, true)))
    before, after = np.mean(errors, axis=0)
    assert after < 0.7 * before


@pytest.mark.parametrize("times", [1, 4])
def test_the_position_does_not_depend_on_the_size_of_the_photo(true: Alignment, times: int) -> None:
    under = covered(true, 0.5, 0, 1, 1)
    expected = locate_hidden(PORTRAIT, under, true)
    large = PORTRAIT.repeat(times, axis=0).repeat(times, axis=1)
    found = locate_hidden(large, under.repeat(times, axis=0).repeat(times, axis=1), true.rescaled(times))
    assert error(found.rescaled(1 / times), expected) < 0.02


def test_what_is_under_the_hole_has_no_effect_on_the_position(true: Alignment) -> None:
    under = covered(true, 0.5, 0, 1, 1)
    one = locate_hidden(PORTRAIT, under, true)
    other = locate_hidden(np.where(under[..., None], 255 - PORTRAIT, PORTRAIT), under, true)
    elsewhere = locate_hidden(np.where(under[..., None], PORTRAIT, 255 - PORTRAIT), under, true)
    # Views are interpolated, so pixels next to the hole are marked as hidden as well.
    assert error(one, other) == pytest.approx(0, abs=1e-6)
    assert error(one, elsewhere) > 1e-3


@pytest.mark.parametrize(
    ("hole", "hides"),
    [((0.3, 0.6, 0.7, 0.9), False), ((0.6, 0.38, 0.7, 0.44), True), ((0, 0, 1, 1), True), ((0, 0.9, 1, 1), False)],
)
def test_only_a_face_whose_eyes_are_hidden_moves(
    true: Alignment, hole: tuple[float, float, float, float], hides: bool
) -> None:
    assert (locate_hidden(PORTRAIT, covered(true, *hole), true) is not true) is hides


def test_completion_corrects_the_position_only_where_the_eyes_are_hidden(true: Alignment) -> None:
    completer = FaceCompleter.load("faces-64", "cpu")
    half = completer(np.where(covered(true, 0.5, 0, 1, 1)[..., None], 0, PORTRAIT), covered(true, 0.5, 0, 1, 1))
    assert error(half.faces[0], true) < 0.15
    mouth = completer(PORTRAIT, covered(true, 0.3, 0.65, 0.7, 0.85))
    assert error(mouth.faces[0], true) < 0.05


def test_a_position_that_strayed_to_another_face_is_not_used(monkeypatch: pytest.MonkeyPatch, true: Alignment) -> None:
    under = covered(true, 0.5, 0.3, 0.8, 0.5)
    completer = FaceCompleter.load("faces-64", "cpu")
    away = placed((10, 20), (20, 20))
    monkeypatch.setattr(refine, "locate_hidden", lambda photo, hole, face: away)
    assert error(completer(PORTRAIT, under).faces[0], true) < 0.2


def test_a_face_that_one_fill_hides_is_found_with_the_other(monkeypatch: pytest.MonkeyPatch, true: Alignment) -> None:
    under, fills = covered(true, 0.5, 0, 1, 1), []

    def find_faint(photo: NDArray[np.uint8], *_: object) -> list[Alignment]:
        fills.append(photo)
        return [true] if len(fills) == 2 else []

    monkeypatch.setattr(locate_module, "find_upright", lambda *_: [])
    monkeypatch.setattr(locate_module, "find_hard", lambda *_: [])
    monkeypatch.setattr(locate_module, "find_faint", find_faint)
    completion = FaceCompleter.load("faces-64", "cpu")(PORTRAIT, under)
    assert error(completion.faces[0], true) < 0.2
    assert len(fills) == 2 and not np.array_equal(*fills)
    assert np.array_equal(fills[1][~under], PORTRAIT[~under])


def test_a_damaged_locator_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, true: Alignment) -> None:
    refine._session.cache_clear()
    (tmp_path / weights.LOCATOR).write_bytes((weights.FOLDER / weights.LOCATOR).read_bytes()[:-1])
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=r"locator.onnx has sha256 \w+, expected \w+; reinstall"):
        locate_hidden(PORTRAIT, covered(true, 0.5, 0, 1, 1), true)
    (tmp_path / weights.LOCATOR).unlink()
    with pytest.raises(WeightsError, match=r"locator.onnx cannot be read.*; reinstall"):
        locate_hidden(PORTRAIT, covered(true, 0.5, 0, 1, 1), true)


def test_eyes_in_the_view_are_those_of_the_template() -> None:
    face = Alignment.identity(refine.VIEW_PX)
    assert transform(view_of(face).inverse, eyes_in_view()) == pytest.approx(EYES * refine.VIEW_PX)
