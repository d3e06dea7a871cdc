"""dlib on a public-domain face: found, upright, and named when something is absent."""

import builtins

import numpy as np
import pytest
from PIL import Image

from align import landmarks as landmarks_module
from align.errors import LandmarkModelError
from align.landmarks import find_faces
from align.template import TEMPLATES
from align.warp import fit

# Read off the picture by eye: the pupils, in the photo's pixels.
PUPILS = np.array([[205.0, 101.0], [246.0, 104.0]])


@pytest.fixture(autouse=True)
def fresh_models():
    landmarks_module._detector.cache_clear()
    landmarks_module._predictor.cache_clear()


def crop(photo, template="face", **settings):
    points = find_faces(photo, TEMPLATES[template].points, **settings)[0]
    return fit(TEMPLATES[template], points, 64).warp(photo)


@pytest.mark.parametrize("points", [5, 68])
def test_the_eyes_are_where_they_are(astronaut, points):
    [face] = find_faces(astronaut, points)
    assert face.shape == (points, 2) and face.dtype == np.float64
    eyes = [[2, 3], [0, 1]] if points == 5 else [list(range(36, 42)), list(range(42, 48))]
    assert np.array([face[eye].mean(axis=0) for eye in eyes]) == pytest.approx(PUPILS, abs=5)


@pytest.mark.parametrize("degrees", [-20, -10, 10, 20, 30])
def test_a_turned_face_comes_out_upright(astronaut, degrees):
    turned = np.asarray(Image.fromarray(astronaut).rotate(degrees, Image.Resampling.BICUBIC))
    upright, again = (crop(photo)[12:52, 12:52].astype(float).ravel() for photo in (astronaut, turned))
    assert np.corrcoef(upright, again)[0, 1] > 0.85
    assert np.corrcoef(upright, np.asarray(turned)[60:100, 200:240].ravel())[0, 1] < 0.85  # the test can fail


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_centres_the_face(astronaut, template):
    pixels = crop(astronaut, template).astype(float)
    skin = (pixels[..., 0] > pixels[..., 2] + 20) & (pixels[..., 0] > 120)
    assert abs(np.nonzero(skin)[1].mean() - 31.5) < 5


def test_fault_30_no_face_is_an_empty_list():
    assert find_faces(np.full((200, 200, 3), 128, dtype=np.uint8)) == []


def test_fault_31_of_many_faces_the_largest_comes_first(astronaut):
    face = Image.fromarray(astronaut[20:230, 110:330])
    photo = np.full((300, 700, 3), 128, dtype=np.uint8)
    for share, x in ((0.75, 10), (1.2, 180), (0.95, 450)):
        small = np.asarray(face.resize((int(220 * share), int(210 * share)), Image.Resampling.LANCZOS))
        photo[20 : 20 + small.shape[0], x : x + small.shape[1]] = small
    faces = find_faces(photo)
    assert len(faces) == 3
    assert [sum(points[:, 0].mean() > np.array([180, 450])) for points in faces] == [1, 2, 0]


def test_fault_31_a_clear_face_comes_before_a_larger_doubtful_one(astronaut):
    # Turned like this the round badge on the suit passes for a face, and for a larger one.
    turned = np.asarray(Image.fromarray(astronaut).rotate(-20, Image.Resampling.BICUBIC))
    faces = find_faces(turned)
    assert len(faces) == 2 and faces[0][:, 1].max() < 180 < faces[1][:, 1].min()


@pytest.mark.parametrize(
    ("scores", "asked", "taken"),
    [
        ([1.0, 2.0, 2.0], [0], 0),
        ([0.3, 0.9, 2.0], [0, 1], 1),
        ([0.3, 0.2, None], [0, 1, 2], 0),
        ([None, None, 0.1], [0, 1, 2], 2),
        ([None, None, None], [0, 1, 2], None),
    ],
)
def test_a_doubtful_face_is_looked_at_twice(astronaut, monkeypatch, scores, asked, taken):
    class Detector:
        def __init__(self, scores):
            self.scores, self.asked = scores, []

        def run(self, photo, doublings, _):
            import dlib

            self.asked.append(doublings)
            score = self.scores[doublings]
            boxes = [] if score is None else [dlib.rectangle(180 + doublings, 84, 266 + doublings, 170)]
            return boxes, [] if score is None else [score], []

    detector, boxes, predictor = Detector(scores), [], landmarks_module._predictor(5)

    def predict(photo, box):
        boxes.append(box)
        return predictor(photo, box)

    monkeypatch.setattr(landmarks_module, "_detector", lambda: detector)
    monkeypatch.setattr(landmarks_module, "_predictor", lambda _: predict)
    find_faces(astronaut, upsample=2)
    assert detector.asked == asked
    assert [box.left() for box in boxes] == ([] if taken is None else [180 + taken])


def test_fault_32_a_face_cut_by_the_edge_and_a_tiny_one_are_found(astronaut):
    [face, *_] = find_faces(np.ascontiguousarray(astronaut[80:]))
    assert face[[2, 3]].mean(axis=0) == pytest.approx(PUPILS[0] - [0, 80], abs=6)
    tiny = Image.fromarray(astronaut[0:200, 130:330]).resize((48, 48), Image.Resampling.LANCZOS)
    assert find_faces(np.asarray(tiny), upsample=1) == []
    [face] = find_faces(np.asarray(tiny), upsample=2)
    assert face[[2, 3]].mean(axis=0) == pytest.approx((PUPILS[0] - [130, 0]) * 48 / 200, abs=3)


def test_fault_06_large_photos_are_not_doubled(monkeypatch):
    class Detector:
        asked = []

        def run(self, photo, doublings, _):
            self.asked.append(doublings)
            return [], [], []

    monkeypatch.setattr(landmarks_module, "_detector", Detector)
    find_faces(np.broadcast_to(np.uint8(0), (1_000, 4_000, 3)), upsample=3)
    assert Detector.asked == [0, 1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (65_500, 1), (2, 2)])
def test_fault_16_thin_photos_hold_no_face(shape):
    assert find_faces(np.zeros((*shape, 3), dtype=np.uint8), upsample=2) == []


def test_fault_17_an_aligned_crop_is_found_again(astronaut):
    face = crop(astronaut)
    assert np.abs(crop(face).astype(int) - face).mean() < 15


@pytest.mark.parametrize("data", [None, b"", b"garbage", "half"])
def test_fault_33_a_missing_or_corrupt_landmark_file_is_named(tmp_path, monkeypatch, data):
    if data == "half":
        whole = landmarks_module.model_path("shape_predictor_5_face_landmarks.dat").read_bytes()
        data = whole[: len(whole) // 2]
    models = tmp_path / "models"
    models.mkdir()
    if data is not None:
        (models / "shape_predictor_5_face_landmarks.dat").write_bytes(data)

    class Spec:
        submodule_search_locations = [str(tmp_path)]

    monkeypatch.setattr(landmarks_module.importlib.util, "find_spec", lambda _: Spec)
    what = "is missing" if data is None else "is broken"
    with pytest.raises(LandmarkModelError, match=f"shape_predictor_5_face_landmarks.dat {what}.*pip install"):
        find_faces(np.zeros((9, 9, 3), dtype=np.uint8))


def test_fault_33_the_model_package_can_be_absent(monkeypatch):
    monkeypatch.setattr(landmarks_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LandmarkModelError, match="pip install .*face_recognition_models"):
        find_faces(np.zeros((9, 9, 3), dtype=np.uint8))


def test_fault_34_without_dlib_the_message_names_what_to_install(monkeypatch):
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "dlib":
            raise ImportError("No module named 'dlib'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(LandmarkModelError, match="pip install dlib-bin"):
        find_faces(np.zeros((9, 9, 3), dtype=np.uint8))
