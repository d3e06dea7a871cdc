"""Complete many photos: one result per photo, whatever is wrong with any of them."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from align import locate
from align.config import cores
from align.errors import NoFaceError, PhotoError
from align.files import list_photos, output_names, prepare_folder, write_text
from align.photo import WRITABLE, Photo, read_photo, write_photo
from align.warp import Alignment
from align.workers import spread
from completion import holes
from completion.complete import Completion, FaceCompleter, SearchStep
from completion.config import HOLES, BatchOptions
from completion.picture import contact_sheet, painted, strip, write_animation
from dcgan.metrics import psnr


@dataclass(frozen=True)
class Result:
    """What became of one photo.

    Attributes:
        photo: the file.
        status: "completed", "failed", or "skipped" for a photo of a folder whose completion exists.
        outputs: the files written, the completed photo first.
        reason: why this run has no completion, for people.
        notes: what a person should know of a completion.
        sources: where the pixels of the hole come from, as shares: "face 1", "face 2" and so on, and "surroundings"
            for what lies outside every face and is filled by a classical method.
        figures: hole_share, faces, outside_share, context_loss, search_seconds, seconds; with `measure` hole_psnr, psnr
            (dB) and ssim.
    """

    photo: Path
    status: str
    outputs: tuple[Path, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    sources: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For a report: plain JSON; figures that are no finite number (equal images) are null."""
        figures = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        outputs = [str(path) for path in self.outputs]
        return asdict(self) | {"photo": str(self.photo), "outputs": outputs, "figures": figures}


@dataclass(frozen=True)
class Filling:
    """A photo whose hole was filled in memory.

    Attributes:
        completion: the pixels.
        notes: what a person should know of them.
        sources: as in Result.
        figures: as in Result, without seconds and the figures of `measure`.
    """

    completion: Completion
    notes: tuple[str, ...]
    sources: dict[str, float]
    figures: dict[str, float]


def plan_outputs(inputs: Sequence[Path], output: Path) -> tuple[Path, dict[Path, Path]]:
    """Which photos there are, and where each completion goes; checks the output folder before any work.

    Args:
        inputs: photos and folders.
        output: a folder; or, for a single photo, a file by its suffix.
    Returns:
        The folder that holds all inputs, and photo -> output.
    Raises:
        PhotoError: an input is absent, there are no photos, or the output cannot be used.
    """
    for path in inputs:
        if not os.path.lexists(path):
            raise PhotoError(f"{path} does not exist; give photos or folders of photos")
    folders = [path for path in inputs if path.is_dir()]
    photos = {path: None for path in inputs if path not in folders}
    for folder in folders:
        photos |= dict.fromkeys(list_photos(folder, skip=[output]))
    if not photos:
        raise PhotoError(f"{', '.join(map(str, inputs))}: no photos there; give photos or folders of photos")
    root = Path(os.path.commonpath([_whole(path) if path in folders else _whole(path).parent for path in inputs]))
    if not folders and len(photos) == 1 and output.suffix and not output.is_dir():
        (photo,) = photos
        if output.suffix.lower() not in WRITABLE:
            raise PhotoError(f"the output {output} has a suffix that is not written: use one of {', '.join(WRITABLE)}")
        if output.exists() and output.samefile(photo):
            raise PhotoError(f"the output {output} is the photo itself; choose another file")
        prepare_folder(output.parent)
        return root, {photo: output}
    prepare_folder(output, *folders, *{path.parent for path in photos if path in inputs})
    names = output_names([_whole(path) for path in photos], root)
    return root, {path: output / names[_whole(path)] for path in photos}


def _whole(path: Path) -> Path:
    """From the root on and without "..", which would lead out of the output folder again."""
    return Path(os.path.abspath(path))


def complete_folder(
    load: Callable[[], FaceCompleter],
    outputs: dict[Path, Path],
    root: Path,
    options: BatchOptions,
    jobs: int = 1,
    engine: str = "processes",
    gpu: bool = False,
) -> Iterator[Result]:
    """Complete many photos; those whose completion exists are skipped, so that a second run does what is missing.

    Args:
        load: makes the completer, once in each worker.
        outputs: photo -> output, see plan_outputs.
        root: the folder that holds all photos.
        options: for each of them.
        jobs: photos at a time.
        engine: where, see align.workers.
        gpu: each worker of Ray's gets a GPU.
    Yields:
        one result per photo; first those for which there is nothing to do.
    Raises:
        WorkerError, EngineError: see align.workers; and what `load` raises.
    """
    taken = set(outputs.values())
    tasks = []
    for photo, output in outputs.items():
        meeting = taken.intersection(_files(output, options)[1:])
        if output.exists() and not options.overwrite:
            yield Result(photo, "skipped", reason="is completed already")
        elif meeting:
            yield Result(photo, "failed", reason=f"{meeting.pop()} is another photo's output; rename one of the photos")
        else:
            tasks.append((photo, output))
    # Files beside a completion that is absent are left from a run that was ended, or from a worker that was killed.
    start = partial(_worker, load, root, replace(options, overwrite=True), jobs)
    yield from spread(start, tasks, jobs, engine, gpu)


def summary(results: Sequence[Result]) -> dict[str, float]:
    """The mean of every figure over the photos that have it; infinite ones (equal images) are left out."""
    names = dict.fromkeys(name for result in results for name in result.figures)
    values = {
        name: [r.figures[name] for r in results if math.isfinite(r.figures.get(name, math.nan))] for name in names
    }
    return {name: fmean(found) for name, found in values.items() if found}


def _worker(
    load: Callable[[], FaceCompleter], root: Path, options: BatchOptions, jobs: int
) -> Callable[[tuple[Path, Path]], Result]:
    if jobs > 1:
        torch.set_num_threads(max(1, cores() // jobs))
    completer = load()

    def complete(task: tuple[Path, Path]) -> Result:
        items = complete_photo(completer, *task, root, options)
        return next(item for item in items if isinstance(item, Result))

    return complete


def complete_photo(
    completer: FaceCompleter, photo: Path, output: Path, root: Path, options: BatchOptions
) -> Iterator[SearchStep | Result]:
    """Complete one photo; yields the steps of the search, then the Result. Never raises for a fault of the photo's."""
    try:
        yield from _complete(completer, photo, output, root, options)
    except (PhotoError, NoFaceError, holes.MaskError) as error:
        yield Result(photo, "failed", reason=str(error))
    except OSError as error:  # of the pictures of --history; write_photo has its own words
        yield Result(photo, "failed", reason=f"cannot be written: {error.strerror or error}")


def name_hole(
    completer: FaceCompleter,
    pixels: NDArray[np.uint8],
    mask: str,
    every: bool = False,
    seed: int = 0,
    faces: Sequence[Alignment] | None = None,
) -> tuple[NDArray[np.bool_], Sequence[Alignment]]:
    """The hole that a mask name means in a photo: bool (H, W), and the faces that it lies on.

    Args:
        completer: finds the faces.
        pixels: uint8 (H, W, 3).
        mask: a name, see completion.holes.named_hole.
        every: use all faces, not only the first.
        seed: for random masks.
        faces: the faces to choose from; None to detect them.
    Raises:
        MaskError: there is no such mask.
        NoFaceError: the photo shows no face.
    """
    faces = faces or completer.locate(pixels, every)
    faces = faces if every else faces[:1]
    return completer.named_hole(pixels, mask, faces, seed), faces


def fill(
    completer: FaceCompleter,
    pixels: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    faces: Sequence[Alignment] | None = None,
    seed: int = 0,
    lowres: bool = False,
    candidates: int = 1,
    seconds: float | None = None,
) -> Iterator[SearchStep | Filling]:
    """Fill a hole in memory and describe the result; arguments and errors as in FaceCompleter.complete.

    Yields:
        each SearchStep, then the Filling.
    """
    began = time.monotonic()
    pure, search_seconds = False, 0.0  # a generation, of a face of which nothing is visible
    for item in completer.complete(pixels, hole, faces, seed, lowres, candidates, seconds):
        if isinstance(item, Completion):
            completion = item
        else:
            yield item
            search_seconds = time.monotonic() - began
            pure |= bool(item.hole.all()) and not lowres
    notes = []
    if pure:
        notes.append("nothing of the face is known: the result is a pure generation")
    if completion.stopped:
        notes.append(f"the search was stopped after {seconds:g} s: this is the best it had found")
    if completion.hidden:
        show = "a face shows" if completion.hidden == 1 else f"{completion.hidden} faces show"
        notes.append(f"{show} only under the hole; from there the place was taken, and no colour")
    sources = {name: float(source.sum() / hole.sum()) for name, source in completion.sources.items()}
    outside = sources.get("surroundings", 0.0)
    if outside:
        notes.append(f"{outside:.0%} of the hole lie outside every face and are filled from their surroundings")
    figures = {
        "hole_share": float(hole.mean()),
        "faces": len(sources) - ("surroundings" in sources),
        "outside_share": outside,
        "context_loss": completion.context,
        "search_seconds": search_seconds,
    }
    yield Filling(completion, tuple(notes), sources, figures)


def write_completions(output: Path, photo: Photo, hole: NDArray[np.bool_], completion: Completion) -> list[Path]:
    """Write a completion, its further candidates, and a contact sheet if there are any; `output` last.

    Args:
        output: file for the best completion; the others are named after it.
        photo: lends its mode, metadata and the pixels outside the hole.
        hole: bool (H, W).
        completion: of `photo`.
    Returns:
        the completions, the best first, without the sheet.
    Raises:
        PhotoError: a file cannot be written.
    """
    completions = [output, *_candidate_files(output, 1 + len(completion.others))]
    for path, other in zip(completions[1:], completion.others, strict=True):
        write_photo(path, other, photo, hole)
    if completion.others:
        sheet = contact_sheet(painted(photo.pixels, hole), hole, [completion.pixels, *completion.others])
        write_photo(output.with_suffix(".candidates.png"), sheet)
    write_photo(output, completion.pixels, photo, hole)  # last: where it is, everything is
    return completions


def _complete(
    completer: FaceCompleter, path: Path, output: Path, root: Path, options: BatchOptions
) -> Iterator[SearchStep | Result]:
    began = time.monotonic()
    outputs = _files(output, options)
    existing = [str(item) for item in outputs if item.exists()]
    if existing and not options.overwrite:
        raise PhotoError(f"the output {existing[0]} exists; overwrite it or choose another output")
    photo = read_photo(path)
    named = holes.split_name(options.mask) is not None
    faces: Sequence[Alignment] | None = _given_faces(completer, photo, path, root, options)
    note = None
    if named and options.invert_mask:
        raise holes.MaskError(f"the mask {options.mask} is a name, and only files and alpha can be inverted")
    if named:
        every = options.faces == "all"
        hole, faces = name_hole(completer, photo.pixels, options.mask, every, options.seed, faces)
    else:
        hole, note = _given_hole(photo, path, root, options)
    progress: list[SearchStep] = []
    lowres = options.mask == "lowres"
    for item in fill(completer, photo.pixels, hole, faces, options.seed, lowres, options.candidates, options.seconds):
        if isinstance(item, Filling):
            filling = item
        else:
            progress += [item] if options.history else []
            yield item
    if options.strip:
        write_photo(output.with_suffix(".strip.png"), strip(photo.pixels, hole, filling.completion.pixels))
    if options.history:
        _write_history(output, progress)
    write_completions(output, photo, hole, filling.completion)
    figures = filling.figures | {"seconds": time.monotonic() - began}
    if options.measure and named:
        figures |= _measure(photo.pixels, filling.completion.pixels, hole)
    notes = (note, *filling.notes) if note else filling.notes
    yield Result(path, "completed", tuple(outputs), notes=notes, sources=filling.sources, figures=figures)


def _files(output: Path, options: BatchOptions) -> list[Path]:
    """What is written for one photo, the completion first."""
    files = [output, *_candidate_files(output, options.candidates)]
    files += [output.with_suffix(".candidates.png")] if options.candidates > 1 else []
    files += [output.with_suffix(".strip.png")] if options.strip else []
    files += [output.with_suffix(".history.gif"), output.with_suffix(".history.jsonl")] if options.history else []
    return files


def _candidate_files(output: Path, candidates: int) -> list[Path]:
    """Files of the candidates after the first."""
    return [output.with_suffix(f".{number}{output.suffix}") for number in range(2, candidates + 1)]


def _given_faces(
    completer: FaceCompleter, photo: Photo, path: Path, root: Path, options: BatchOptions
) -> list[Alignment] | None:
    """The faces that the person says there are; None where they are to be looked for."""
    where = photo.pixels.shape[:2], completer.template, completer.size
    if options.eyes:
        return [locate.align_by_eyes(options.eyes, *where)]
    if options.box:
        return [locate.align_by_box(options.box, *where)]
    if options.landmarks:
        source = _whole(path).relative_to(root)
        return locate.align_by_landmarks(options.landmarks, source, completer.template, completer.size)
    return None


def _given_hole(photo: Photo, path: Path, root: Path, options: BatchOptions) -> tuple[NDArray[np.bool_], str | None]:
    if options.mask == "alpha":
        return holes.alpha_hole(photo, options.invert_mask), None
    mask = Path(options.mask)
    if mask.is_dir():
        mask = holes.find_mask_file(mask, _whole(path).relative_to(root))
    height, width = photo.pixels.shape[:2]
    try:
        return holes.read_hole(mask, (height, width), options.invert_mask)
    except PhotoError as error:
        names = ", ".join(HOLES)
        raise holes.MaskError(f"the mask {mask}: {error}; or give a name: {names}, alpha") from error


def _write_history(output: Path, progress: Sequence[SearchStep]) -> None:
    frames = [item.preview for item in progress]
    write_animation(output.with_suffix(".history.gif"), [painted(progress[0].crop, progress[0].hole), *frames])
    lines = []
    for item in progress:
        step = item.step
        losses = {"context": step.context[0].tolist(), "prior": step.prior[0].tolist()}
        line = {"face": item.face, "step": step.number, "best": int(step.best[0]), **losses}
        lines.append(json.dumps(line) + "\n")
    write_text(output.with_suffix(".history.jsonl"), "".join(lines))


def _measure(real: NDArray[np.uint8], completed: NDArray[np.uint8], hole: NDArray[np.bool_]) -> dict[str, float]:
    from skimage.metrics import structural_similarity

    figures = {"hole_psnr": psnr(real, completed, hole), "psnr": psnr(real, completed)}
    if min(real.shape[:2]) >= 7:  # the window of SSIM
        figures["ssim"] = float(structural_similarity(real, completed, channel_axis=2, data_range=255))
    return figures
