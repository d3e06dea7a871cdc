"""What the page does, without how it looks: files and settings in, pictures and files out."""

import json
import math
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from align.errors import InputError, NoFaceError, PhotoError
from align.photo import read_photo, write_photo
from align.warp import Alignment, transform
from completion import config, holes
from completion.batch import Result, complete_folder, complete_photo, plan_outputs, summary
from completion.complete import FaceCompleter
from completion.config import BLENDS, SOLVER_NAMES, BatchOptions
from completion.picture import around, painted, write_animation
from dcgan.checkpoint import Weights
from dcgan.explore.arithmetic import LABELS, directions
from dcgan.explore.walk import slerp
from dcgan.sampling import generate, sample_z

HOLES = tuple(name for name in config.HOLES if name != "lowres")  # which is no hole that one could see or draw
HOLE_COLOUR = (255, 0, 255)
_LEAST_PX, _MOST_PX = 512, 1600  # of the longer side on the page
_PICTURES_PER_S = 5
_LAYERS = 16  # of a drawing; the page makes one, but others may send thousands, each as large as a photo
_DRAWN = 16  # z that are drawn at least: of a single one torch makes other numbers than of the first of many
_FACE_COLOUR = (255, 255, 255)
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}


class ServiceError(InputError):
    """What a person asked for cannot be done; says what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Limits:
    """What one person may ask of the page.

    Attributes:
        max_pixels: of a photo.
        seconds: of the search in a photo; then the best so far is taken.
        photos: in a batch.
        waiting: requests in the queue.
    """

    max_pixels: int = 16_000_000
    seconds: float = 60.0
    photos: int = 50
    waiting: int = 16

    @property
    def file_bytes(self) -> int:
        """Size of the largest upload: browsers send what is drawn or filmed as PNG, about four bytes a pixel."""
        return 4 * self.max_pixels + 2**20


@dataclass(frozen=True)
class Settings:
    """How to complete; as on the command line.

    Attributes:
        solver: "fast", or a name in completion.config.SOLVERS.
        candidates: how many completions that differ, up to 8.
        blend: a name in completion.config.BLENDS.
        seed: of the search.
        prior_weight: of the perceptual loss; None for the solver's own.
        as_png: write PNG, in which every known pixel keeps its exact value, instead of the photo's own format.
    Raises:
        ServiceError: one of them is out of its range, or of another type.
    """

    solver: str = "fast"
    candidates: int = 1
    blend: str = "poisson"
    seed: int = 0
    prior_weight: float | None = None
    as_png: bool = False

    def __post_init__(self) -> None:
        if self.solver not in SOLVER_NAMES:
            raise ServiceError(f"the method is {self.solver!r}; choose one of {', '.join(SOLVER_NAMES)}")
        if self.blend not in BLENDS:
            raise ServiceError(f"the blending is {self.blend!r}; choose one of {', '.join(BLENDS)}")
        for name, least, most in (("candidates", 1, 8), ("seed", 0, 2**53)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ServiceError(f"{name} is {value!r}; give a whole number from {least} to {most}")
        weight = self.prior_weight
        if weight is not None and not (isinstance(weight, int | float) and 0 <= weight < math.inf):
            raise ServiceError(f"the perceptual weight is {weight!r}; give a number from 0 on, or none")


@dataclass(frozen=True)
class Filled:
    """A completed photo on the page.

    Attributes:
        before: uint8 (h, w, 3), the photo with its hole painted over, in the page's size.
        cuts: uint8 (s, t, 3) each, what of the completions is around the hole, the best first; none if a name made it.
        completions: the files, in the photo's own size.
        files: what else there is: the hole, a sheet of the candidates.
        notes: what a person should know of them.
        seconds: the work took.
    """

    before: NDArray[np.uint8]
    cuts: list[NDArray[np.uint8]]
    completions: list[Path]
    files: list[Path]
    notes: tuple[str, ...]
    seconds: float


class Service:
    """Does what the page asks for, with one set of weights.

    Args:
        weights: trained networks.
        limits: see Limits.
    """

    def __init__(self, weights: Weights, limits: Limits) -> None:
        self.limits = limits
        self._weights = weights
        self._completer = FaceCompleter(weights)

    def load(self, photo: Path) -> tuple[NDArray[np.uint8], int]:
        """A photo in the page's size with its faces outlined, and how many there are.

        Raises:
            PhotoError: it cannot be read, or is too large.
        """
        pixels = self._read(photo)
        try:
            faces = self._completer.locate(pixels)
        except NoFaceError:
            faces = []
        shown = _shown(pixels)
        corner = self._completer.size - 1
        corners = np.array([[0, 0], [corner, 0], [corner, corner], [0, corner]])
        for face in faces if len(faces) > 1 or corner + 1 not in pixels.shape else []:
            points = transform(_on_page(face, pixels, shown).inverse, corners).round().astype(np.int32)
            cv2.polylines(shown, [points], isClosed=True, color=(0, 0, 0), thickness=3, lineType=cv2.LINE_AA)
            cv2.polylines(shown, [points], isClosed=True, color=_FACE_COLOUR, thickness=1, lineType=cv2.LINE_AA)
        return shown, len(faces)

    def shown(self, photo: Path) -> NDArray[np.uint8]:
        """A photo in the page's size: uint8 (h, w, 3)."""
        return _shown(self._read(photo))

    def hole(
        self, photo: Path, drawn: Sequence[Path] = (), named: str = "", mask: Path | None = None, every: bool = False
    ) -> NDArray[np.bool_]:
        """A hole in the photo's size: what was drawn, or a name's, or a mask's.

        Args:
            photo: the file.
            drawn: pictures with transparency, where they are opaque is the hole.
            named: of completion.config.HOLES.
            mask: white means fill.
            every: a name means all faces and not the largest alone.
        Returns:
            bool (H, W).
        Raises:
            PhotoError, ServiceError, NoFaceError: a file cannot be read, there is no such name or no face.
            MaskError: the name takes no such number, or the face shows no such part.
        """
        pixels = self._read(photo)
        height, width = pixels.shape[:2]
        if named:
            _check_name(named)
            faces = self._completer.locate(pixels, every)
            return self._completer.named_hole(pixels, named, faces if every else faces[:1])
        if mask is not None:
            read_photo(mask, self.limits.max_pixels)  # the same limit as for photos
            return holes.read_hole(mask, (height, width))[0]
        if len(drawn) > _LAYERS:
            raise ServiceError(f"there are {len(drawn)} layers; at most {_LAYERS} are taken")
        hole = np.zeros((height, width), dtype=bool)
        for layer in drawn:
            image = read_photo(layer, self.limits.max_pixels).image
            if "A" in image.mode:
                opaque = (np.asarray(image)[..., -1] > 0).astype(np.uint8)
                hole |= cv2.resize(opaque, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        return hole

    def drawing(self, hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """A hole to draw on: uint8 (h, w, 4) in the page's size, transparent outside."""
        return np.where(_shown_hole(hole)[..., None], (*HOLE_COLOUR, 255), 0).astype(np.uint8)

    def complete(
        self, photo: Path, mask: str | NDArray[np.bool_], settings: Settings, folder: Path, name: str = "photo"
    ) -> Iterator[NDArray[np.uint8] | Filled]:
        """Fill a hole, by the road of the command line.

        Args:
            photo: the file.
            mask: a name, or bool (H, W).
            settings: how.
            folder: an empty one, for the files.
            name: of the photo, without its suffix.
        Yields:
            the completion as it grows, uint8 (h, w, 3), at most 5 a second; then the Filled.
        Raises:
            PhotoError: the photo cannot be read.
            ServiceError: there is no such name, or the photo cannot be completed.
            WeightsError: the weights lack what the solver needs.
        """
        began = time.monotonic()
        if isinstance(mask, str):
            _check_name(mask)
        pixels = self._read(photo)
        with Image.open(photo) as image:
            suffix = ".png" if settings.as_png else _SUFFIXES[image.format or "PNG"]
        completer = FaceCompleter(self._weights, settings.solver, settings.blend, settings.prior_weight)
        if not isinstance(mask, str):
            write_photo(folder / f"{name}-hole.png", mask.astype(np.uint8)[..., None].repeat(3, axis=2) * 255)
        output = folder / f"{name}-completed{suffix}"
        options = BatchOptions(
            mask=mask if isinstance(mask, str) else str(folder / f"{name}-hole.png"),
            candidates=settings.candidates,
            seed=settings.seed,
            seconds=self.limits.seconds,
        )
        hole = None if isinstance(mask, str) else _shown_hole(mask)
        picture = before = _shown(pixels if isinstance(mask, str) else painted(pixels, mask))
        last = -math.inf
        for item in complete_photo(completer, photo, output, photo.parent, options):
            if isinstance(item, Result):
                result = item
            elif time.monotonic() - last >= 1 / _PICTURES_PER_S:
                last = time.monotonic()
                if hole is None:  # only the command line's road knows where a name's is
                    yield picture
                    continue
                pasted = _on_page(item.alignment, pixels, picture).paste(picture, item.preview, beyond_px=2)
                yield np.where(hole[..., None], pasted, picture)
        if result.status != "completed":
            raise ServiceError(result.reason)
        completions = [path for path in result.outputs if not path.name.endswith(".candidates.png")]
        cuts = [] if isinstance(mask, str) else around(mask, [read_photo(path).pixels for path in completions])
        others = sorted({*folder.iterdir()} - {*completions})
        yield Filled(before, cuts, completions, others, result.notes, time.monotonic() - began)

    def batch(
        self, photos: Sequence[Path], mask: str, mask_files: Sequence[Path], settings: Settings, folder: Path
    ) -> Iterator[str | Path]:
        """Complete several photos.

        Args:
            photos: the files.
            mask: a name, for when there are no holes.
            mask_files: one for all photos, or one each, named like its photo.
            settings: how.
            folder: an empty one, for the files.
        Yields:
            what became of each photo, for people; then the ZIP with the completions and report.json.
        Raises:
            ServiceError: there are no photos, too many, no such name, or none could be completed.
            PhotoError: a mask cannot be read.
            WeightsError: the weights lack what the solver needs.
        """
        if not 0 < len(photos) <= self.limits.photos:
            raise ServiceError(f"there are {len(photos)} photos; give from 1 to {self.limits.photos}")
        if len(mask_files) > self.limits.photos:
            raise ServiceError(f"there are {len(mask_files)} masks; give at most {self.limits.photos}")
        if not mask_files:
            _check_name(mask)
        completer = FaceCompleter(self._weights, settings.solver, settings.blend, settings.prior_weight)
        # One at a time, since two uploads may have the same name.
        refused = []
        for number, photo in enumerate(photos):
            try:
                self._read(photo)
            except PhotoError as error:
                refused.append((photo.name, str(error)))
                continue
            _copy(photo, folder / "photos", number)
        for number, file in enumerate(mask_files):
            read_photo(file, self.limits.max_pixels)
            _copy(file, folder / "masks", number)
        if len(mask_files) == 1:
            mask = str(next((folder / "masks").iterdir()))
        elif mask_files:
            mask = str(folder / "masks")
        yield from (f"{name}: {reason}" for name, reason in refused)
        results = []
        if len(refused) < len(photos):
            root, outputs = plan_outputs([folder / "photos"], folder / "done")
            options = BatchOptions(mask=mask, seed=settings.seed, seconds=self.limits.seconds)
            for result in complete_folder(lambda: completer, outputs, root, options):
                results.append(result)
                reason = result.reason.replace(f"{folder}/", "")
                yield f"{result.photo.name}: {', '.join(['completed', *result.notes]) if not reason else reason}"
        if not any(result.outputs for result in results):
            raise ServiceError("none of the photos could be completed")
        yield _zipped(folder, results, refused)

    def example(self, seed: int) -> NDArray[np.uint8]:
        """A face that was never anybody's, as a photo to try the page with, uint8 (384, 384, 3)."""
        return self._faces(self._draw(seed, 1), times=6)[0]

    def sample(self, seed: int, count: int) -> list[NDArray[np.uint8]]:
        """Generated faces, uint8 (s, s, 3) each."""
        return self._faces(self._draw(seed, count))

    def walk(self, seed: int, start: int, end: int, folder: Path) -> tuple[NDArray[np.uint8], Path]:
        """From one face of a seed to another along the sphere: some steps side by side, and a GIF of more."""
        count = max(start, end) + 1
        drawn = self._draw(seed, count)
        faces = self._faces(slerp(drawn[start], drawn[end], 31))
        write_animation(folder / "walk.gif", [*faces, *faces[-2:0:-1]])
        return np.hstack(faces[::5]), folder / "walk.gif"

    def move(self, seed: int, number: int, direction: str) -> NDArray[np.uint8]:
        """A face of a seed moved along a direction, from less to more; the face itself in the middle.

        Raises:
            ServiceError: there is no such direction.
        """
        if direction not in LABELS:
            raise ServiceError(f"the direction is {direction!r}; choose one of {', '.join(LABELS)}")
        z = self._draw(seed, number + 1)[number]
        return np.hstack(self._faces(z + torch.linspace(-3, 3, 7)[:, None] * self._directions[direction]))

    @cached_property
    def _directions(self) -> dict[str, Tensor]:
        return directions(self._weights)

    def _draw(self, seed: int, count: int) -> Tensor:
        drawn = max(count, _DRAWN)
        return sample_z(drawn, self._weights.generator.config, torch.Generator().manual_seed(seed))[:count]

    def _faces(self, z: Tensor, times: int = 3) -> list[NDArray[np.uint8]]:
        faces = generate(self._weights.generator, z)
        side = times * faces.shape[1]
        return [cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8) for face in faces]

    def _read(self, photo: Path) -> NDArray[np.uint8]:
        return read_photo(photo, self.limits.max_pixels).pixels


def _check_name(mask: str) -> None:
    """What is no name would be taken for a file of the server's."""
    if holes.split_name(mask) is None:
        raise ServiceError(f"there is no hole named {mask!r}; choose one of {', '.join(HOLES)}, or upload a mask")


def _size_on_page(width: int, height: int) -> tuple[int, int]:
    side = max(width, height)
    scale = min(max(side, _LEAST_PX), _MOST_PX) / side
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy in the page's size."""
    size = _size_on_page(pixels.shape[1], pixels.shape[0])
    if size == pixels.shape[1::-1]:
        return pixels.copy()
    how = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(pixels, size, interpolation=how).astype(np.uint8, copy=False)


def _shown_hole(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    size = _size_on_page(hole.shape[1], hole.shape[0])
    return cv2.resize(hole.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def _on_page(face: Alignment, pixels: NDArray[np.uint8], shown: NDArray[np.uint8]) -> Alignment:
    """The alignment of a face in the photo in the page's size; the centre of a pixel is at a whole number."""
    x, y = pixels.shape[1] / shown.shape[1], pixels.shape[0] / shown.shape[0]
    return Alignment(face.matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]]), face.size)


def _copy(file: Path, folder: Path, number: int) -> None:
    """Under its own name, with a number only where that is taken."""
    folder.mkdir(exist_ok=True)
    target = folder / file.name
    while target.exists():
        target = folder / f"{target.stem}-{number + 1}{file.suffix}"
    shutil.copyfile(file, target)


def _zipped(folder: Path, results: Sequence[Result], refused: Sequence[tuple[str, str]]) -> Path:
    """The completions and report.json in one file; photos are told of by name, never by where they lay."""
    records = [result.record() | {"photo": result.photo.name} for result in results]
    for record in records:
        record["outputs"] = [Path(path).name for path in record["outputs"]]
        record["reason"] = record["reason"].replace(f"{folder}/", "")
    records += [{"photo": name, "status": "failed", "reason": reason} for name, reason in refused]
    report = {"summary": summary(results), "photos": records}
    path = folder / "completed.zip"
    with zipfile.ZipFile(path, "w") as archive:  # the pictures are compressed already
        for result in results:
            for output in result.outputs:
                archive.write(output, output.name)
        archive.writestr("report.json", json.dumps(report, indent=1) + "\n")
    return path
