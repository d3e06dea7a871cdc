"""Align every photo of a folder: many workers, one record for every crop."""

import fcntl
import json
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.config import AlignOptions
from align.errors import LandmarkModelError, PhotoError
from align.files import atomic_write, output_names, prepare_folder, write_text
from align.landmarks import find_faces
from align.photo import read_photo, write_photo
from align.template import TEMPLATES
from align.warp import fit
from align.workers import spread

RECORDS = "faces.jsonl"


@dataclass(frozen=True)
class Result:
    """What became of one photo.

    Attributes:
        photo: the file.
        status: "skipped" for a photo whose crop exists, "several faces" where only photos with one were wanted.
        crops: the files written, the largest face first.
        reason: why there is no crop, for people.
    """

    photo: Path
    status: Literal["aligned", "skipped", "no face", "several faces", "failed"]
    crops: tuple[Path, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class _Task:
    """One photo's work; `name` is where its crop goes below the output folder, `mine` the crops that it has there."""

    photo: Path
    source: str
    name: Path
    mine: frozenset[str]


def align_folder(
    photos: Sequence[Path], root: Path, output: Path, options: AlignOptions | None = None
) -> Iterator[Result]:
    """Cut the faces out of photos, one PNG each, and record each in `output`/faces.jsonl.

    A record holds the crop and its source relative to the two folders, the source's sha256, the face's number (0 is
    the photo's largest), the template and size, the 2x3 matrix photo -> crop, and the landmarks in the photo's pixels.
    It is written before its crop, so that no crop is ever without one; the file is tidied at the start and the end.

    Args:
        photos: distinct files below `root`.
        root: the input folder, whose sub-folders are kept.
        output: the folder for the crops.
        options: the defaults if None.
    Yields:
        one result per photo, those that are skipped first.
    Raises:
        PhotoError: a folder cannot be used, or holds crops of another template or size.
        LandmarkModelError: dlib or its landmark file is absent or broken.
        WorkerError, EngineError: see align.workers.
    """
    options = options or AlignOptions()
    names = output_names(photos, root, numbered=options.faces == "all")
    prepare_folder(output, root)
    _refuse_overlap(root, output, names)
    if options.missing:
        prepare_folder(options.missing, root, output)
        _refuse_overlap(root, options.missing, names)
    records = _tidy_records(output)
    kinds = {(record["template"], record["size"]) for record in records.values()}
    if not options.overwrite and not kinds <= {(options.template, options.size)}:
        raise PhotoError(f"{output} holds crops of another template or size; choose another folder, or overwrite them")

    done, mine = set(), defaultdict(set)
    for crop, record in records.items():
        mine[record["source"]].add(crop)
        if record["face"] == 0:  # is written last, so the others are there too
            done.add(record["source"])
    tasks = []
    for photo in photos:
        source = photo.relative_to(root).as_posix()
        if source in done and not options.overwrite:
            yield Result(photo, "skipped", reason="has its crop already")
        else:
            tasks.append(_Task(photo, source, names[photo], frozenset(mine[source])))
    try:
        yield from spread(partial(_aligner, output, options), tasks, options.jobs, options.engine)
    finally:
        _tidy_records(output)


def read_records(output: Path) -> dict[str, dict[str, Any]]:
    """The records of a folder of crops by the crop's name; the last one counts, and broken lines do not."""
    records = {}
    path = output / RECORDS
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            inside = PurePosixPath(record["crop"])
            known = {record["source"], record["face"], record["template"], record["size"]}
        except (ValueError, TypeError, KeyError):
            continue
        if known and not inside.is_absolute() and ".." not in inside.parts:
            records[record["crop"]] = record
    return records


def _aligner(output: Path, options: AlignOptions) -> Callable[[_Task], Result]:
    return partial(_align_photo, output=output, options=options)


def _align_photo(task: _Task, output: Path, options: AlignOptions) -> Result:
    try:
        photo = read_photo(task.photo)
        template = TEMPLATES[options.template]
        faces = find_faces(photo.pixels, template.points, options.upsample)
        if not faces:
            if options.missing and (options.overwrite or not (options.missing / task.name).exists()):
                nothing = np.zeros(photo.pixels.shape[:2], dtype=bool)
                write_photo(options.missing / task.name, photo.pixels, photo, nothing)
            return Result(task.photo, "no face", reason="no face found; more upsampling finds smaller ones")
        if options.faces == "single" and len(faces) > 1:
            return Result(task.photo, "several faces", reason=f"{len(faces)} faces found, one wanted")
        crops = []
        for number, landmarks in enumerate(faces if options.faces == "all" else faces[:1]):
            name = task.name.with_name(f"{task.name.stem}_{number}.png") if number else task.name
            alignment = fit(template, landmarks, options.size)
            record = {
                "crop": name.as_posix(),
                "source": task.source,
                "sha256": photo.sha256,
                "face": number,
                "template": template.name,
                "size": options.size,
                "matrix": alignment.matrix.tolist(),
                "landmarks": landmarks.tolist(),
            }
            crops.append((output / name, alignment.warp(photo.pixels), record))
        for path, pixels, record in reversed(crops):
            # Its record is looked up now, since a worker that was killed may have made the crop a moment ago.
            if (
                path.exists()
                and not options.overwrite
                and read_records(output).get(record["crop"], {}).get("source") != task.source
            ):
                raise PhotoError(f"{path} exists and is not this photo's crop; move it, or overwrite it")
            _write_crop(path, pixels, output / RECORDS, record)
        for stale in task.mine - {record["crop"] for _, _, record in crops}:
            (output / stale).unlink(missing_ok=True)
        return Result(task.photo, "aligned", tuple(path for path, _, _ in crops))
    except LandmarkModelError:
        raise
    except PhotoError as error:
        return Result(task.photo, "failed", reason=str(error))
    except Exception as error:  # one photo never ends the batch
        return Result(task.photo, "failed", reason=f"{type(error).__name__}: {error}")


def _write_crop(path: Path, pixels: NDArray[np.uint8], records: Path, record: dict[str, Any]) -> None:
    """Write a crop and its record: both or, with a full disk or a signal in between, neither."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _signals_later(), atomic_write(path) as file:
        Image.fromarray(pixels).save(file, "PNG")
        with records.open("ab") as lines:
            fcntl.lockf(lines, fcntl.LOCK_EX)  # without it two machines may append at the same place
            lines.write(json.dumps(record).encode() + b"\n")


def _refuse_overlap(root: Path, output: Path, names: dict[Path, Path]) -> None:
    """No output may land among the photos, which can happen where the output folder holds the input folder."""
    here, there = root.resolve(), output.resolve()
    if here.is_relative_to(there) and any((there / name).is_relative_to(here) for name in names.values()):
        raise PhotoError(f"output would land in {output} among the photos in {root}; choose another folder")


def _tidy_records(output: Path) -> dict[str, dict[str, Any]]:
    """Write faces.jsonl anew: sorted, one record per crop, none without its crop."""
    records = {crop: record for crop, record in sorted(read_records(output).items()) if (output / crop).is_file()}
    write_text(output / RECORDS, "".join(json.dumps(record) + "\n" for record in records.values()))
    return records


@contextmanager
def _signals_later() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block has ended.

    Not by a mask, which is one thread's own: the process would die of a signal that another thread takes.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal raises anything
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for last in came:
            signal.raise_signal(last)
