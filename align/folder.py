"""Align all photos in a folder with several workers, and record every crop."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.config import AlignOptions
from align.crop import align_faces
from align.errors import LandmarkModelError, PhotoError
from align.files import (
    atomic_write,
    check_outputs,
    lock_folder,
    output_names,
    prepare_folder,
    prepare_report,
    remove_leftovers,
    write_text,
)
from align.parallel import parallel_map
from align.photo import digest, read_photo, write_photo
from align.records import append_line, read_lines

RECORDS = "faces.jsonl"


@dataclass(frozen=True)
class Result:
    """Result for one photo.

    Attributes:
        photo: the file.
        status: "skipped" if the crop existed, "several faces" if only photos with one face were requested.
        crops: the files written, the largest face first.
        reason: why no crop was written; a message for people.
    """

    photo: Path
    status: Literal["aligned", "skipped", "no face", "several faces", "failed"]
    crops: tuple[Path, ...] = ()
    reason: str = ""


class _Task(NamedTuple):
    """A photo to align; its source is relative to the input folder, its crops to the output folder."""

    photo: Path
    source: str
    name: Path  # of the crop
    old_crops: frozenset[str]


def align_folder(
    photos: Sequence[Path],
    source: Path,
    output: Path,
    options: AlignOptions | None = None,
    report: Path | None = None,
) -> Iterator[Result]:
    """Cut the faces out of photos as PNG files, and record each in `output`/faces.jsonl.

    A record has the paths of the crop and of its source relative to the two folders, the SHA-256 of the source, the
    number of the face (0 is the largest), the settings, the 2x3 matrix from photo to crop, and the landmarks in the
    photo's pixels. It is written before its crop, so that every crop has one; the file is cleaned up at the
    start and at the end of a run.

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
    outputs = {folder: [folder / name for name in (Path(RECORDS), *names.values())] for folder in folders}
    check_outputs(filter(None, [report]), inputs)
    for folder in folders:
        check_outputs(outputs[folder], inputs, folder)
    if options.missing and os.path.realpath(options.missing) == os.path.realpath(output):
        raise PhotoError(f"the folder for photos without a face is the output folder {output}; choose another folder")
    if report:
        prepare_report(report, {field.name for field in fields(Result)}, chain(*outputs.values()), options.overwrite)
    with ExitStack() as locks:
        for folder in folders:
            prepare_folder(folder)
            locks.enter_context(lock_folder(folder))
            remove_leftovers({file.parent for file in outputs[folder]})
        yield from _align_locked(photos, root, output, names, options)


def _align_locked(
    photos: Sequence[Path], root: Path, output: Path, names: dict[Path, Path], options: AlignOptions
) -> Iterator[Result]:
    records = _tidy_records(output)
    for name in ("template", "size", "faces", "upsample"):
        wanted = getattr(options, name)
        others = {record.get(name, wanted) for record in records.values()} - {wanted}
        if others and not options.overwrite:
            raise PhotoError(
                f"{output} contains crops made with {name} {others.pop()}, not {wanted}; choose another folder, or "
                "overwrite them"
            )

    done, old_crops = {}, defaultdict(set)
    for crop, record in records.items():
        old_crops[record["source"]].add(crop)
        if record["face"] == 0:  # written last: the photo's other crops exist too
            done[record["source"]] = record
    tasks = []
    for photo in photos:
        source = photo.relative_to(root).as_posix()
        if source in done and not options.overwrite:
            yield _existing(photo, done[source])
        else:
            tasks.append(_Task(photo, source, names[photo], frozenset(old_crops[source])))
    start = partial(partial, _align_photo, output=output, options=options)
    try:
        yield from parallel_map(start, tasks, options.jobs, options.backend)
    finally:
        _tidy_records(output)


def _existing(photo: Path, record: dict[str, Any]) -> Result:
    """Return the result of a photo with a crop: skipped, or failed if the crop is of another photo of that name."""
    try:
        if digest(photo) == record.get("sha256"):
            return Result(photo, "skipped", reason="its crop exists")
    except PhotoError as error:
        return Result(photo, "failed", reason=str(error))
    reason = f"the crop {record['crop']} is from another photo of that name; choose another folder, or overwrite it"
    return Result(photo, "failed", reason=reason)


def read_records(output: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a folder by the crop's name; later lines replace earlier ones, invalid ones are ignored."""
    records = {}
    for record in read_lines(output / RECORDS):
        try:
            inside = PurePosixPath(record["crop"])
            keys = {record[name] for name in ("source", "face", "template", "size")}
            keys |= {record.get("faces"), record.get("upsample")}  # hashable too
        except (TypeError, KeyError):
            continue
        if keys and not inside.is_absolute() and ".." not in inside.parts:
            records[record["crop"]] = record
    return records


def _align_photo(task: _Task, output: Path, options: AlignOptions) -> Result:
    try:
        photo = read_photo(task.photo)
        faces = align_faces(photo, options.size, options.template, options.upsample)
        if not faces:
            if options.missing and (options.overwrite or not (options.missing / task.name).exists()):
                unchanged = np.zeros(photo.pixels.shape[:2], dtype=bool)
                write_photo(options.missing / task.name, photo.pixels, photo, unchanged)
            return Result(task.photo, "no face", reason="no face found; upsample more to find smaller faces")
        if options.faces == "single" and len(faces) > 1:
            return Result(task.photo, "several faces", reason=f"{len(faces)} faces found, expected one")
        crops = []
        for number, face in enumerate(faces if options.faces == "all" else faces[:1]):
            name = task.name.with_name(f"{task.name.stem}_{number}.png") if number else task.name
            record = {
                "crop": name.as_posix(),
                "source": task.source,
                "sha256": photo.sha256,
                "face": number,
                "template": options.template,
                "size": options.size,
                "faces": options.faces,
                "upsample": options.upsample,
                "matrix": face.alignment.matrix.tolist(),
                "landmarks": face.landmarks.tolist(),
            }
            crops.append((output / name, face.pixels, record))
        for path, pixels, record in reversed(crops):
            if os.path.lexists(path) and not options.overwrite:
                # Read the records again: this photo's first worker may have been killed after it wrote the crop.
                old = read_records(output).get(record["crop"], {})
                if (old.get("source"), old.get("sha256")) != (task.source, photo.sha256):
                    raise PhotoError(f"{path} exists and is not a crop of this photo; move it or overwrite it")
            _write_crop(path, pixels, output / RECORDS, record)
        for stale in task.old_crops - {record["crop"] for _, _, record in crops}:
            (output / stale).unlink(missing_ok=True)
        return Result(task.photo, "aligned", tuple(path for path, _, _ in crops))
    except LandmarkModelError:
        raise
    except PhotoError as error:
        return Result(task.photo, "failed", reason=str(error))
    except Exception as error:  # one photo must not stop the others
        return Result(task.photo, "failed", reason=f"{type(error).__name__}: {error}")


def _write_crop(path: Path, pixels: NDArray[np.uint8], records: Path, record: dict[str, Any]) -> None:
    """Write a crop and its record: both or, if the disk is full or a signal arrives, neither."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, "PNG")
        append_line(records, record)


def _tidy_records(output: Path) -> dict[str, dict[str, Any]]:
    """Rewrite faces.jsonl: sorted, one record for each crop that exists. Return the records."""
    records = {crop: record for crop, record in sorted(read_records(output).items()) if os.path.isfile(output / crop)}
    write_text(output / RECORDS, "".join(json.dumps(record) + "\n" for record in records.values()))
    return records
