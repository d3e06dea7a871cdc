"""dlib's face detector and shape predictors: the landmarks of the faces in a photo, and of an aligned crop."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.errors import LandmarkModelError
from align.warp import Alignment

_INSTALL = "pip install dlib-bin face_recognition_models"
_REPAIR = "pip install --force-reinstall face_recognition_models"
# The detector's scores start at 0. Boxes over two neighbouring faces or a round badge were seen at 0.1 to 0.3; nearly
# every face lies above 0.5.
_CLEAR = 0.5
# A doubled photo of this size takes the detector 500 MB.
_MAX_PIXELS = 40_000_000
_PREDICTORS = {5: "shape_predictor_5_face_landmarks.dat", 68: "shape_predictor_68_face_landmarks.dat"}


def find_faces(
    photo: NDArray[np.uint8], points: int = 5, upsample: int = 1, least: float = 0.0
) -> list[NDArray[np.float64]]:
    """Find every face in a photo.

    Args:
        photo: uint8 (H, W, 3) RGB, upright.
        points: landmarks per face, 5 or 68.
        upsample: how often the photo may be doubled in size, tried only while no face is found clearly and the
            doubled photo stays below 40 megapixels.
        least: score below which nothing is a face; 0 is doubtful, 1 is sure.
    Returns:
        float64 (points, 2) per face, (x, y) in the photo's pixels; the largest first, doubtful faces last.
    Raises:
        LandmarkModelError: dlib or its landmark file is absent or broken.
    Source: King, "Dlib-ml", JMLR 2009; Kazemi and Sullivan, CVPR 2014.
    """
    predictor = _predictor(points)
    photo = np.ascontiguousarray(photo)
    found: list[tuple[float, Any]] = []  # score and box
    clearest = -1.0
    for doublings in range(upsample + 1):
        if clearest >= _CLEAR or doublings and photo.shape[0] * photo.shape[1] * 4**doublings > _MAX_PIXELS:
            break
        boxes, scores, _ = _detector().run(photo, doublings, least)
        if max(scores, default=-1.0) > clearest:
            found, clearest = list(zip(scores, boxes, strict=True)), max(scores)
    found.sort(key=lambda face: (face[0] >= _CLEAR, face[1].area()), reverse=True)
    return [
        np.array([(part.x, part.y) for part in predictor(photo, box).parts()], dtype=np.float64) for _, box in found
    ]


def find_landmarks(
    photo: NDArray[np.uint8],
    alignment: Alignment,
    points: int = 68,
    zoom: float = 4,
    air: float = 0.5,
    upsample: int = 1,
) -> NDArray[np.float64] | None:
    """Find the landmarks of the face that a crop is centred on.

    The detector looks at an enlarged view of the crop with some of the photo around it: it needs faces of 80 px.

    Args:
        photo: uint8 (H, W, 3).
        alignment: where the crop lies in the photo; the identity if the photo is the crop.
        points: landmarks, 5 or 68.
        zoom: pixels of the view per pixel of the crop.
        air: width of the border around the crop in the view, as a share of the crop's side.
        upsample: see `find_faces`.
    Returns:
        float64 (points, 2), (x, y) in the crop's pixels; None if no face is found.
    Raises:
        LandmarkModelError: dlib or its landmark file is absent or broken.
    """
    air_px = round(alignment.size * air)
    matrix = (alignment.matrix + np.array([[0, 0, air_px], [0, 0, air_px]])) * zoom
    view = Alignment(matrix, round((alignment.size + 2 * air_px) * zoom))
    faces = find_faces(view.warp(photo), points, upsample)
    if not faces:
        return None
    centred = min(faces, key=lambda face: float(np.linalg.norm(face.mean(axis=0) - view.size / 2)))
    return centred / zoom - air_px


def model_path(name: str) -> Path:
    """A file of the face_recognition_models package.

    The package itself cannot be imported: it asks for pkg_resources, which setuptools has dropped.

    Raises:
        LandmarkModelError: the package or the file is absent.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise LandmarkModelError(f"the package face_recognition_models is not installed; run: {_INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise LandmarkModelError(f"the landmark file {name} is missing from face_recognition_models; run: {_REPAIR}")
    return path


def _dlib() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise LandmarkModelError(f"dlib is not installed ({error}); run: {_INSTALL}") from error
    return dlib


@cache
def _detector() -> Any:
    return _dlib().get_frontal_face_detector()


@cache
def _predictor(points: int) -> Any:
    path = model_path(_PREDICTORS[points])
    try:
        return _dlib().shape_predictor(str(path))
    except RuntimeError as error:
        what = str(error).partition("\n")[0]
        raise LandmarkModelError(f"the landmark file {path.name} is broken ({what}); run: {_REPAIR}") from error
