"""Align all photos in a folder with several workers, and list every crop in a manifest."""

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from align.config import AlignOptions
from align.crop import align_faces
from align.errors import ConfigError, LandmarkModelError, PhotoError
from align.files import (
    atomic_write,
    check_outputs,
    lock_folder,
    output_names,
    prepare_folder,
    prepare_report,
    remove_leftovers,
)
from align.manifest import append_line, read_records
from align.parallel import parallel_map
from align.photo import digest, read_photo, write_photo
from align.settings import Range, check

MANIFEST = "faces.jsonl"
# Settings that all crops of a folder share.
_SHARED = ("template", "size", "faces", "upsample")


@dataclass(frozen=True)
class AlignResult:
    """Result for one photo: the crops that were written, the largest face first, or why none was.

    It is "skipped" if the crop existed, "several faces" if only photos with one face were requested.
    """

    photo: Path
    status: Literal["aligned", "skipped", "no face", "several faces", "failed"]
    crops: tuple[Path, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Crop:
    """A line of faces.jsonl, see `align_folder`; lines of older versions lack what has a default.

    Raises:
        ConfigError: a field has another type, or the crop would lie outside the folder.
    """

    crop: str
    source: str
    face: Annotated[int, Range(0, 2**31)]
    template: str
    size: Annotated[int, Range(1, 2**31)]
    sha256: str = ""
    crop_sha256: str = ""
    faces: str | None = None
    upsample: int | None = None
    matrix: list[Any] | None = None
    landmarks: list[Any] | None = None

    def __post_init__(self) -> None:
        check(self)
        inside = PurePosixPath(self.crop)
        if inside.is_absolute() or ".." in inside.parts or inside.suffix != ".png":
            raise ConfigError(f"crop is {self.crop!r}; expected a PNG file in the folder")


class _Task(NamedTuple):
    """A photo to align; its source is relative to the input folder, its crops to the output folder."""

    photo: Path
    source: str
    name: Path  # of the crop
    old_crops: tuple[Crop, ...]


def align_folder(
    photos: Sequence[Path],
    source: Path,
    output: Path,
    options: AlignOptions | None = None,
    report: Path | None = None,
) -> Iterator[AlignResult]:
    """Cut the faces out of photos as PNG files, and list them in `output`/faces.jsonl.

    A line has the paths of the crop and of its source relative to the two folders, the SHA-256 of both, the number of
    the face (0 is the largest), the settings, the 2x3 matrix from photo to crop, and the landmarks in the photo's
    pixels. It is written after the crops of its photo; a crop without a line, left by a killed run, is made again. The
    file is cleaned up at the start and at the end of a run; lines that are no records stay.

    Args:
        photos: distinct files below `source`.
        source: the input folder, or the only photo; the output folder gets the same sub-folders.
        output: folder for the crops; locked during the run.
        options: the settings; None for the defaults.
        report: a file that the caller will write, checked like the outputs.
    Yields:
        One result per photo, skipped photos first.
    Raises:
        PhotoError: an output is or replaces an input, a folder cannot be used, is used by another run, or contains
            crops of other settings.
        LandmarkModelError: dlib or its landmark file is missing or broken.
        WorkerError, BackendError: see `align.parallel.parallel_map`.
    """
    options = options or AlignOptions()
    root = source if source.is_dir() else source.parent
    names = output_names(photos, root, numbered=options.faces == "all")
    folders = [output, *filter(None, [options.missing])]
    inputs = [source, *photos, *(photo.parent for photo in photos if source.is_dir())]  # a photo's folder may be a link
    outputs = {folder: [folder / name for name in (Path(MANIFEST), *names.values())] for folder in folders}
    check_outputs(filter(None, [report]), inputs)
    for folder in folders:
        check_outputs(outputs[folder], inputs, folder)
    if options.missing and os.path.realpath(options.missing) == os.path.realpath(output):
        raise PhotoError(f"the folder for photos without a face is the output folder {output}; choose another folder")
    if report:
        prepare_report(report, options.overwrite)
    with ExitStack() as locks:
        for folder in folders:
            prepare_folder(folder)
            locks.enter_context(lock_folder(folder))
            within = {file.parent for file in outputs[folder]}
            remove_leftovers(within)  # of killed runs
            locks.callback(remove_leftovers, within)  # of workers that were ended
        yield from _align_locked(photos, root, output, names, options)


def _align_locked(
    photos: Sequence[Path], root: Path, output: Path, names: dict[Path, Path], options: AlignOptions
) -> Iterator[AlignResult]:
    manifest = _tidy(output)
    for name in _SHARED:
        wanted = getattr(options, name)
        others = {getattr(line, name) for line in manifest} - {wanted, None}
        if others and not options.overwrite:
            raise PhotoError(
                f"{output} contains crops made with {name} {others.pop()}, not {wanted}; choose another folder, or "
                "overwrite them"
            )

    # Photos whose crops exist are skipped. The line of face 0 is written last.
    done, old_crops = {}, defaultdict(list)
    for line in manifest:
        old_crops[line.source].append(line)
        if line.face == 0:
            done[line.source] = line
    tasks = []
    for photo in photos:
        source = photo.relative_to(root).as_posix()
        if source in done and not options.overwrite:
            yield _existing(photo, done[source])
        else:
            tasks.append(_Task(photo, source, names[photo], tuple(old_crops[source])))

    # Workers write the crops, this process the manifest.
    start = partial(partial, _align_photo, output=output, options=options)
    try:
        for result, lines in parallel_map(start, tasks, options.jobs, options.backend):
            for line in lines:
                append_line(output / MANIFEST, asdict(line))
            yield result
    finally:
        _tidy(output)


def _existing(photo: Path, line: Crop) -> AlignResult:
    """Return the result of a photo with a crop: skipped, or failed if the crop is of another photo of that name."""
    try:
        if digest(photo) == line.sha256:
            return AlignResult(photo, "skipped", reason="its crop exists")
    except PhotoError as error:
        return AlignResult(photo, "failed", reason=str(error))
    reason = f"the crop {line.crop} is from another photo of that name; choose another folder, or overwrite it"
    return AlignResult(photo, "failed", reason=reason)


def _tidy(output: Path) -> list[Crop]:
    """Rewrite the manifest: the last line for each crop that exists, sorted. Return them."""
    records, others = read_records(output / MANIFEST, Crop)
    last = {record.crop: record for record in records}
    lines = [last[crop] for crop in sorted(last) if os.path.isfile(output / crop)]
    with atomic_write(output / MANIFEST) as file:
        file.writelines(line + b"\n" for line in (*others, *(json.dumps(asdict(line)).encode() for line in lines)))
    return lines


def _align_photo(task: _Task, output: Path, options: AlignOptions) -> tuple[AlignResult, list[Crop]]:
    """Write the crops of a photo. Return the result, and the lines of the manifest, the largest face last."""
    lines: list[Crop] = []
    try:
        photo = read_photo(task.photo)
        faces = align_faces(photo, options.size, options.template, options.upsample)
        if not faces:
            if options.missing and (options.overwrite or not (options.missing / task.name).exists()):
                unchanged = np.zeros(photo.pixels.shape[:2], dtype=bool)
                write_photo(options.missing / task.name, photo.pixels, photo, unchanged, options.overwrite)
            return AlignResult(
                task.photo, "no face", reason="no face found; upsample more to find smaller faces"
            ), lines
        if options.faces == "single" and len(faces) > 1:
            return AlignResult(task.photo, "several faces", reason=f"{len(faces)} faces found, expected one"), lines
        for number, face in reversed(list(enumerate(faces if options.faces == "all" else faces[:1]))):
            name = task.name.with_name(f"{task.name.stem}_{number}.png") if number else task.name
            file = io.BytesIO()
            face.image.save(file, "PNG")
            _write_crop(output / name, file.getvalue(), options.overwrite)
            lines.append(
                Crop(
                    name.as_posix(),
                    task.source,
                    number,
                    sha256=photo.sha256,
                    crop_sha256=hashlib.sha256(file.getvalue()).hexdigest(),
                    matrix=face.alignment.matrix.tolist(),
                    landmarks=face.landmarks.tolist(),
                    **{setting: getattr(options, setting) for setting in _SHARED},
                )
            )
        for old in task.old_crops:
            if old.crop not in {line.crop for line in lines} and _is_ours(output, old):
                (output / old.crop).unlink()
        return AlignResult(task.photo, "aligned", tuple(output / line.crop for line in reversed(lines))), lines
    except LandmarkModelError:
        raise
    except PhotoError as error:
        return AlignResult(task.photo, "failed", reason=str(error)), lines
    except Exception as error:  # one photo must not stop the others
        return AlignResult(task.photo, "failed", reason=f"{type(error).__name__}: {error}"), lines


def _is_ours(output: Path, crop: Crop) -> bool:
    """Whether a crop is still as it was written, and not behind a link."""
    path, real = output / crop.crop, Path(os.path.realpath(output), crop.crop)
    return os.path.realpath(path) == str(real) and path.is_file() and digest(path) == crop.crop_sha256


def _write_crop(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a crop, unless it exists; a file that is not this crop is kept."""
    if os.path.lexists(path) and not overwrite:
        if path.is_file() and path.read_bytes() == data:  # left by a killed run
            return
        raise PhotoError(f"{path} exists and is not a crop of this photo; move it or overwrite it")
    with atomic_write(path, overwrite) as file:
        file.write(data)
