"""Landmarks by dlib on a public-domain face; errors for missing models."""

import importlib.util
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import dlib
import numpy as np
import pytest
from PIL import Image

from align import landmarks
from align.errors import LandmarkModelError
from align.landmarks import find_faces
from align.template import TEMPLATES
from align.warp import fit

# Pupils in the photo's pixels, measured by hand.
PUPILS = np.array([[205.0, 101.0], [246.0, 104.0]])


@pytest.fixture(autouse=True)
def fresh_models(monkeypatch):
    monkeypatch.setattr(landmarks, "_per_thread", threading.local())
    landmarks.predictor.cache_clear()


def test_threads_share_no_detector():
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(landmarks.detector).result()
    assert landmarks.detector() is landmarks.detector() is not other


def test_a_kept_detector_finds_what_that_of_dlib_finds(astronaut, tmp_path, monkeypatch):
    kept, unpacked = tmp_path / "folder" / "detector.svm", dlib.get_frontal_face_detector()
    monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: unpacked)  # which takes 0.3 s
    face = np.ascontiguousarray(astronaut[20:230, 110:330])
    expected = unpacked.run(face, 0, -1.0)
    assert max(expected[1]) > 1
    for damage in (None, b"", b"garbage", "half"):  # of the file that the last one has written
        if damage is not None:
            kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2] if damage == "half" else damage)
        assert landmarks.open_detector(kept) is unpacked and os.listdir(kept.parent) == [kept.name]
        found = landmarks.open_detector(kept)
        assert found is not unpacked and found.run(face, 0, -1.0) == expected
    (tmp_path / "file").touch()
    assert landmarks.open_detector(tmp_path / "file" / "detector.svm") is unpacked  # where nothing can be written


def crop(photo, template="face", **settings):
    points = find_faces(photo, TEMPLATES[template].points, **settings)[0]
    return fit(TEMPLATES[template], points, 64).warp(photo)


@pytest.mark.parametrize("points", [5, 68])
def test_the_eyes_are_found(astronaut, points):
    [face] = find_faces(astronaut, points)
    assert face.shape == (points, 2) and face.dtype == np.float64
    eyes = [[2, 3], [0, 1]] if points == 5 else [list(range(36, 42)), list(range(42, 48))]
    assert np.array([face[eye].mean(axis=0) for eye in eyes]) == pytest.approx(PUPILS, abs=5)


@pytest.mark.parametrize("degrees", [-20, -10, 10, 20, 30])
def test_a_rotated_face_is_cut_out_upright(astronaut, degrees):
    rotated = np.asarray(Image.fromarray(astronaut).rotate(degrees, Image.Resampling.BICUBIC))
    upright, again = (crop(photo)[12:52, 12:52].astype(float).ravel() for photo in (astronaut, rotated))
    assert np.corrcoef(upright, again)[0, 1] > 0.85
    assert np.corrcoef(upright, rotated[60:100, 200:240].ravel())[0, 1] < 0.85  # proves that the test can fail


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_centres_the_face(astronaut, template):
    pixels = crop(astronaut, template).astype(float)
    skin = (pixels[..., 0] > pixels[..., 2] + 20) & (pixels[..., 0] > 120)
    assert abs(np.nonzero(skin)[1].mean() - 31.5) < 5


def test_a_photo_without_a_face_gives_an_empty_list():
    assert find_faces(np.full((200, 200, 3), 128, dtype=np.uint8)) == []


def test_the_largest_face_comes_first(astronaut):
    face = Image.fromarray(astronaut[20:230, 110:330])
    photo = np.full((300, 700, 3), 128, dtype=np.uint8)
    for share, x in ((0.75, 10), (1.2, 180), (0.95, 450)):
        small = np.asarray(face.resize((int(220 * share), int(210 * share)), Image.Resampling.LANCZOS))
        photo[20 : 20 + small.shape[0], x : x + small.shape[1]] = small
    faces = find_faces(photo)
    assert len(faces) == 3
    assert [sum(points[:, 0].mean() > np.array([180, 450])) for points in faces] == [1, 2, 0]


def test_a_confident_face_comes_before_a_larger_doubtful_one(astronaut):
    # At this angle the detector takes the round badge on the suit for a larger face.
    faces = find_faces(np.asarray(Image.fromarray(astronaut).rotate(-20, Image.Resampling.BICUBIC)))
    assert len(faces) == 2 and faces[0][:, 1].max() < 180 < faces[1][:, 1].min()


class Detector:
    """Finds one face with the given score for each doubling, or none for None."""

    def __init__(self, scores):
        self.scores, self.doublings = scores, []

    def run(self, photo, doublings, _):
        import dlib

        self.doublings.append(doublings)
        if self.scores[doublings] is None:
            return [], [], []
        return [dlib.rectangle(180 + doublings, 84, 266 + doublings, 170)], [self.scores[doublings]], []


@pytest.mark.parametrize(
    ("scores", "searched", "used"),
    [
        ([1.0, 2.0, 2.0], [0], 0),
        ([0.3, 0.9, 2.0], [0, 1], 1),
        ([0.3, 0.2, None], [0, 1, 2], 0),
        ([None, None, 0.1], [0, 1, 2], 2),
        ([None, None, None], [0, 1, 2], None),
    ],
)
def test_photos_are_doubled_until_a_face_is_confident(astronaut, monkeypatch, scores, searched, used):
    detector, boxes, predictor = Detector(scores), [], landmarks.predictor(5)

    def predict(photo, box):
        boxes.append(box)
        return predictor(photo, box)

    monkeypatch.setattr(landmarks, "detector", lambda: detector)
    monkeypatch.setattr(landmarks, "predictor", lambda _: predict)
    find_faces(astronaut, upsample=2)
    assert detector.doublings == searched
    assert [box.left() for box in boxes] == ([] if used is None else [180 + used])


def test_a_face_cut_off_by_the_edge_and_a_tiny_face_are_found(astronaut):
    [face, *_] = find_faces(np.ascontiguousarray(astronaut[80:]))
    assert face[[2, 3]].mean(axis=0) == pytest.approx(PUPILS[0] - [0, 80], abs=6)
    tiny = Image.fromarray(astronaut[0:200, 130:330]).resize((48, 48), Image.Resampling.LANCZOS)
    assert find_faces(np.asarray(tiny), upsample=1) == []
    [face] = find_faces(np.asarray(tiny), upsample=2)
    assert face[[2, 3]].mean(axis=0) == pytest.approx((PUPILS[0] - [130, 0]) * 48 / 200, abs=3)


def test_photos_are_not_doubled_beyond_40_megapixels(monkeypatch):
    detector = Detector([None] * 4)
    monkeypatch.setattr(landmarks, "detector", lambda: detector)
    find_faces(np.broadcast_to(np.uint8(0), (1_000, 4_000, 3)), upsample=3)
    assert detector.doublings == [0, 1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (65_500, 1), (2, 2)])
def test_thin_photos_have_no_face(shape):
    assert find_faces(np.zeros((*shape, 3), dtype=np.uint8), upsample=2) == []


def test_the_face_in_an_aligned_crop_is_found_in_place(astronaut):
    face = crop(astronaut)
    assert np.abs(crop(face).astype(int) - face).mean() < 15


@pytest.mark.parametrize("data", [None, b"", b"garbage", "half"])
def test_the_error_names_a_missing_or_broken_landmark_file(tmp_path, monkeypatch, data):
    name = "shape_predictor_5_face_landmarks.dat"
    if data == "half":
        whole = landmarks.model_path(name).read_bytes()
        data = whole[: len(whole) // 2]
    (tmp_path / "models").mkdir()
    if data is not None:
        (tmp_path / "models" / name).write_bytes(data)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    what = "is missing" if data is None else "is broken"
    with pytest.raises(LandmarkModelError, match=f"{name} {what}.*pip install"):
        find_faces(np.zeros((9, 9, 3), dtype=np.uint8))


def test_the_error_names_a_missing_model_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LandmarkModelError, match="pip install .*face_recognition_models"):
        find_faces(np.zeros((9, 9, 3), dtype=np.uint8))


def test_without_dlib_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(LandmarkModelError, match="pip install dlib-bin"):
        find_faces(np.zeros((9, 9, 3), dtype=np.uint8))
