"""Train and export the locator: visible pixels around a face to the distances of its eyes from where they should be."""

import json
import math
from collections.abc import Callable
from collections.abc import Generator as Steps
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.errors import NoFaceError, PhotoError
from align.files import list_photos
from align.locate import REACH, VIEW_PX, align_by_landmarks, eye_distance, eyes_in_view, read_landmarks, view_of
from align.photo import read_photo
from align.template import TEMPLATES
from align.warp import Alignment, compose, transform
from dcgan.checkpoint import load_run, restoring, training_record
from dcgan.config import LocatorConfig, NetworkConfig
from dcgan.dataset import DatasetError, digest
from dcgan.device import machine
from dcgan.export import write_graph
from dcgan.graph import capturable_adam
from dcgan.holes import TRAINING_KINDS
from dcgan.networks import Encoder
from dcgan.run import Run, RunInputs, TrainingStep
from dcgan.sampling import device_of
from dcgan.tensors import to_tensor

_WIDE_PX, _WIDE_REACH = 192, 1.75  # of the faces in memory; views are cut out of them
# A detector's errors, in distances between the eyes, and how often each is drawn: none of the landmarks is hidden, some
# are, most are.
_ERRORS, _SHARES = (0.03, 0.12, 0.35), (0.2, 0.5, 0.3)
_TURN, _GROW = 0.4, 0.5  # radians, and logarithm of the size, for an error of one distance between the eyes
_UNIT = 0.2  # the network's output in distances between the eyes
# Random pixels and grids hide little, so they are drawn less often.
_KINDS = [draw for name, draw in TRAINING_KINDS.items() for _ in range(1 if name in ("random", "grid") else 3)]
_RISE = 10_000  # views
_HELD_OUT = 0.02  # share of the faces, the last ones, that are only measured
_MEASURED, _SHOWN = 512, 32


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces with what is around them.

    Attributes:
        pixels: uint8 (N, _WIDE_PX, _WIDE_PX, 3), centred as by the template "face", `_WIDE_REACH` times as wide.
        corners: float64 (N, 4, 2), the photo's corners in those pixels.
    """

    pixels: NDArray[np.uint8]
    corners: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice) -> "Faces":
        return Faces(self.pixels[part], self.corners[part])


def load_wide_faces(folder: Path, landmarks: Path, report: Callable[[str], None]) -> Faces:
    """Cut faces, with what is around them, out of the photos of a folder by the faces.jsonl that align wrote for them.

    Raises:
        DatasetError: no photo has landmarks.
        NoFaceError: the landmarks cannot be read.
    """
    by_source = read_landmarks(landmarks)
    pixels, corners = [], []
    for path in list_photos(folder):
        source = path.relative_to(folder)
        if source.as_posix() not in by_source and source.name not in by_source:
            continue
        try:
            photo = read_photo(path).pixels
            faces = align_by_landmarks(by_source, source, TEMPLATES["face"], _WIDE_PX)
        except (PhotoError, NoFaceError) as error:
            report(f"{path}: {error}")
            continue
        height, width = photo.shape[:2]
        for face in faces:
            wide = view_of(face, _WIDE_PX, _WIDE_REACH)
            pixels.append(wide.warp(photo))
            corners.append(wide.apply(_corners(width, height)))
    if not pixels:
        raise DatasetError(f"{landmarks} has no landmarks of photos in {folder}; run python -m align on this folder")
    return Faces(np.stack(pixels), np.stack(corners))


def train_locator(config: LocatorConfig, faces: Faces, folder: Path, device: torch.device) -> Steps[TrainingStep]:
    """Train the locator, or resume from the newest checkpoint of the run folder.

    It learns to undo random displacements of faces that are partly hidden; the last faces are only measured. What is
    said of `dcgan.train.train` holds here, too.

    Raises:
        DatasetError: there are too few faces.
    """
    held_out = max(1, round(_HELD_OUT * len(faces)))
    if len(faces) <= held_out:
        raise DatasetError(f"there is {len(faces)} face; expected two or more, one to train on and one to measure")
    train, val = faces[:-held_out], faces[-held_out:]
    torch.manual_seed(config.seed)
    locator = Locator(create(config.nef)).to(device).to(memory_format=torch.channels_last)
    optimiser = capturable_adam(locator.parameters(), config.lr, (0.9, 0.99))
    inputs = RunInputs(digest(faces.pixels), len(faces), machine(device))
    run = Run(folder, "locator", config, {"L": locator.network, "optimiser": optimiser}, inputs)

    def losses(rng: np.random.Generator) -> dict[str, Tensor]:
        views, holes, shifts = _batch(train, rng.integers(len(train), size=config.batch), rng)
        return {"error": _distance(_estimate(locator, views, holes), shifts.to(device)).mean()}

    def diagnose() -> dict[str, float]:
        run.grid(_pictures(locator, val))
        return _measure(locator, val)

    yield from run.fit(locator, losses, diagnose, _RISE)


def create(nef: int) -> Encoder:
    """Create the network: an encoder whose z are the shifts of both eyes, (x, y) each."""
    return Encoder(NetworkConfig(size=VIEW_PX, nz=4), nef, skips=False)


class Locator(nn.Module):
    """What runs in completion: crops uint8 (N, S, S, 3) and holes bool (N, S, S) to shifts float32 (N, 2, 2).

    The shifts say how far each eye, the one on the left first, lies from its place, in distances between the eyes.
    """

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor, holes: Tensor) -> Tensor:
        z, _ = self.network(to_tensor(crops), holes[:, None])
        return z.float().unflatten(1, (2, 2)) * _UNIT


def export_locator(folder: Path, path: Path) -> dict[str, Any]:
    """Write the `Locator` of a run's newest checkpoint as an ONNX graph; see `dcgan.export.export_run`."""
    saved = load_run(folder, "locator")
    with restoring(folder):
        network = create(saved["config"]["nef"])
        network.load_state_dict(saved["L"])
        metadata = training_record(saved, saved["config"]["batch"], {})
    crops = torch.zeros(2, VIEW_PX, VIEW_PX, 3, dtype=torch.uint8)  # a size of 1 would become a constant of the graph
    inputs = {"crops": crops, "holes": crops[..., 0] > 0}
    axes = dict.fromkeys(("crops", "holes", "shifts"), ("N",))
    write_graph(Locator(network).eval(), inputs, "shifts", axes, {"facts": json.dumps(metadata)}, path)
    return metadata


def _estimate(locator: Locator, views: NDArray[np.uint8], holes: NDArray[np.bool_]) -> Tensor:
    device = device_of(locator)
    return locator(torch.from_numpy(views).to(device), torch.from_numpy(holes).to(device))


def _distance(estimate: Tensor, shifts: Tensor) -> Tensor:
    """Error of each eye, in distances between the eyes: (N, 2)."""
    return ((estimate - shifts).square().sum(dim=-1) + 1e-6).sqrt()  # the root has no gradient at 0


def _batch(
    faces: Faces, numbers: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Tensor]:
    """Views of faces at random displacements, their holes, and the shifts of the eyes, as of `Locator`."""
    drawn = [_draw(faces.pixels[number], faces.corners[number], rng) for number in numbers]
    views, holes, shifts = (np.stack(part) for part in zip(*drawn, strict=True))
    return views, holes, torch.from_numpy(shifts).float()


def _draw(
    wide: NDArray[np.uint8], corners: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
    """One view of a face, its hole, and the shifts of the eyes."""
    moved = _displacement(rng, float(rng.choice(_ERRORS, p=_SHARES)))
    whole = view_of(Alignment.identity(_WIDE_PX), VIEW_PX, REACH / _WIDE_REACH).matrix
    matrix = compose(moved, whole)
    size = VIEW_PX, VIEW_PX
    view = cv2.warpAffine(wide, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    hole = _hole(rng, moved)
    for area in (corners, _corners(_WIDE_PX, _WIDE_PX)):
        seen = np.round(transform(matrix, area) * 16).astype(np.int32)  # in sixteenths of a pixel
        hole |= cv2.fillConvexPoly(np.zeros(size, dtype=np.uint8), seen, 1, shift=4) == 0
    eyes = transform(moved, eyes_in_view())
    view = _recoloured(view.astype(np.uint8, copy=False), rng)
    if rng.random() < 0.5:
        view, hole, eyes = view[:, ::-1], hole[:, ::-1], eyes[::-1] * [-1, 1] + [VIEW_PX - 1, 0]
    return view, hole, (eyes - eyes_in_view()) / eye_distance()


def _displacement(rng: np.random.Generator, error: float) -> NDArray[np.float64]:
    """A random similarity of the view, (2, 3), about its centre; the error in distances between the eyes."""
    angle, size = rng.normal(0, [_TURN, _GROW]) * error
    a, b = math.exp(size) * math.cos(angle), math.exp(size) * math.sin(angle)
    linear, middle = np.array([[a, -b], [b, a]]), np.full(2, (VIEW_PX - 1) / 2)
    return np.column_stack([linear, middle - linear @ middle + rng.normal(0, error * eye_distance(), 2)])


def _hole(rng: np.random.Generator, moved: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A hole of one or several kinds in a view, most often near the displaced face; bool (VIEW_PX, VIEW_PX)."""
    hole = np.zeros((VIEW_PX, VIEW_PX), dtype=bool)
    for _ in range(rng.choice([1, 2, 4], p=[0.6, 0.3, 0.1])):
        hole |= _KINDS[rng.integers(len(_KINDS))](VIEW_PX, rng)
    if rng.random() < 0.7:
        # Placed as on a crop, but not exactly: else its edges would give the face's position away.
        near = _displacement(rng, float(rng.choice(_ERRORS[:2])))
        matrix = compose(moved, compose(near, view_of(Alignment.identity(VIEW_PX)).matrix))
        hole = cv2.warpAffine(hole.astype(np.uint8), matrix, hole.shape, flags=cv2.INTER_NEAREST) > 0
    if rng.random() < 0.3:
        # Nor may the borders of the photos, in which training faces often have the same place.
        for edge in (hole, hole[::-1], hole.T, hole.T[::-1]):
            if rng.random() < 0.5:
                edge[: int(rng.uniform(0, 0.25) * VIEW_PX)] = True
    return hole


def _recoloured(view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A view as of another camera: some are blurred, some have other colours or none."""
    pixels = view.astype(np.float32)
    if rng.random() < 0.3:
        side = round(VIEW_PX * rng.uniform(0.3, 1))
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        pixels = cv2.resize(pixels, (VIEW_PX, VIEW_PX), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    if rng.random() < 0.5:
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * rng.uniform(0, 1.4)
        pixels = (pixels - 128) * rng.uniform(0.6, 1.3) + 128 + rng.normal(0, 20) + rng.normal(0, 8, 3)
    return np.clip(pixels, 0, 255).round().astype(np.uint8)


def _corners(width: int, height: int) -> NDArray[np.float64]:
    return np.array([(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)])


def _measure(locator: Locator, faces: Faces) -> dict[str, float]:
    """Mean error of the worse eye in distances between them, and the share within a tenth, for the same draws."""
    numbers = np.arange(_MEASURED) * len(faces) // _MEASURED
    views, holes, shifts = _batch(faces, numbers, np.random.default_rng(0))
    worst = _distance(_estimate(locator, views, holes).cpu(), shifts).amax(dim=1)
    return {"max_eye_error": float(worst.mean()), "pck_0.1": float((worst < 0.1).float().mean())}


def _pictures(locator: Locator, faces: Faces) -> Tensor:
    """Views with crosses where the eyes are, in green, and where the locator expects them, in red: (N, 3, S, S)."""
    views, holes, shifts = _batch(faces, np.arange(_SHOWN) * len(faces) // _SHOWN, np.random.default_rng(0))
    estimates = _estimate(locator, views, holes).cpu()
    pictures = np.where(holes[..., None], views // 3, views)
    for picture, *both in zip(pictures, shifts.numpy(), estimates.numpy(), strict=True):
        for eyes, colour in zip(both, ((0, 255, 0), (255, 0, 0)), strict=True):
            for x, y in np.round(eyes_in_view() + eye_distance() * eyes).astype(int):
                cv2.drawMarker(picture, (int(x), int(y)), colour, cv2.MARKER_CROSS, 7)
    return to_tensor(torch.from_numpy(pictures))
