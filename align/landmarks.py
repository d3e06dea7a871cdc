"""Facial landmarks by dlib, for all faces in a photo or for the face in a crop."""

import importlib.util
import os
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.errors import LandmarkModelError
from align.warp import Alignment, transform

_INSTALL = "pip install dlib-bin face_recognition_models"
_REPAIR = "pip install --force-reinstall face_recognition_models"
# Detector score above which a face is confident. False detections, such as a box over two neighbouring faces or a round
# badge, scored 0.1 to 0.3; nearly all faces score above 0.5.
_CONFIDENT = 0.5
# Limit for doubled photos: the detector needs 500 MB for one of this size.
_MAX_PIXELS = 40_000_000
# Side of a crop to predict landmarks in, and where the detector would find its face, as fractions of the side.
_VIEW_PX, _ALIGNED_BOX = 256, (0.131, 0.203, 0.869, 0.941)
_PREDICTORS = {5: "shape_predictor_5_face_landmarks.dat", 68: "shape_predictor_68_face_landmarks.dat"}


def find_faces(
    photo: NDArray[np.uint8], points: int = 5, upsample: int = 1, least: float = 0.0
) -> list[NDArray[np.float64]]:
    """Find every face in a photo.

    Args:
        photo: uint8 (H, W, 3) RGB, upright.
        points: landmarks per face, 5 or 68.
        upsample: how often to double the photo's size, while no face is found with confidence and the doubled photo
            stays below 40 megapixels.
        least: minimum detector score; 0 accepts doubtful faces, 1 only certain ones.
    Returns:
        float64 (points, 2) per face, (x, y) in the photo's pixels. Confident faces come first, then larger ones.
    Raises:
        LandmarkModelError: dlib or its landmark file is missing or broken.
    Source: King, "Dlib-ml", JMLR 2009; Kazemi and Sullivan, CVPR 2014.
    """
    predict = predictor(points)
    photo = np.ascontiguousarray(photo)
    found: list[tuple[float, Any]] = []  # (score, box)
    best = -1.0
    for doublings in range(upsample + 1):
        if best >= _CONFIDENT or doublings and photo.shape[0] * photo.shape[1] * 4**doublings > _MAX_PIXELS:
            break
        boxes, scores, _ = detector().run(photo, doublings, least)
        if max(scores, default=-1.0) > best:
            found, best = list(zip(scores, boxes, strict=True)), max(scores)
    found.sort(key=lambda face: (face[0] >= _CONFIDENT, face[1].area()), reverse=True)
    return [np.array([(part.x, part.y) for part in predict(photo, box).parts()], dtype=np.float64) for _, box in found]


def find_landmarks(
    photo: NDArray[np.uint8],
    alignment: Alignment,
    points: int = 68,
    zoom: float = 4,
    air: float = 0.5,
    upsample: int = 1,
) -> NDArray[np.float64] | None:
    """Find the landmarks of the face at the centre of a crop.

    The detector needs faces of 80 px, so it gets an enlarged view of the crop with a border of the photo around it.

    Args:
        photo: uint8 (H, W, 3).
        alignment: position of the crop in the photo; the identity if the photo is the crop.
        points: number of landmarks, 5 or 68.
        zoom: pixels of the view per pixel of the crop.
        air: width of the border, as a fraction of the crop's side.
        upsample: see `find_faces`.
    Returns:
        float64 (points, 2), (x, y) in the crop's pixels; None if no face is found.
    Raises:
        LandmarkModelError: dlib or its landmark file is missing or broken.
    """
    air_px = round(alignment.size * air)
    matrix = (alignment.matrix + np.array([[0, 0, air_px], [0, 0, air_px]])) * zoom
    view = Alignment(matrix, round((alignment.size + 2 * air_px) * zoom))
    faces = find_faces(view.warp(photo), points, upsample)
    if not faces:
        return None
    centred = min(faces, key=lambda face: float(np.linalg.norm(face.mean(axis=0) - view.size / 2)))
    return centred / zoom - air_px


def predict_aligned(photo: NDArray[np.uint8], face: Alignment) -> NDArray[np.float64]:
    """Predict the 68 landmarks of a face of the template "face", without a detector, so that there is always a result.

    Args:
        photo: uint8 (H, W, 3).
        face: position of the face.
    Returns:
        float64 (68, 2), (x, y) in the photo's pixels.
    Raises:
        LandmarkModelError: dlib or its landmark file is missing or broken.
    """
    view = face.resized(_VIEW_PX)
    box = import_dlib().rectangle(*(round(_VIEW_PX * share) for share in _ALIGNED_BOX))
    found = predictor(68)(np.ascontiguousarray(view.warp(photo)), box)
    return transform(view.inverse, np.array([(part.x, part.y) for part in found.parts()], dtype=np.float64))


def model_path(name: str) -> Path:
    """Return the path of a file in the face_recognition_models package.

    The package itself cannot be imported, because it needs pkg_resources, which setuptools has dropped.

    Raises:
        LandmarkModelError: the package or the file is missing.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise LandmarkModelError(f"the package face_recognition_models is not installed; run: {_INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise LandmarkModelError(f"the landmark file {name} is missing from face_recognition_models; run: {_REPAIR}")
    return path


def import_dlib() -> Any:
    """Import dlib; see `find_faces` for errors."""
    try:
        import dlib
    except ImportError as error:
        raise LandmarkModelError(f"dlib is not installed ({error}); run: {_INSTALL}") from error
    return dlib


_per_thread = threading.local()


def detector() -> Any:
    """Return dlib's frontal face detector of this thread; see `find_faces` for errors.

    A detector keeps its image pyramid between calls, so two threads that shared one would corrupt memory.
    """
    if not hasattr(_per_thread, "detector"):
        name = f"detector-{import_dlib().__version__}.svm"
        _per_thread.detector = open_detector(Path(importlib.util.cache_from_source(__file__)).with_name(name))
    return _per_thread.detector


def open_detector(kept: Path) -> Any:
    """Return a new face detector of dlib, from a file that is written first if it is absent or damaged.

    dlib unpacks its detector for 0.3 s, a fifth of the time of `python -m completion`; the file is read in 1 ms.
    """
    dlib = import_dlib()
    try:
        return dlib.fhog_object_detector(str(kept))
    except RuntimeError:
        found = dlib.get_frontal_face_detector()
    part = kept.with_name(f"{kept.name}.{os.getpid()}-{threading.get_ident()}")
    with suppress(OSError, RuntimeError):  # where nothing can be written, it is unpacked each time
        kept.parent.mkdir(parents=True, exist_ok=True)
        found.save(str(part))
        part.replace(kept)
    return found


@cache
def predictor(points: int) -> Any:
    """Return dlib's shape predictor for 5 or 68 landmarks; see `find_faces` for errors."""
    path = model_path(_PREDICTORS[points])
    try:
        return import_dlib().shape_predictor(str(path))
    except RuntimeError as error:
        what = str(error).partition("\n")[0]
        raise LandmarkModelError(f"the landmark file {path.name} is broken ({what}); run: {_REPAIR}") from error
