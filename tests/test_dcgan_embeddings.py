"""Face embeddings equal those of dlib and separate people."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from align.embedding import MODEL_FILE, chip_alignment
from align.errors import LandmarkModelError
from align.landmarks import find_faces, model_path
from align.template import TEMPLATES
from align.warp import fit
from dcgan import embeddings
from dcgan.embeddings import EmbeddingError, embed


@pytest.fixture(scope="module")
def crop(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    template = TEMPLATES["face"]
    return fit(template, find_faces(astronaut, template.points)[0], 64).warp(astronaut)


def test_embeddings_equal_those_of_dlib(crop: NDArray[np.uint8]) -> None:
    import dlib

    noise = np.random.default_rng(0).integers(0, 256, crop.shape, dtype=np.uint8)
    crops = np.stack([crop, noise])
    network = dlib.face_recognition_model_v1(str(model_path(MODEL_FILE)))
    expected = [network.compute_face_descriptor(chip_alignment(64).warp(one)) for one in crops]
    found = embed(crops)
    assert found.shape == (2, 128)
    assert np.allclose(found, expected, atol=1e-5)


def test_the_chip_matches_that_of_dlib(astronaut: NDArray[np.uint8], crop: NDArray[np.uint8]) -> None:
    import dlib

    predictor = dlib.shape_predictor(str(model_path("shape_predictor_5_face_landmarks.dat")))
    box = dlib.get_frontal_face_detector()(astronaut, 1)[0]
    chip = dlib.get_face_chip(astronaut, predictor(astronaut, box), 150, 0.25)
    network = dlib.face_recognition_model_v1(str(model_path(MODEL_FILE)))
    assert np.linalg.norm(embed(crop[None])[0] - network.compute_face_descriptor(chip)) < 0.3


def test_results_do_not_depend_on_batches(crop: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.stack([crop, crop[:, ::-1], crop // 2])
    together = embed(crops)
    monkeypatch.setattr(embeddings, "_BATCH", 2)
    assert np.allclose(embed(crops), together, atol=1e-6)
    assert embed(crops[:0]).shape == (0, 128)


def test_other_templates_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="'outer-eyes-nose'"):
        embed(np.zeros((1, 64, 64, 3), dtype=np.uint8), "outer-eyes-nose")


def test_a_broken_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.dat"
    broken.write_bytes(model_path(MODEL_FILE).read_bytes()[:1_000_000])
    monkeypatch.setattr(embeddings, "model_path", lambda name: broken)
    embeddings.network_layers.cache_clear()
    with pytest.raises(LandmarkModelError, match=r"broken.dat is broken; run: pip"):
        embed(np.zeros((1, 64, 64, 3), dtype=np.uint8))
