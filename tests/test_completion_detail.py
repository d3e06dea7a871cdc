from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import PORTRAIT, box

from align.landmarks import find_landmarks, predict_aligned
from align.locate import locate
from align.template import TEMPLATES
from align.warp import similarity, transform
from completion import FaceCompleter
from completion.benchmark.samples import Sample, draw_whole_hole
from completion.detail import MIRROR, Generated, Portrait, Warp, mirror, outline, span, transfer, yaw

[FACE] = locate(PORTRAIT, TEMPLATES["face"], 128)
LANDMARKS = predict_aligned(PORTRAIT, FACE)
SHAPE = PORTRAIT.shape[:2]


def hole_of(name: str) -> NDArray[np.bool_]:
    """A hole of the benchmark on the portrait: "eye", "middle", "mouth" or "half"."""
    return draw_whole_hole(name, Sample(0, "portrait", PORTRAIT, FACE, LANDMARKS))


EYE = hole_of("eye")


def fine(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    light = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return light - cv2.GaussianBlur(light, (0, 0), 0.05 * span(LANDMARKS))


def likeness(photo: NDArray[np.uint8], other: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    """Correlation of the fine structure of two photos in a hole."""
    return float(np.corrcoef(fine(photo)[hole], fine(other)[hole])[0, 1])


@pytest.fixture(scope="module")
def completer() -> FaceCompleter:
    return FaceCompleter.load(device="cpu")


def test_predicted_landmarks_are_those_of_the_detector() -> None:
    found = find_landmarks(PORTRAIT, FACE, zoom=2)
    assert found is not None
    assert np.linalg.norm(FACE.apply(LANDMARKS) - found, axis=1).mean() < 0.03 * FACE.size


def test_a_similar_face_is_mapped_exactly() -> None:
    matrix = np.array([[1.2, -0.3, 40], [0.3, 1.2, -25]])
    warp = Warp(LANDMARKS, transform(matrix, LANDMARKS))
    assert np.allclose(similarity(LANDMARKS, transform(matrix, LANDMARKS)), matrix)
    assert warp.misfit < 1e-9
    box = slice(60, 110), slice(50, 130)
    y, x = np.mgrid[box]
    assert np.allclose(warp(box), transform(matrix, np.stack([x, y], axis=-1)), atol=1e-3)


def test_a_moved_landmark_is_followed_and_counts_as_misfit() -> None:
    moved = LANDMARKS.copy()
    moved[30] += [6, 0]
    warp = Warp(LANDMARKS, moved)
    x, y = np.round(LANDMARKS[30]).astype(int)
    box = slice(y - 1, y + 2), slice(x - 1, x + 2)
    assert 2 < warp(box)[1, 1, 0] - x < 6.5
    assert warp.misfit == pytest.approx(6 / np.sqrt(68) / span(moved), rel=0.1)


def test_a_mirror_image_twice_is_the_photo() -> None:
    hole = np.zeros(SHAPE, dtype=bool)
    once = mirror(PORTRAIT, hole, LANDMARKS)
    twice = mirror(once.pixels, hole, once.landmarks)
    assert np.array_equal(twice.pixels, PORTRAIT) and np.allclose(twice.landmarks, LANDMARKS)
    assert yaw(once.landmarks) == pytest.approx(-yaw(LANDMARKS), abs=1e-6)


def test_the_outline_holds_the_face_and_grows() -> None:
    face, grown = outline(LANDMARKS, SHAPE, 0), outline(LANDMARKS, SHAPE, 0.3)
    x, y = np.round(LANDMARKS).astype(int).T
    assert face[y, x].mean() > 0.95  # all but some on the border
    assert grown[face].all() and grown.sum() > 1.2 * face.sum()


def test_a_portrait_gives_its_detail_but_not_its_light() -> None:
    hole = EYE
    blurred = cv2.GaussianBlur(PORTRAIT, (0, 0), 4)
    coarse = np.where(hole[..., None], blurred, PORTRAIT)
    darker = np.round(0.6 * PORTRAIT).astype(np.uint8)
    done = transfer(Generated(PORTRAIT, coarse, hole, hole, LANDMARKS), Portrait("same", darker, LANDMARKS), 0.15)
    assert done is not None and done.misfit < 1e-6 and np.array_equal(done.part, hole)
    assert likeness(done.pixels, PORTRAIT, hole) > 0.9
    assert abs(float(done.pixels[hole].mean()) - float(coarse[hole].mean())) < 1


def test_portraits_that_do_not_fit_or_show_too_little_give_nothing() -> None:
    hole = EYE
    flat = LANDMARKS.copy()
    flat[:, 0] = LANDMARKS[:, 0].mean() + 0.5 * (LANDMARKS[:, 0] - LANDMARKS[:, 0].mean())
    assert (
        transfer(Generated(PORTRAIT, PORTRAIT, hole, hole, LANDMARKS), Portrait("turned", PORTRAIT, flat), 0.15) is None
    )
    both = hole | hole[:, ::-1]
    assert (
        transfer(Generated(PORTRAIT, PORTRAIT, both, both, LANDMARKS), mirror(PORTRAIT, both, LANDMARKS), 0.2) is None
    )
    turned = replace(mirror(PORTRAIT, hole, LANDMARKS), landmarks=flat)
    assert transfer(Generated(PORTRAIT, PORTRAIT, hole, hole, LANDMARKS), turned, 0.2) is None


@pytest.mark.parametrize("way", [-0.12, 0.12])
def test_a_mirrored_iris_looks_where_the_visible_one_does(way: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("completion.detail._LASHES", 0.0)  # drawn eyes have none
    photo = np.full((*SHAPE, 3), 200, dtype=np.uint8)
    points = LANDMARKS.copy()
    # Two level almond eyes of 24 px, symmetric about the middle of the photo.
    middle = (SHAPE[1] - 1) / 2
    shape = np.array([(-12, 0), (-5, -5), (5, -5), (12, 0), (5, 5), (-5, 5)], dtype=float)
    points[36:42], points[42:48] = shape + [middle - 30, 100], shape + [middle + 30, 100]
    symmetric = (points + (points * [-1, 1] + [2 * middle, 0])[mirror_order()]) / 2
    for eye in (slice(36, 42), slice(42, 48)):
        x = symmetric[eye].mean(axis=0)[0] + 24 * way
        cv2.fillPoly(photo, [np.round(symmetric[eye]).astype(np.int32)], (235, 235, 235))
        cv2.circle(photo, (round(float(x)), 100), 3, (20, 20, 20), -1)
    hole = box(SHAPE, 85, 116, round(middle + 5), round(middle + 60))
    coarse = np.where(hole[..., None], np.uint8(210), photo)
    done = transfer(Generated(photo, coarse, hole, hole, symmetric), mirror(coarse, hole, symmetric), 0.2)
    assert done is not None
    dark = np.where(hole, np.maximum(0, 120.0 - done.pixels.mean(axis=2)), 0)
    centre = float((dark.sum(axis=0) @ np.arange(SHAPE[1])) / dark.sum())
    assert np.sign(centre - (middle + 30)) == np.sign(way)


def mirror_order() -> list[int]:
    """Where each landmark is in the mirror image."""
    once = mirror(np.zeros((1, 1, 3), dtype=np.uint8), np.zeros((1, 1), dtype=bool), np.arange(136.0).reshape(68, 2))
    return [int(round(y - 1)) // 2 for y in once.landmarks[:, 1]]


@pytest.mark.parametrize("name", ["a", "b"])  # draw the hole over different eyes
def test_an_eye_comes_from_the_other_half_of_a_symmetric_face(completer: FaceCompleter, name: str) -> None:
    crop = FACE.resized(256).warp(PORTRAIT)
    symmetric = np.hstack([crop[:, :128], crop[:, :128][:, ::-1]])
    face = FACE.identity(256)
    landmarks = predict_aligned(symmetric, face)
    under = draw_whole_hole("eye", Sample(0, name, symmetric, face, landmarks))
    seen = np.where(under[..., None], np.uint8(0), symmetric)
    found = {detail: completer(seen, under, faces=[face], detail=detail) for detail in ("auto", "network")}
    assert found["auto"].details["face 1"].source == MIRROR
    assert any("mirror image" in note for note in found["auto"].notes) and not found["network"].details
    auto, network = (likeness_at(found[each].pixels, symmetric, under) for each in ("auto", "network"))
    assert auto > 0.5 and auto > network + 0.1


def likeness_at(photo: NDArray[np.uint8], other: NDArray[np.uint8], hole: NDArray[np.bool_]) -> float:
    light = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float32) for each in (photo, other)]
    bands = [each - cv2.GaussianBlur(each, (0, 0), 4) for each in light]
    return float(np.corrcoef(bands[0][hole], bands[1][hole])[0, 1])


def test_a_face_that_does_not_fit_stays_as_the_network_made_it(
    completer: FaceCompleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hole = EYE
    network = completer(PORTRAIT, hole, faces=[FACE], detail="network")
    monkeypatch.setattr("completion.detail.MIRROR_LIMIT", 0.0)
    done = completer(PORTRAIT, hole, faces=[FACE])
    assert np.array_equal(done.pixels, network.pixels) and not done.details


@pytest.mark.slow
def test_results_are_repeatable_and_keep_the_visible_pixels(completer: FaceCompleter) -> None:
    hole = box(SHAPE, 0, 230, 115, 230)
    first, second = (completer(PORTRAIT, hole, faces=[FACE]) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert (first.pixels[~hole] == PORTRAIT[~hole]).all()
    assert set(first.sources) == {"face 1", "surroundings"}
    assert not (first.sources["face 1"] & first.sources["surroundings"]).any()


@pytest.mark.slow
def test_candidates_come_from_different_sources(completer: FaceCompleter) -> None:
    hole = EYE
    found = completer(PORTRAIT, hole, faces=[FACE], candidates=2).candidates
    assert np.array_equal(found[0], completer(PORTRAIT, hole, faces=[FACE]).pixels)
    assert np.array_equal(
        found[1], completer(PORTRAIT, hole, faces=[FACE], detail="network", candidates=2).candidates[0]
    )
