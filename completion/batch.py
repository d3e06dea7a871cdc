"""Complete photos in files: one result per photo, even for photos that fail."""

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
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
from align.files import (
    check_outputs,
    check_target,
    list_photos,
    lock_folder,
    output_names,
    prepare_folder,
    prepare_report,
    remove_leftovers,
    write_text,
)
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
    """Result of completing one photo.

    Attributes:
        photo: the photo's path.
        status: "completed", "failed", or "skipped" if the output already exists.
        outputs: the files written, the completed photo first.
        reason: why the photo failed or was skipped.
        notes: remarks on the completion, as sentences without a full stop.
        sources: origin of the hole's pixels -> share of the hole: "face 1", "face 2" and so on for generated faces;
            "surroundings" for areas filled by a classical method.
        figures: hole_share, faces, outside_share, context_loss, search_seconds, seconds; with `measure` also hole_psnr
            and psnr (dB) and ssim.
    """

    photo: Path
    status: str
    outputs: tuple[Path, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    sources: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the result as plain JSON; infinite figures (of identical images) become null."""
        figures = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        outputs = [str(path) for path in self.outputs]
        return asdict(self) | {"photo": str(self.photo), "outputs": outputs, "figures": figures}


@dataclass(frozen=True)
class Filling:
    """Result of filling a hole in memory.

    Attributes:
        completion: the completed photo.
        notes: as in Result.
        sources: as in Result.
        figures: as in Result, without seconds and the figures of `measure`.
    """

    completion: Completion
    notes: tuple[str, ...]
    sources: dict[str, float]
    figures: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What to complete, and where to.

    Attributes:
        root: common parent folder of the photos.
        outputs: photo -> file of its completion.
        folder: folder of all outputs; None if the output is a single file.
    """

    root: Path
    outputs: dict[Path, Path]
    folder: Path | None


def plan_outputs(inputs: Sequence[Path], output: Path, options: BatchOptions, report: Path | None = None) -> Plan:
    """List the photos and the output file of each, and check before any work that all files can be written.

    Args:
        inputs: photos and folders of photos.
        output: a folder; for a single photo also a file, if the path has a suffix.
        options: options for every photo; they name further inputs and outputs.
        report: a JSON file that the caller will write.
    Raises:
        PhotoError: an input does not exist, there are no photos, an output is or replaces an input, or an output cannot
            be written.
    """
    for path in inputs:
        if not os.path.lexists(path):
            raise PhotoError(f"{path} does not exist; give photos or folders of photos")
    folders = [path for path in inputs if path.is_dir()]
    listed = [photo for folder in folders for photo in list_photos(folder)]
    photos = dict.fromkeys([*(path for path in inputs if path not in folders), *listed])
    if not photos:
        raise PhotoError(f"found no photos in {', '.join(map(str, inputs))}; give photos or folders of photos")
    root = Path(os.path.commonpath([_whole(path) if path in folders else _whole(path).parent for path in inputs]))
    if not folders and len(photos) == 1 and output.suffix and not output.is_dir():
        if output.suffix.lower() not in WRITABLE:
            raise PhotoError(f"the output {output} has an unsupported suffix; use one of {', '.join(WRITABLE)}")
        plan = Plan(root, dict.fromkeys(photos, output), None)
    else:
        names = output_names([_whole(path) for path in photos], root)
        plan = Plan(root, {path: output / names[_whole(path)] for path in photos}, output)
    others = filter(None, [_mask_path(options), options.landmarks])
    read = [*folders, *photos, *others, *{photo.parent for photo in listed}]  # a photo's folder may be a link
    written = [file for main in plan.outputs.values() for file in _files(main, options)]
    check_outputs([*filter(None, [report]), *written], read, plan.folder)
    prepare_folder(plan.folder or output.parent)
    if report:
        prepare_report(report, ("settings", "summary", "photos"), written, options.overwrite)
    return plan


def _mask_path(options: BatchOptions) -> Path | None:
    """Return the mask's file or folder, or None for a mask that is a name."""
    return None if options.mask == "alpha" or holes.split_names(options.mask) else Path(options.mask)


def _whole(path: Path) -> Path:
    """Make a path absolute and resolve "..", so that outputs stay inside the output folder."""
    return Path(os.path.abspath(path))


def complete_folder(
    load: Callable[[], FaceCompleter],
    plan: Plan,
    options: BatchOptions,
    jobs: int = 1,
    engine: str = "processes",
    gpu: bool = False,
) -> Iterator[Result]:
    """Complete many photos; existing outputs are skipped, so an interrupted run can be repeated to resume it.

    Args:
        load: creates the completer, called once per worker.
        plan: the photos and their outputs; their folder is locked during the run.
        options: options for every photo, those of the plan.
        jobs: number of workers.
        engine: where the workers run, see align.workers.
        gpu: reserve a GPU for each worker of Ray.
    Yields:
        one Result per photo, those without any work first.
    Raises:
        PhotoError: another run is writing to the folder.
        WorkerError, EngineError: see align.workers; also the errors of `load`.
    """
    with nullcontext() if plan.folder is None else lock_folder(plan.folder):
        remove_leftovers({output.parent for output in plan.outputs.values()})
        taken = set(plan.outputs.values())
        tasks = []
        for photo, output in plan.outputs.items():
            if done := _without_work(photo, output, taken, options):
                yield done
            else:
                tasks.append((photo, output))
        # Other files without the completion itself are left over from an interrupted run.
        start = partial(_worker, load, plan.root, replace(options, overwrite=True), jobs)
        yield from spread(start, tasks, jobs, engine, gpu)


def _without_work(photo: Path, output: Path, taken: Collection[Path], options: BatchOptions) -> Result | None:
    """Return the result of a photo that is completed already, or whose files cannot be written."""
    files = _files(output, options)
    try:
        for file in files:
            check_target(file)
    except PhotoError as error:
        return Result(photo, "failed", reason=str(error))
    if meeting := [file for file in files[1:] if file in taken]:
        return Result(photo, "failed", reason=f"{meeting[0]} is the output of another photo; rename one")
    if output.exists() and not options.overwrite:
        return Result(photo, "skipped", reason="already completed")
    return None


def summary(results: Sequence[Result]) -> dict[str, float]:
    """Average each figure over the photos that have it, ignoring infinite values (of identical images)."""
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
    """Complete one photo: yield the SearchSteps, then the Result. An unusable photo gives a failed Result."""
    try:
        yield from _complete(completer, photo, output, root, options)
    except (PhotoError, NoFaceError, holes.MaskError) as error:
        yield Result(photo, "failed", reason=str(error))
    except OSError as error:  # from write_animation; write_photo raises PhotoError
        yield Result(photo, "failed", reason=f"cannot be written: {error.strerror or error}")


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
    """Fill a hole in memory and describe the result; arguments and errors as in FaceCompleter.steps.

    Yields:
        the SearchSteps, then the Filling.
    """
    began = time.monotonic()
    pure, search_seconds = False, 0.0  # pure: some face has no visible pixel
    settings: dict[str, Any] = {"candidates": candidates, "seed": seed, "seconds": seconds, "lowres": lowres}
    for item in completer.steps(pixels, hole, faces=faces, **settings):
        if isinstance(item, Completion):
            completion = item
        else:
            yield item
            search_seconds = time.monotonic() - began
            pure |= bool(item.hole.all()) and not lowres
    notes = []
    if pure:
        notes.append("a face has no visible pixels and was generated at random")
    if completion.stopped:
        notes.append(f"the search was stopped after {seconds:.3g} s; the best result so far was used")
    if completion.hidden:
        one = completion.hidden == 1
        found, its = (
            ("a face was", "its position was") if one else (f"{completion.hidden} faces were", "their positions were")
        )
        notes.append(f"{found} found only in the original photo; {its} used, not the colours")
    sources = {name: float(source.sum() / hole.sum()) for name, source in completion.sources.items()}
    outside = sources.get("surroundings", 0.0)
    if outside:
        notes.append(f"{outside:.0%} of the hole was filled from the surroundings instead of a generated face")
    figures = {
        "hole_share": float(hole.mean()),
        "faces": len(sources) - ("surroundings" in sources),
        "outside_share": outside,
        "context_loss": completion.context,
        "search_seconds": search_seconds,
    }
    yield Filling(completion, tuple(notes), sources, figures)


def write_completions(output: Path, photo: Photo, hole: NDArray[np.bool_], completion: Completion) -> list[Path]:
    """Write a completion, and its other candidates with a contact sheet if there are any.

    Args:
        output: file for the best completion, written last; the names of the others derive from it.
        photo: the original photo; provides the mode, the metadata and the pixels outside the hole.
        hole: bool (H, W).
        completion: completion of `photo`.
    Returns:
        The files of the completions, the best first, without the contact sheet.
    Raises:
        PhotoError: a file cannot be written.
    """
    completions = [output, *_candidate_files(output, len(completion.candidates))]
    for path, other in zip(completions[1:], completion.candidates[1:], strict=True):
        write_photo(path, other, photo, hole)
    if len(completions) > 1:
        sheet = contact_sheet(painted(photo.pixels, hole), hole, completion.candidates)
        write_photo(output.with_suffix(".candidates.png"), sheet)
    write_photo(output, completion.pixels, photo, hole)  # last: its existence marks the photo as done
    return completions


def _complete(
    completer: FaceCompleter, path: Path, output: Path, root: Path, options: BatchOptions
) -> Iterator[SearchStep | Result]:
    began = time.monotonic()
    outputs = _files(output, options)
    for file in outputs:
        check_target(file)
    existing = [str(item) for item in outputs if item.exists()]
    if existing and not options.overwrite:
        raise PhotoError(f"the output {existing[0]} exists; overwrite it or choose another output")
    photo = read_photo(path)
    named = holes.split_names(options.mask) is not None
    faces: Sequence[Alignment] | None = _given_faces(completer, photo, path, root, options)
    note = None
    if named and options.invert_mask:
        raise holes.MaskError(f"the mask {options.mask} is a name; only mask files and alpha can be inverted")
    if named:
        every = options.faces == "all"
        hole, faces = completer.place(photo.pixels, options.mask, faces, every, options.seed)
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
    """All output files of one photo, the completion first."""
    files = [output, *_candidate_files(output, options.candidates)]
    files += [output.with_suffix(".candidates.png")] if options.candidates > 1 else []
    files += [output.with_suffix(".strip.png")] if options.strip else []
    files += [output.with_suffix(".history.gif"), output.with_suffix(".history.jsonl")] if options.history else []
    return files


def _candidate_files(output: Path, candidates: int) -> list[Path]:
    """Output files of the candidates after the first."""
    return [output.with_suffix(f".{number}{output.suffix}") for number in range(2, candidates + 1)]


def _given_faces(
    completer: FaceCompleter, photo: Photo, path: Path, root: Path, options: BatchOptions
) -> list[Alignment] | None:
    """Faces from the options eyes, box or landmarks; None if they have to be detected."""
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
        raise holes.MaskError(f"the mask {mask}: {error}; give another file, or one of {names}, alpha") from error


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
