"""The work behind the page, independent of its looks: photos and settings in, pictures and files out."""

import io
import json
import math
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from completion.complete import FaceCompleter
from completion.engine import Networks, as_networks
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from align.errors import InputError, NoFaceError
from align.files import output_names
from align.locate import align_by_eyes, is_among
from align.photo import Photo, read_photo, write_photo
from align.warp import Alignment, transform
from completion import masks
from completion.batch import Filling, Result, fill, summary, write_completions
from completion.config import BLENDS, SLOW, SOLVER_NAMES
from completion.picture import around, painted, write_animation
from dcgan import holes
from dcgan.explore.arithmetic import directions
from dcgan.explore.registry import LABELS
from dcgan.sampling import generate, sample_z, slerp
from dcgan.weights import Weights

HOLES = tuple(name for name in holes.HOLES if name != "lowres")  # lowres is no hole that one could see or draw
HOLE_COLOUR = (255, 0, 255)  # as in editor.js
_LEAST_PX, _MOST_PX = 512, 1600  # longer side of a photo on the page
_THUMBNAIL_PX = 320  # longer side of a photo of a batch
_PREVIEWS_PER_S = 5
_LARGE_PX = 8_000_000  # larger photos, all candidates together, take long
_SAME_SHAPE = 0.01  # largest difference of two aspect ratios that rounding explains
_FACES = 16  # most marked faces
_DRAWN = 16  # z are drawn at least so many at once: torch draws a single z differently from the first of many
_FACE_PX = 64  # most pixels a side of a generated face, before it is enlarged
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}


class ServiceError(InputError):
    """A request that cannot be met. The message says what was found, what was expected and what to do."""


def explain(error: InputError) -> str:
    """An error as a sentence for the page."""
    if isinstance(error, NoFaceError):  # the library's advice is for programs
        return (
            "No face was found for this hole. Place the hole on a face, or choose a photo that shows the face larger."
        )
    text = str(error)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Limits:
    """How much one visitor may ask of the page.

    Attributes:
        max_pixels: most pixels of a photo or mask.
        seconds: longest work on a photo; after that, the best result so far is used.
        photos: most photos in a batch.
        waiting: most requests in the queue.
    """

    max_pixels: int = 16_000_000
    seconds: float = 60.0
    photos: int = 50
    waiting: int = 16

    @property
    def candidate_pixels(self) -> int:
        """Most pixels of all candidates of a photo together."""
        return 2 * self.max_pixels

    @property
    def file_bytes(self) -> int:
        """Size of the largest upload. Browsers send drawings and camera pictures as PNG, about 4 bytes a pixel."""
        return 4 * self.max_pixels + 2**20


@dataclass(frozen=True)
class Settings:
    """How to complete a photo, with the same choices as the command line.

    Attributes:
        solver: a name in completion.config.SOLVER_NAMES.
        candidates: number of different completions, 1 to 8.
        blend: a name in completion.config.BLENDS.
        seed: seed of the search, 0 to 2^53.
        prior_weight: weight of the prior (discriminator) loss; None for the solver's own.
        as_png: write PNG, which keeps every pixel outside the hole exactly, instead of the photo's own format.
    Raises:
        ServiceError: a value is out of range or has the wrong type.
    """

    solver: str = "fast"
    candidates: int = 1
    blend: str = "poisson"
    seed: int = 0
    prior_weight: float | None = None
    as_png: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (("solver", self.solver, SOLVER_NAMES), ("blend", self.blend, BLENDS)):
            if value not in choices:
                raise ServiceError(f"the {name} is {value!r}; choose one of {', '.join(choices)}")
        for name, number, least, most in (("candidates", self.candidates, 1, 8), ("seed", self.seed, 0, 2**53)):
            if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
                raise ServiceError(f"{name} is {number!r}; give a whole number from {least} to {most}")
        weight = self.prior_weight
        if weight is not None and not (isinstance(weight, int | float) and 0 <= weight < math.inf):
            raise ServiceError(f"the prior weight is {weight!r}; give a number of at least 0, or leave it empty")


@dataclass(frozen=True)
class Upload(Photo):
    """A photo that a visitor uploaded, decoded.

    Attributes:
        name: base name for the files made from it.
        suffix: suffix of its format, such as ".jpg".
    """

    name: str
    suffix: str


@dataclass(frozen=True)
class Preview:
    """A completion in progress.

    Attributes:
        picture: uint8 (h, w, 3), the photo in page size.
        share: how much of the search is done, from 0 to 1.
    """

    picture: NDArray[np.uint8]
    share: float


@dataclass(frozen=True)
class Filled:
    """A completed photo.

    Attributes:
        before: uint8 (h, w, 3), the photo in page size.
        afters: uint8 (h, w, 3) each, the completions in page size, the best first.
        crops: uint8 (s, t, 3) each, the largest completed face in each completion, or the
            surroundings of the hole if there is no face.
        completions: the files of the completions in the photo's size, the best first.
        files: further files: the hole, and a contact sheet of the candidates.
        notes: what the visitor should know about the result.
        seconds: duration of the work.
    """

    before: NDArray[np.uint8]
    afters: list[NDArray[np.uint8]]
    crops: list[NDArray[np.uint8]]
    completions: list[Path]
    files: list[Path]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Report:
    """What became of a photo of a batch.

    Attributes:
        name: of the photo.
        text: the outcome, with the name.
        picture: uint8 (h, w, 3), the completion reduced; None if it failed.
    """

    name: str
    text: str
    picture: NDArray[np.uint8] | None


class Service:
    """Everything the page can do.

    Args:
        weights: trained networks; of several, each face gets those that fit its size.
        limits: how much one visitor may ask for.
    """

    def __init__(self, weights: Networks | Weights | Sequence[Networks | Weights], limits: Limits) -> None:
        self.limits = limits
        self._weights = as_networks(weights)
        self._completer = FaceCompleter(self._weights)
        self._largest = self._weights[-1].torch

    def read(self, path: Path, name: str = "photo") -> Upload:
        """Decode an uploaded photo.

        Args:
            path: the uploaded file.
            name: base name for the files made from it.
        Raises:
            PhotoError: the file cannot be read, or the photo is too large.
        """
        photo = read_photo(path, self.limits.max_pixels)
        with Image.open(path) as image:  # reads the header only
            return Upload(**vars(photo), name=name, suffix=_SUFFIXES.get(image.format or "", ".png"))

    def faces(self, photo: Photo, eyes: Sequence[Sequence[float]] = ()) -> list[Alignment]:
        """The faces of a photo: those that a visitor marked, then those that are found and not among them.

        Args:
            photo: the photo.
            eyes: (x, y, x, y) of the eyes of each marked face, as shares of the photo's width and height; of two
                marks of the same face, the later one counts.
        Raises:
            ServiceError: the marks are malformed or too many.
            NoFaceError: two eyes coincide or lie outside the photo.
        """
        marked: list[Alignment] = []
        height, width = photo.pixels.shape[:2]
        for shares in reversed(_checked_eyes(eyes)):
            points = np.array(shares) * [width, height, width, height]
            face = align_by_eyes(points.tolist(), (height, width), self._completer.template, self._completer.size)
            if not is_among(face, marked):
                marked.append(face)
        try:
            found = self._completer.locate(photo.pixels)
        except NoFaceError:
            found = []
        return marked + [face for face in found if not is_among(face, marked)]

    def corners(self, photo: Photo, faces: Sequence[Alignment]) -> list[list[list[float]]]:
        """The corners of faces as (x, y) shares of the photo; an aligned face has none."""
        height, width = photo.pixels.shape[:2]
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        return [
            ((transform(face.inverse, (face.size - 1) * square) + 0.5) / [width, height]).round(4).tolist()
            for face in faces
            if (height, width) != (face.size, face.size)
        ]

    def hole(
        self,
        photo: Photo,
        drawn: bytes = b"",
        named: str = "",
        mask: Path | None = None,
        every: bool = False,
        faces: Sequence[Alignment] | None = None,
    ) -> NDArray[np.bool_]:
        """A hole in the photo's size, from a name, a mask file or a drawing: bool (H, W).

        Args:
            photo: the photo.
            drawn: a PNG in page size; its pixels that are rather opaque are the hole.
            named: a name in dcgan.holes.HOLES.
            mask: an image; white means fill.
            every: a name applies to every face, not only to the first.
            faces: the faces for a name; None to find them.
        Raises:
            PhotoError: a file cannot be read or is too large.
            ServiceError: there is no such name, or the drawing cannot be read.
            NoFaceError: a name was given, and the photo shows no face.
            MaskError: the name does not take this number, or needs landmarks that were not found.
        """
        if named:
            _check_name(named)
            return self._completer.place(photo.pixels, named, faces, every)[0]
        height, width = photo.pixels.shape[:2]
        if mask is not None:
            return self.mask(photo, mask)[0]
        if not drawn:
            return np.zeros((height, width), dtype=bool)
        try:
            with Image.open(io.BytesIO(drawn), formats=["PNG"]) as image:
                if max(image.size) > _MOST_PX:
                    raise ValueError(f"{image.size}")
                opaque = np.asarray(image.convert("RGBA"))[..., -1] > 127
        except (OSError, ValueError, SyntaxError) as error:
            raise ServiceError("the drawing cannot be read; load the page again") from error
        return cv2.resize(opaque.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0

    def mask(self, photo: Photo, path: Path) -> tuple[NDArray[np.bool_], str]:
        """A hole from a mask file, bool (H, W), and a note if the mask has another shape than the photo.

        Raises:
            PhotoError: the file cannot be read or is too large.
        """
        height, width = photo.pixels.shape[:2]
        mask = read_photo(path, self.limits.max_pixels).pixels  # the limit for photos
        hole = masks.read_hole(path, (height, width))[0]
        if abs(mask.shape[1] / mask.shape[0] * height / width - 1) < _SAME_SHAPE:
            return hole, ""
        return hole, (
            f"The mask has {mask.shape[1]}x{mask.shape[0]} pixels and the photo {width}x{height}, another shape: "
            "the mask was stretched. Check the hole before you complete it"
        )

    def drawing(self, hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """A hole as a drawing: uint8 (h, w, 4) in page size, transparent outside the hole."""
        return np.where(_shown_hole(hole)[..., None], (*HOLE_COLOUR, 255), 0).astype(np.uint8)

    def complete(
        self,
        photo: Upload,
        mask: str | NDArray[np.bool_],
        settings: Settings,
        folder: Path,
        faces: Sequence[Alignment] | None = None,
    ) -> Iterator[Preview | Filled]:
        """Fill a hole as the command line does, and write the results for download.

        Args:
            photo: the photo.
            mask: the hole, bool (H, W), or its name.
            settings: how to fill it.
            folder: where to write the files, named after the photo.
            faces: where the faces are; None to find them.
        Yields:
            Previews, at most 5 a second; then the Filled.
        Raises:
            ServiceError: there is no such name.
            MaskError: the hole is empty or cannot be made.
            NoFaceError: no face lies under the hole.
            WeightsError: the weights lack what the solver needs.
            PhotoError: the results cannot be written.
        """
        began = time.monotonic()
        completer = self._completer_for(settings)
        height, width = photo.pixels.shape[:2]
        candidates = max(1, min(settings.candidates, self.limits.candidate_pixels // (height * width)))
        if isinstance(mask, str):
            _check_name(mask)
            hole, faces = completer.place(photo.pixels, mask, faces, seed=settings.seed)
        else:
            hole = mask
        before, masked = shown(photo.pixels), shown(painted(photo.pixels, hole))
        hole_on_page = _shown_hole(hole)
        lowres = isinstance(mask, str) and mask == "lowres"
        last = -math.inf
        seconds = self.limits.seconds - (time.monotonic() - began)
        for item in fill(completer, photo.pixels, hole, faces, settings.seed, lowres, candidates, seconds):
            if isinstance(item, Filling):
                filling = item
            elif time.monotonic() - last >= 1 / _PREVIEWS_PER_S:
                last = time.monotonic()
                pasted = _on_page(item.alignment, photo.pixels, masked).paste(masked, item.preview, beyond_px=2)
                share = (item.face + item.step.number / max(1, item.steps)) / item.faces
                yield Preview(np.where(hole_on_page[..., None], pasted, before), share)
        found = filling.completion.candidates
        notes = [*filling.notes]
        if candidates < settings.candidates:
            notes.append(f"a photo of this size gets {candidates} candidate{'s' * (candidates > 1)} at most")
        write_photo(folder / f"{photo.name}-hole.png", hole.astype(np.uint8)[..., None].repeat(3, axis=2) * 255)
        output = folder / f"{photo.name}-completed{'.png' if settings.as_png else photo.suffix}"
        completions = write_completions(output, photo, hole, filling.completion)
        files = sorted({*folder.iterdir()} - {*completions})
        largest = max(filling.completion.faces, key=lambda face: face.size / face.scale, default=None)
        crops = [shown(_cut(each, largest)) for each in found] if largest else around(hole, found)
        pages = [shown(each) for each in found]
        yield Filled(before, pages, crops, completions, files, tuple(notes), time.monotonic() - began)

    def batch(
        self, photos: Sequence[Path], mask: str, mask_files: Sequence[Path], settings: Settings, folder: Path
    ) -> Iterator[Report | Path]:
        """Complete several photos, one at a time.

        Args:
            photos: the uploaded files.
            mask: the name of a hole, used if there are no mask files.
            mask_files: one mask for all photos, or one for each photo, with the photo's name.
            settings: how to fill the holes; solver, blend, seed and prior weight apply.
            folder: where to write the files.
        Yields:
            a Report about each photo; then a ZIP file with the completions and report.json.
        Raises:
            ServiceError: there are no photos or too many, there is no such name, or no photo could be completed.
            PhotoError: a mask cannot be read.
            WeightsError: the weights lack what the solver needs.
        """
        if not 0 < len(photos) <= self.limits.photos:
            raise ServiceError(f"there are {len(photos)} photos; give from 1 to {self.limits.photos}")
        if len(mask_files) > self.limits.photos:
            raise ServiceError(f"there are {len(mask_files)} masks; give at most {self.limits.photos}")
        if not mask_files:
            _check_name(mask)
        for file in mask_files:
            read_photo(file, self.limits.max_pixels)
        completer = self._completer_for(settings)
        names, masks = _distinct(photos), dict(zip(_distinct(mask_files), mask_files, strict=True))
        outputs = output_names(names, Path())
        results = []
        for photo, name in zip(photos, names, strict=True):
            try:
                its_mask = _mask_of(name, masks) if masks else mask
                result = self._complete_file(completer, photo, its_mask, settings.seed, folder / outputs[name])
            except InputError as error:
                result = Result(photo, "failed", reason=explain(error))
            results.append(result)
            picture = _thumbnail(read_photo(result.outputs[0]).pixels) if result.outputs else None
            text = f"{photo.name}: {result.reason or ', '.join(['completed', *result.notes])}"
            yield Report(photo.name, text, picture)
        if not any(result.outputs for result in results):
            raise ServiceError("none of the photos could be completed")
        yield _zipped(folder / "completed.zip", results)

    def is_large(self, photo: Photo, settings: Settings) -> bool:
        """Whether a completion takes so long that it must not run beside another of its kind."""
        height, width = photo.pixels.shape[:2]
        return settings.solver in SLOW or settings.candidates * height * width > _LARGE_PX

    def example(self, seed: int) -> NDArray[np.uint8]:
        """A generated face as a photo to try the page with, uint8 (6 S, 6 S, 3)."""
        return self._faces(self._draw(seed, 1), times=6)[0]

    def sample(self, seed: int, count: int) -> list[NDArray[np.uint8]]:
        """Generated faces, uint8 (3 S, 3 S, 3) each."""
        return self._faces(self._draw(seed, count))

    def walk(self, seed: int, start: int, end: int, folder: Path) -> tuple[NDArray[np.uint8], Path]:
        """A spherical interpolation between two faces of a seed: some of its faces side by side, and a GIF."""
        drawn = self._draw(seed, max(start, end) + 1)
        faces = self._faces(slerp(drawn[start], drawn[end], 31))
        write_animation(folder / "walk.gif", [*faces, *faces[-2:0:-1]])
        return np.hstack(faces[::5]), folder / "walk.gif"

    def move(self, seed: int, number: int, direction: str) -> NDArray[np.uint8]:
        """A face of a seed moved along a direction, from less to more, with the face itself in the middle.

        Raises:
            ServiceError: there is no such direction.
        """
        if direction not in LABELS:
            raise ServiceError(f"the direction is {direction!r}; choose one of {', '.join(LABELS)}")
        z = self._draw(seed, number + 1)[number]
        return np.hstack(self._faces(z + torch.linspace(-3, 3, 7)[:, None] * self._directions[direction]))

    @cached_property
    def _directions(self) -> dict[str, Tensor]:
        return directions(self._largest)

    def _completer_for(self, settings: Settings) -> FaceCompleter:
        return FaceCompleter(self._weights, settings.solver, settings.blend, settings.prior_weight)

    def _complete_file(self, completer: FaceCompleter, path: Path, mask: str | Path, seed: int, output: Path) -> Result:
        began = time.monotonic()
        photo = read_photo(path, self.limits.max_pixels)
        faces: Sequence[Alignment] | None = None
        note = None
        if isinstance(mask, str):
            hole, faces = completer.place(photo.pixels, mask, seed=seed)
        else:
            height, width = photo.pixels.shape[:2]
            hole, note = masks.read_hole(mask, (height, width))
        items = fill(completer, photo.pixels, hole, faces, seed, mask == "lowres", seconds=self.limits.seconds)
        filling = next(item for item in items if isinstance(item, Filling))
        [output] = write_completions(output, photo, hole, filling.completion)
        notes = (note, *filling.notes) if note else filling.notes
        figures = filling.figures | {"seconds": time.monotonic() - began}
        return Result(path, "completed", (output,), "", notes, filling.sources, figures)

    def _draw(self, seed: int, count: int) -> Tensor:
        drawn = max(count, _DRAWN)
        return sample_z(drawn, self._largest.generator.config, torch.Generator().manual_seed(seed))[:count]

    def _faces(self, z: Tensor, times: int = 3) -> list[NDArray[np.uint8]]:
        faces = generate(self._largest.generator, z)
        side = times * min(_FACE_PX, faces.shape[1])
        return [cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8) for face in faces]


def shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of a photo in page size: uint8 (h, w, 3)."""
    size = _page_size(pixels.shape[1], pixels.shape[0])
    if size == pixels.shape[1::-1]:
        return pixels.copy()
    how = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(pixels, size, interpolation=how).astype(np.uint8, copy=False)


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(1.0, _THUMBNAIL_PX / max(pixels.shape))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _check_name(mask: str) -> None:
    """Refuse anything but names of holes, above all paths on the server."""
    if holes.split_names(mask) is None:
        raise ServiceError(f"there is no hole named {mask!r}; choose one of {', '.join(HOLES)}, or upload a mask")


def _page_size(width: int, height: int) -> tuple[int, int]:
    side = max(width, height)
    scale = min(max(side, _LEAST_PX), _MOST_PX) / side
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shown_hole(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    size = _page_size(hole.shape[1], hole.shape[0])
    return cv2.resize(hole.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def _on_page(face: Alignment, pixels: NDArray[np.uint8], on_page: NDArray[np.uint8]) -> Alignment:
    """The alignment of a face in page size; the centre of a pixel is at a whole number."""
    x, y = pixels.shape[1] / on_page.shape[1], pixels.shape[0] / on_page.shape[0]
    return Alignment(face.matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]]), face.size)


def _cut(pixels: NDArray[np.uint8], face: Alignment) -> NDArray[np.uint8]:
    """The upright box around a face, without what lies outside the photo."""
    corners = transform(face.inverse, (face.size - 1) * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
    (left, top), (right, bottom) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int) + 1
    return pixels[max(0, top) : bottom, max(0, left) : right]


def _checked_eyes(eyes: Sequence[Sequence[float]]) -> list[list[float]]:
    if not (isinstance(eyes, list | tuple) and len(eyes) <= _FACES):
        raise ServiceError(f"mark at most {_FACES} faces")
    for shares in eyes:
        if not (
            isinstance(shares, list | tuple)
            and len(shares) == 4
            and all(isinstance(x, int | float) and 0 <= x <= 1 for x in shares)
        ):
            raise ServiceError("a face is marked by x and y of both eyes, four numbers from 0 to 1")
    return [list(shares) for shares in eyes]


def _distinct(files: Sequence[Path]) -> list[Path]:
    """The names of files; a name that is taken gets a number."""
    names: list[Path] = []
    for number, file in enumerate(files, start=1):
        name = Path(file.name)
        while name in names:
            name = Path(f"{name.stem}-{number}{name.suffix}")
        names.append(name)
    return names


def _mask_of(photo: Path, masks: dict[Path, Path]) -> Path:
    """The mask of a photo: the only one, or the one with its name."""
    found = [file for name, file in masks.items() if len(masks) == 1 or name.stem == photo.stem]
    if len(found) != 1:
        raise ServiceError(f"{len(found) or 'no'} masks are named {photo.stem}; give one mask with the photo's name")
    return found[0]


def _zipped(path: Path, results: Sequence[Result]) -> Path:
    """The completions and report.json in one ZIP file; photos appear by name, without their folders."""
    records = [
        result.record() | {"photo": result.photo.name, "outputs": [output.name for output in result.outputs]}
        for result in results
    ]
    report = {"summary": summary(results), "photos": records}
    with zipfile.ZipFile(path, "w") as archive:  # pictures are compressed already
        for output in [output for result in results for output in result.outputs]:
            archive.write(output, output.name)
        archive.writestr("report.json", json.dumps(report, indent=1) + "\n")
    return path
