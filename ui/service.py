"""The work behind the page, independent of its looks: photos and marks in, patches and files out."""

import json
import math
import queue
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from align.errors import InputError, NoFaceError, PhotoError
from align.files import output_names, read_file
from align.landmarks import predictor
from align.locate import align_by_eyes
from align.photo import Photo, decode_photo, digest, write_photo
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion import Completion, FaceCompleter
from completion.batch import FillResult, summary, write_completions
from completion.config import SOLVERS, FillOptions
from completion.damage import find_damage
from completion.references import References
from dcgan import holes
from ui.config import Limits
from ui.reader import read, read_reference, read_with_faces, search

HOLES = tuple(name for name in holes.HOLES if name != "lowres")  # lowres is no hole that one could see or draw
PARTS = ("eyes", "left eye", "right eye", "nose", "mouth", "left half", "right half", "whole face")
_PART_PX = 192  # side of the crop in which the outlines of parts are drawn
_BOX = (0.13, 0.2, 0.87, 0.94)  # where the face detector would draw its box in the template: left, top, right, bottom
_OVAL = (0.5, 0.56), (0.32, 0.4)  # centre and half axes of a whole face in the template, relative to the crop's side
_SIMPLER_PX = 0.8  # an outline may differ so much from the part's, in pixels of that crop
_SLOW = [name for name, solver in SOLVERS.items() if solver.steps > 100]
_LARGE_PX = 8_000_000  # larger photos, all candidates together, take long
_LARGE_BYTES = 2**19  # the file of a photo that takes long to read and to search
_SMALLEST_PX, _LARGEST = 4, 4  # limits on the side of a face: in pixels, and relative to the photo
_MOST_CANDIDATES = 8
_QUICK_PX = 512  # longest side at which a quick fill is made
_REST_S = 10  # after the search is stopped, its best result is blended
_STRAY = 0.02  # a smaller share of the marks outside all faces is not worth a remark
_OUTLINE_PX = 0.7  # by how much an outline of damage may be off
_MOST_POINTS = 20_000  # of all outlines together; old prints have up to 1,300
_MOST_PATCHES, _MOST_FACES, _MOST_NAMES, _MOST_REFERENCES = 200, 200, 8, 8
_MOST_PX = 1_000_000  # of a coordinate
_WORKERS = 4  # two fills run at once; others may still end that were given up
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
T = TypeVar("T")


class ServiceError(InputError):
    """A request that cannot be met. The message says what was found, what was expected and what to do."""


def explain(error: InputError) -> str:
    """An error as a sentence for a person."""
    if isinstance(error, NoFaceError):  # the library's advice is for programs
        advice = "Mark a part of a face, or use" if "under the hole" in str(error) else "Use"
        return f"No face was found there. {advice} a photo that shows the face larger."
    return _sentence(str(error).rstrip("."))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


@dataclass
class Upload:
    """An uploaded photo, decoded once.

    Attributes:
        photo: the photo, which remembers its faces.
        suffix: suffix of its format, such as ".jpg".
    """

    photo: Photo
    suffix: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.photo.pixels.shape[:2]
        return width, height


@dataclass(frozen=True)
class Fill:
    """What a fill changed: a patch to be laid over the photo.

    Attributes:
        pixels: uint8 (h, w, 4), opaque where the photo was filled and transparent elsewhere.
        x, y: position of its upper left corner in the photo.
        faces: number of faces that it touches.
        outside: whether a part lies outside all faces.
        quick: whether the time limit cut the work short.
        notes: why references were not used, as sentences.
    """

    pixels: NDArray[np.uint8]
    x: int
    y: int
    faces: int = 0
    outside: bool = False
    quick: bool = False
    notes: tuple[str, ...] = ()

    def save(self, path: Path, photo: Photo) -> None:
        """Write a PNG with the colour profile of the photo, so that browsers show both alike."""
        Image.fromarray(self.pixels).save(path, compress_level=3, icc_profile=photo.icc_profile)


class Service:
    """Everything the page can do.

    Args:
        completer: fills the photos.
        limits: how much one visitor may ask for.
        does: does the work of ui.reader, given one of its functions and what this takes; by default in this process.
    """

    def __init__(self, completer: FaceCompleter, limits: Limits, does: Callable[..., Any] | None = None) -> None:
        self.limits = limits
        self.completer = completer
        self._does = does or (lambda work, *words: work(completer, limits, *words))
        completer.references = References(partial(self._does, read_reference))
        self._pool = ThreadPoolExecutor(_WORKERS, "fill")
        self._uploads: OrderedDict[Path, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> Upload:
        """Decode an uploaded photo and find its faces; those used last are kept, up to four of the largest size.

        Raises:
            PhotoError: the file cannot be read, or the photo is too large.
        """
        with self._lock:
            if upload := self._uploads.get(path):
                self._uploads.move_to_end(path)
                return upload
        photo = self._does(read_with_faces, path)
        upload = Upload(photo, ".png")
        with suppress(UnidentifiedImageError), Image.open(path) as image:  # reads the header only; of HEIC it cannot
            upload.suffix = _SUFFIXES.get(image.format or "", ".png")
        with self._lock:
            self._uploads[path] = upload
            while sum(math.prod(kept.size) for kept in self._uploads.values()) > 4 * self.limits.max_pixels:
                self._uploads.popitem(last=False)
        return upload

    def faces(self, upload: Upload) -> list[Alignment]:
        """The faces of a photo, the largest first."""
        try:
            return self.completer.locate(upload.photo, every=True)
        except NoFaceError:
            return []

    def marked(self, upload: Upload, eyes: Sequence[float]) -> Alignment:
        """The face at two eyes, (x, y, x, y) in pixels, the left one in the photo first.

        Raises:
            ServiceError: these are not four numbers.
            NoFaceError: the eyes coincide or lie outside the photo.
        """
        if not (len(eyes) == 4 and all(map(_is_number, eyes))):
            raise ServiceError("a face is marked by x and y of both eyes, four numbers")
        shape = upload.photo.pixels.shape[:2]
        points = [value - 0.5 for value in eyes]  # see `describe`
        return align_by_eyes(points, (shape[0], shape[1]), self.completer.template, self.completer.size)

    def describe(self, upload: Upload, face: Alignment) -> dict[str, Any]:
        """A face as JSON in pixels of the photo: alignment (see `alignments`), corners, eyes, outlines of PARTS."""

        def on_photo(shares: Any) -> list[list[float]]:
            # The page counts from the corner of a pixel, alignments from its centre.
            points = transform(face.inverse, np.array(shares) * face.size - 0.5) + 0.5
            return [[round(x, 1), round(y, 1)] for x, y in points.tolist()]

        return {
            "alignment": [*face.matrix.ravel().tolist(), face.size],
            "corners": on_photo([(0, 0), (1, 0), (1, 1), (0, 1)]),
            "eyes": on_photo(np.array(TEMPLATES["face"].targets) + 0.5 / face.size),
            "parts": {
                name: [on_photo(points) for points in outlines]
                for name, outlines in _parts(upload.photo.pixels, face).items()
            },
        }

    def damage(self, photo: Photo, sensitivity: float) -> list[list[list[float]]]:
        """The outlines of the damage in a photo, as points (x, y) of the page; the even-odd rule gives its inside.

        Where they would have more than 20,000 points, they lie so far around the damage that they need fewer.

        Raises:
            ServiceError: the sensitivity is no number.
            MaskError: it is out of range.
        """
        if not _is_number(sensitivity):
            raise ServiceError("the sensitivity is no number; load the page again")
        hole, reach_px = find_damage(photo, sensitivity).astype(np.uint8), 0
        while True:
            near = cv2.dilate(hole, np.ones((2 * reach_px + 1,) * 2, np.uint8))
            outlines, _ = cv2.findContours(near, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            fewer = [cv2.approxPolyDP(outline, max(_OUTLINE_PX, reach_px), True) for outline in outlines]
            if sum(map(len, fewer)) <= _MOST_POINTS:
                return [(outline[:, 0] + 0.5).tolist() for outline in fewer]
            reach_px = 2 * reach_px + 1

    def alignments(self, upload: Upload, faces: Any) -> list[Alignment]:
        """The faces that the page sends back: each six numbers of a matrix, by rows, and the crop's size.

        Raises:
            ServiceError: they are malformed, absurdly small or large, or too many.
        """
        if not (isinstance(faces, list) and len(faces) <= _MOST_FACES):
            raise ServiceError(f"the faces are no list of at most {_MOST_FACES}; load the page again")
        found = []
        for numbers in faces:
            if not (isinstance(numbers, list) and len(numbers) == 7 and all(map(_is_number, numbers))):
                raise ServiceError("a face is six numbers of a matrix and the size of its crop; load the page again")
            matrix = np.array(numbers[:6], dtype=np.float64).reshape(2, 3)
            area = abs(float(np.linalg.det(matrix[:, :2])))
            side = numbers[6] / math.sqrt(area) if area else math.inf
            if numbers[6] not in self.completer.weights or not _SMALLEST_PX <= side <= _LARGEST * max(upload.size):
                raise ServiceError("a face has an absurd size; load the page again")
            found.append(Alignment(matrix, int(numbers[6])))
        return found

    def hole(self, upload: Upload, path: Path) -> NDArray[np.bool_]:
        """What is painted on a photo: bool (H, W), from a PNG of about its shape; rather opaque pixels are marked.

        Raises:
            ServiceError: the file cannot be read, or nothing is painted.
        """
        opaque = np.asarray(self._drawn(path, "what is painted").image)[..., -1]
        if opaque.shape != upload.size[::-1]:
            opaque = cv2.resize(opaque, upload.size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        if not opaque.max(initial=0) > 127:
            raise ServiceError("Nothing is marked yet. Paint over what is missing.")
        return opaque > 127

    def patched(self, upload: Upload, patches: Sequence[tuple[Path, int, int]]) -> tuple[Photo, NDArray[np.bool_]]:
        """A photo with patches laid over it, in order, and all that they cover: bool (H, W).

        Raises:
            ServiceError: a patch is no PNG, or does not fit.
        """
        width, height = upload.size
        covered = np.zeros((height, width), dtype=bool)
        if not patches:
            return upload.photo, covered
        if len(patches) > _MOST_PATCHES:
            raise ServiceError(f"there are {len(patches)} steps; at most {_MOST_PATCHES} can be kept. Save the photo")
        pixels = upload.photo.pixels.copy()
        for path, x, y in patches:
            step = self._drawn(path, "a step")
            patch = step.stored
            right, bottom = x + patch.shape[1], y + patch.shape[0]
            if step.mode != "RGBA" or patch.dtype != np.uint8 or min(x, y) < 0 or right > width or bottom > height:
                raise ServiceError("a step does not fit the photo; load the page again")
            opaque = patch[..., 3] > 127
            pixels[y:bottom, x:right][opaque] = patch[..., :3][opaque]
            covered[y:bottom, x:right] |= opaque
        return replace(upload.photo, pixels=pixels), covered

    def _drawn(self, path: Path, what: str) -> Photo:
        """Read a PNG with alpha that the page made; unlike other formats, it takes as long as its pixels explain."""
        with suppress(PhotoError):
            data = read_file(path, self.limits.file_bytes)
            drawn = decode_photo(data, self.limits.max_pixels) if data.startswith(b"\x89PNG\r\n\x1a\n") else None
            if drawn is not None and "A" in drawn.mode:
                return drawn
        raise ServiceError(f"{what} cannot be read; load the page again")

    def references(self, paths: Sequence[Path]) -> tuple[Path, ...]:
        """Find the faces in uploaded photos of the person, for the option `reference`.

        Raises:
            ServiceError: there are too many.
            PhotoError: a file cannot be read, or the photo is too large.
        """
        if len(paths) > _MOST_REFERENCES:
            raise ServiceError(f"there are {len(paths)} references; give up to {_MOST_REFERENCES}")
        for path in paths:
            self.completer.references.faces_in(path, digest(path))
        return tuple(paths)

    def fill(
        self,
        photo: Photo,
        hole: NDArray[np.bool_],
        faces: Sequence[Alignment],
        attempt: int = 0,
        reference: tuple[Path, ...] = (),
    ) -> Iterator[Fill | None]:
        """Fill what is painted on a photo.

        Args:
            photo: the photo as it is shown.
            hole: bool (H, W).
            faces: where the faces are; none to search for them, see ui.reader.search.
            attempt: 0 for the best fill; each other number gives an alternative, see `candidates` of FillOptions.
            reference: other photos of the person.
        Yields:
            None while it works, and then the Fill.
        Raises:
            WeightsError: the networks cannot be used.
        """
        seconds, quick, touched, pixels = self.limits.seconds, False, list(faces), photo.pixels
        notes: list[str] = []
        # The first of several candidates has no noise, and is the fill of attempt 0.
        options: dict[str, Any] = {"seed": attempt, "candidates": 1 + (attempt > 0), "seconds": seconds}
        options |= {"no_face": "fill", "reference": reference}
        try:
            found = faces or self._does(search, photo.pixels, hole)[0]
            for item in self._in_time(self.completer.steps(photo, hole, faces=found, **options), seconds):
                if isinstance(item, Completion):
                    pixels, quick = item.candidates[-1], item.stopped_s is not None
                    touched = list(item.faces)
                    notes = [remark for remark in item.remarks if "reference" in remark]
                else:
                    yield None
        except TimeoutError:
            pixels, quick = _quick(pixels, hole), True
        rest = hole.copy()
        for face in touched:
            rest &= ~face.footprint((hole.shape[0], hole.shape[1]))
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        patch = np.dstack([pixels[box], np.where(hole[box], np.uint8(255), np.uint8(0))])
        patch[~hole[box]] = 0
        outside = bool(rest.sum() > _STRAY * hole.sum())
        for path in reference:  # its folder is the server's
            notes = [note.replace(str(path), path.name) for note in notes]
        said = tuple(map(_sentence, notes))
        yield Fill(patch, int(columns[0]), int(rows[0]), len(touched), outside, quick, said)

    def save(self, upload: Upload, patches: Sequence[tuple[Path, int, int]], path: Path) -> Path:
        """Write a photo with its patches (see `patched`), with its metadata; its format gives the suffix of `path`."""
        photo, covered = self.patched(upload, patches)
        path = path.with_name(f"{path.name}{upload.suffix}")
        write_photo(path, photo.pixels, upload.photo, covered)
        return path

    def save_all(
        self,
        items: Sequence[tuple[str, Path | None, Sequence[Any], str]],
        path: Path,
        turn: Callable[[Path], AbstractContextManager[Any]] = nullcontext,
    ) -> Path:
        """Write several photos into one ZIP file, with a report.

        Args:
            items: of each photo its name, the uploaded file, its patches, and why it failed; without file it was not
                filled.
            path: file to write.
            turn: see `batch`.
        Raises:
            ServiceError: none of the photos was filled, or there are too many.
        """
        if not 0 < len(items) <= self.limits.photos:
            raise ServiceError(f"there are {len(items)} photos; give from 1 to {self.limits.photos}")
        names = output_names(_distinct([Path(name) for name, *_ in items]), Path())
        report, files = [], []
        for (name, photo, patches, reason), output in zip(items, names.values(), strict=True):
            if photo is not None:
                with turn(photo):
                    files.append(self.save(self.read(photo), patches, path.parent / output.stem))
                report.append({"photo": name, "file": files[-1].name, "steps": len(patches)})
            else:
                report.append({"photo": name, "failed": reason or "not filled"})
        return _zipped(path, files, report)

    def complete(
        self, upload: Upload, mask: str | Path, folder: Path, name: str = "photo", as_png: bool = True, **options: Any
    ) -> Iterator[None | tuple[list[Path], Completion]]:
        """Fill a hole as the command line does.

        Args:
            upload: the photo.
            mask: the name of a hole, or a mask file.
            folder: where to write the files.
            name: base name of the files.
            as_png: write PNG, which keeps every pixel outside the hole exactly, instead of the photo's own format.
            options: see `completion.config.FillOptions`.
        Yields:
            None while it works; then the files, the best first, and the completion.
        Raises:
            InputError: the mask, an option or the weights cannot be used, or there is no face under the hole.
        """
        most = max(1, min(_MOST_CANDIDATES, 2 * self.limits.max_pixels // math.prod(upload.size)))
        if self.options(**options).candidates > most:
            raise ServiceError(f"candidates is {options['candidates']}; a photo of this size gets at most {most}")
        seconds, hidden = self.limits.seconds, 0
        where: str | Photo
        try:
            if isinstance(mask, Path):
                where = self._does(read, mask)
                hole, *_ = self.completer.mark(upload.photo, where)
                faces, hidden = self._does(search, upload.photo.pixels, hole)
            else:  # whatever a program has sent
                _check_name(mask)
                where, faces = mask, self.completer.locate(upload.photo, every=True)
            steps = self.completer.steps(upload.photo, where, faces=faces, seconds=seconds, **options)
            for item in self._in_time(steps, seconds + _REST_S):
                if isinstance(item, Completion):
                    output = folder / f"{name}-completed{'.png' if as_png else upload.suffix}"
                    yield write_completions(output, item), replace(item, hidden=hidden)
                else:
                    yield None
        except TimeoutError:
            raise ServiceError(f"the work took longer than {seconds:g} s; reduce the photo, or mark less") from None

    def batch(
        self,
        photos: Sequence[Path],
        mask: str,
        mask_files: Sequence[Path],
        folder: Path,
        turn: Callable[[Path], AbstractContextManager[Any]] = nullcontext,
        **options: Any,
    ) -> Iterator[str | Path]:
        """Complete several photos, one at a time.

        Args:
            photos: the uploaded files.
            mask: the name of a hole, used if there are no mask files.
            mask_files: one mask for all photos, or one for each photo, with the photo's name.
            folder: where to write the files.
            turn: waits for the turn of a photo, and holds it meanwhile.
            options: see `completion.config.FillOptions`.
        Yields:
            a line about each photo; then a ZIP file with the completions and report.json.
        Raises:
            ServiceError: there are no photos or too many, there is no such name, or no photo could be completed.
            PhotoError: a mask cannot be read.
            ConfigError, WeightsError: an option is out of range, or the weights lack what the solver needs.
        """
        for what, files, least in (("photos", photos, 1), ("masks", mask_files, 0)):
            if not least <= len(files) <= self.limits.photos:
                raise ServiceError(f"there are {len(files)} {what}; give from {least} to {self.limits.photos}")
        if not mask_files:
            _check_name(mask)
        self.options(**options)
        names, masks = _distinct(photos), dict(zip(_distinct(mask_files), mask_files, strict=True))
        outputs = output_names(names, Path())
        results = []
        for photo, name in zip(photos, names, strict=True):
            try:
                chosen = _mask_of(name, masks) if masks else mask
                with turn(photo):
                    steps = self.complete(self.read(photo), chosen, folder, outputs[name].stem, **options)
                    files, done = next(item for item in steps if item is not None)
                result = FillResult(photo, "completed", (files[0],), "", done.notes, done.shares, done.figures)
            except InputError as error:
                result = FillResult(photo, "failed", reason=explain(error))
            results.append(result)
            yield f"{photo.name}: {result.reason or ', '.join(['completed', *result.notes])}"
        if not any(result.outputs for result in results):
            raise ServiceError("none of the photos could be completed")
        records = [
            result.record() | {"photo": result.photo.name, "outputs": [output.name for output in result.outputs]}
            for result in results
        ]
        report = {"summary": summary(results), "photos": records}
        yield _zipped(folder / "completed.zip", [output for result in results for output in result.outputs], report)

    def options(self, **options: Any) -> FillOptions:
        """The options of a fill.

        Raises:
            ConfigError: a value has another type or is out of range.
        """
        return replace(self.completer.options, **options)

    def is_large(self, path: Path, **options: Any) -> bool:
        """Whether reading a photo, or completing one that was read, takes too long to run beside another such."""
        chosen = self.options(**options)
        with self._lock:
            upload = self._uploads.get(path)
        large = chosen.candidates * math.prod(upload.size) > _LARGE_PX if upload else path.stat().st_size > _LARGE_BYTES
        return large or chosen.solver in _SLOW

    def _in_time(self, items: Iterator[T], seconds: float) -> Iterator[T]:
        """Run an iterator in a worker thread, whose calls into C cannot be interrupted.

        Raises:
            TimeoutError: the time is over; the worker ends at its next item.
        """
        made: queue.SimpleQueue[Any] = queue.SimpleQueue()
        end = object()
        left, ends = threading.Event(), time.monotonic() + seconds

        def work() -> None:
            try:
                for item in items:
                    if left.is_set():
                        return
                    made.put(item)
                made.put(end)
            except BaseException as error:
                made.put(error)

        self._pool.submit(work)
        try:
            while True:
                try:
                    item = made.get(timeout=max(0.0, ends - time.monotonic()))
                except queue.Empty:
                    raise TimeoutError from None
                if item is end:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            left.set()


def _parts(pixels: NDArray[np.uint8], face: Alignment) -> dict[str, list[NDArray[np.float64]]]:
    """Outlines of the parts of a face, as shares of the crop: name in PARTS -> (N, 2) each.

    They follow the landmarks of the face, which the predictor finds in the crop without another search for the face.
    """
    crop = face.resized(_PART_PX).warp(pixels)
    left, top, right, bottom = (round(share * _PART_PX) for share in _BOX)
    found = predictor(68)(crop, dlib.rectangle(left, top, right, bottom))
    landmarks = np.array([(part.x, part.y) for part in found.parts()], dtype=np.float64)

    def drawn(name: str) -> list[NDArray[np.float64]]:
        hole = holes.named_hole(name, _PART_PX, np.random.default_rng(0), landmarks).astype(np.uint8)
        outlines, _ = cv2.findContours(hole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        simple = [cv2.approxPolyDP(outline, _SIMPLER_PX, True)[:, 0] + 0.5 for outline in outlines]
        return sorted((outline / _PART_PX for outline in simple), key=lambda outline: float(outline[:, 0].mean()))

    (x, y), (across, down) = _OVAL
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    oval = np.stack([x + across * np.sin(turn), y - down * np.cos(turn)], axis=1)  # from the top, the right half first
    eyes = drawn("eyes")
    return {
        "eyes": eyes,
        "left eye": eyes[:1],
        "right eye": eyes[-1:],
        "nose": drawn("nose"),
        "mouth": drawn("mouth"),
        "left half": [np.vstack([oval[24:], oval[:1]])],
        "right half": [oval[:25]],
        "whole face": [oval],
    }


def _quick(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole smoothly from what is around it, in milliseconds: uint8 (H, W, 3)."""
    scale = min(1.0, _QUICK_PX / max(hole.shape))
    size = max(1, round(hole.shape[1] * scale)), max(1, round(hole.shape[0] * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.dilate((small_hole > 0).astype(np.uint8), np.ones((3, 3), dtype=np.uint8))
    filled = cv2.resize(cv2.inpaint(small, small_hole, 3, cv2.INPAINT_TELEA), hole.shape[::-1])
    return np.where(hole[..., None], filled, pixels).astype(np.uint8, copy=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST_PX


def _check_name(mask: str) -> None:
    """Refuse anything but names of holes, above all paths on the server."""
    if isinstance(mask, str) and mask.count(",") >= _MOST_NAMES:
        raise ServiceError(f"the mask has {mask.count(',') + 1} names; give at most {_MOST_NAMES}")
    if not isinstance(mask, str) or holes.split_names(mask) is None:
        raise ServiceError(f"there is no hole named {mask!r}; choose one of {', '.join(HOLES)}, or send a mask")


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


def _zipped(path: Path, files: Sequence[Path], report: Any) -> Path:
    """Files and report.json in one ZIP file."""
    with zipfile.ZipFile(path, "w") as archive:  # pictures are compressed already
        for file in files:
            archive.write(file, file.name)
        archive.writestr("report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return path
