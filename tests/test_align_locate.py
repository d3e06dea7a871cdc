"""Faces are located at any angle and size, or by eyes, a box or a landmarks file."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from align import locate
from align.errors import NoFaceError
from align.landmarks import find_faces
from align.template import TEMPLATES
from align.warp import Alignment, fit, transform
from completion.inpaint import inpaint

FACE = TEMPLATES["face"]


@pytest.fixture(scope="module")
def face(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (230, 230, 3): one face."""
    return astronaut[0:230, 110:340].copy()


@pytest.fixture(scope="module")
def landmarks(face: NDArray[np.uint8]) -> NDArray[np.float64]:
    [found] = find_faces(face)
    return found


@pytest.fixture(scope="module")
def aligned(landmarks: NDArray[np.float64]) -> Alignment:
    return fit(FACE, landmarks, 64)


def centre(face: Alignment) -> NDArray[np.float64]:
    """The centre of the crop in the photo."""
    return transform(face.inverse, np.array([31.5, 31.5]))


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 135, 180, -60, -100])
def test_a_face_is_found_at_any_angle(face: NDArray[np.uint8], aligned: Alignment, degrees: float) -> None:
    rotation = cv2.getRotationMatrix2D((115, 115), degrees, 1)
    rotated = cv2.warpAffine(face, rotation, (230, 230), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
    [found] = locate.locate(rotated, FACE, 64)
    assert np.linalg.norm(centre(found) - transform(rotation, centre(aligned))) < 8
    angle = np.degrees(np.subtract(*(np.arctan2(*face.matrix[::-1, 0]) for face in (found, aligned))))
    assert abs((angle - degrees + 180) % 360 - 180) < 10


def test_no_face_is_found_at_any_angle_where_there_is_none(astronaut: NDArray[np.uint8]) -> None:
    assert locate.locate(astronaut[300:, 300:], FACE, 64) == []


def test_small_faces_in_a_large_photo_are_found_on_request(face: NDArray[np.uint8]) -> None:
    large = np.full((1400, 2400, 3), 128, dtype=np.uint8)
    large[200:1120, 100:1020] = cv2.resize(face, (920, 920))
    large[100:330, 2000:2230] = face
    large[900:1060, 2000:2160] = cv2.resize(
        face, (160, 160), interpolation=cv2.INTER_AREA
    )  # too small in the reduced copy
    assert len(locate.locate(large, FACE, 64)) == 1
    found = locate.locate(large, FACE, 64, every=True)
    assert len(found) == 3
    exact = [fit(FACE, points, 64) for points in find_faces(large, upsample=0)]
    for one in found:
        nearest = min(exact, key=lambda other: float(np.linalg.norm(centre(other) - centre(one))))
        assert np.linalg.norm(centre(nearest) - centre(one)) < 2 / nearest.scale  # pixels of the crop


def test_eyes_give_the_same_alignment_as_landmarks(
    face: NDArray[np.uint8], landmarks: NDArray[np.float64], aligned: Alignment
) -> None:
    left, right = landmarks[2:4].mean(axis=0), landmarks[0:2].mean(axis=0)
    assert left[0] < right[0]
    assert np.allclose(locate.align_by_eyes([*left, *right], face.shape[:2], FACE, 64).matrix, aligned.matrix)


@pytest.mark.parametrize("eyes", [[5, 5, 5, 5], [5, 5, float("inf"), 5], [5, 5, 10_000, 5], [-1, 5, 9, 5]])
def test_eyes_that_coincide_or_lie_outside_the_photo_are_refused(eyes: list[float]) -> None:
    with pytest.raises(NoFaceError, match="eyes"):
        locate.align_by_eyes(eyes, (230, 230), FACE, 64)


def test_a_box_from_brows_to_chin_gives_nearly_the_same_alignment(face: NDArray[np.uint8], aligned: Alignment) -> None:
    points = find_faces(face, 68)[0]
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    placed = locate.align_by_box([x0, y0, x1 - x0, y1 - y0], face.shape[:2], FACE, 64)
    assert np.linalg.norm(centre(placed) - centre(aligned)) < 0.15 * (x1 - x0)
    assert placed.scale == pytest.approx(aligned.scale, rel=0.2)


@pytest.mark.parametrize("box", [[5, 5, 0, 9], [5, 5, 9, -1], [5, 5, float("nan"), 9], [500, 5, 90, 90]])
def test_an_empty_box_and_one_outside_the_photo_are_refused(box: list[float]) -> None:
    with pytest.raises(NoFaceError, match="box"):
        locate.align_by_box(box, (230, 230), FACE, 64)


def test_other_templates_need_landmarks() -> None:
    with pytest.raises(NoFaceError, match="give landmarks"):
        locate.align_by_eyes([10, 10, 20, 10], (230, 230), TEMPLATES["outer-eyes-nose"], 64)


def test_landmarks_from_a_file_align_the_faces_of_their_photo(
    tmp_path: Path, landmarks: NDArray[np.float64], aligned: Alignment
) -> None:
    path = tmp_path / "faces.jsonl"
    lines = [
        {"source": "a/one.png", "landmarks": landmarks.tolist(), "crop": "one.png"},
        {"source": "a/one.png", "landmarks": (landmarks + 50).tolist()},
        {"source": "one.png", "landmarks": (landmarks + 9).tolist()},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    both = locate.align_by_landmarks(path, Path("a/one.png"), FACE, 64)
    assert len(both) == 2 and np.allclose(both[0].matrix, aligned.matrix)
    [by_name] = locate.align_by_landmarks(path, Path("b/one.png"), FACE, 64)
    assert np.allclose(centre(by_name), centre(aligned) + 9)
    with pytest.raises(NoFaceError, match="two.png"):
        locate.align_by_landmarks(path, Path("two.png"), FACE, 64)
    with pytest.raises(NoFaceError, match="found 5, .* needs 68"):
        locate.align_by_landmarks(path, Path("one.png"), TEMPLATES["outer-eyes-nose"], 64)


@pytest.mark.parametrize(
    "text",
    [
        *("no json", "[]", '{"source": "one.png"}', '{"source": "one.png", "landmarks": [[1, 2, 3]]}', "\udcff"),
        *(
            f'{{"source": "one.png", "landmarks": [[{number}, 1]]}}'
            for number in ('"a"', "NaN", "1000001", "1e308", "1e999", "1" * 400)
        ),
    ],
)
def test_the_error_names_a_broken_or_missing_landmarks_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faces.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(NoFaceError, match="faces.jsonl"):
        locate.align_by_landmarks(path, Path("one.png"), FACE, 64)
    with pytest.raises(NoFaceError, match="cannot be read"):
        locate.align_by_landmarks(tmp_path / "absent", Path("one.png"), FACE, 64)


def test_a_mostly_hidden_face_is_found_as_a_faint_one(face: NDArray[np.uint8]) -> None:
    [true] = locate.locate(face, FACE, 64)
    eyes = transform(true.inverse, np.array(FACE.targets) * 64)
    middle, strokes = eyes.mean(axis=0), np.random.default_rng(8)
    hole = np.zeros(face.shape[:2], dtype=np.uint8)  # three scratches across the face
    for _ in range(3):
        angle, centre = strokes.uniform(0, np.pi), middle + strokes.normal(0, 15, 2)
        way = 120 * np.array([np.cos(angle), np.sin(angle)])
        first, last = (np.round(end).astype(int).tolist() for end in (centre - way, centre + way))
        cv2.line(hole, first, last, 255, 22)
    crossed = inpaint(face, hole > 0)
    assert locate.locate(crossed, FACE, 64) == []
    [faint, *_] = locate.find_faint(crossed, FACE, 64)
    away = transform(faint.inverse, np.array(FACE.targets) * 64) - eyes
    assert np.linalg.norm(away, axis=1).max() < 0.15 * np.linalg.norm(eyes[1] - eyes[0])
