"""Complete photos in files: one result per photo, even for photos that fail."""

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align import locate
from align.config import cores
from align.errors import InputError, LandmarkModelError, MaskError, NoFaceError, PhotoError
from align.files import check_target, lock_folder, remove_leftovers, write_text
from align.parallel import parallel_map
from align.photo import Photo, digest, read_photo, write_photo
from align.warp import Alignment
from completion import masks
from completion.complete import Completion, FaceCompleter, SearchStep
from completion.config import NoFace
from completion.picture import contact_sheet, painted, strip, write_animation
from completion.plan import Plan, candidate_files
from completion.records import Records, begin, finish
from dcgan import holes
from dcgan.holes import HOLES
from dcgan.metrics import psnr
from dcgan.weights import WeightsError

_SSIM_PX = 4_000_000  # largest photo to measure SSIM on; it needs 300 bytes per pixel
_SMALLEST_PX, _LARGEST = 4, 4  # limits on the side of a given face: in pixels, and relative to the photo


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
            and psnr (dB), and ssim if scikit-image is installed.
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


def complete_folder(
    load: Callable[[], FaceCompleter], plan: Plan, jobs: int = 1, backend: str = "processes", gpu: bool = False
) -> Iterator[Result]:
    """Complete many photos. Results of the same request are skipped, so that an interrupted run can be resumed.

    Args:
        load: creates the completer, called once per worker.
        plan: the photos and their outputs; their folder is locked during the run.
        jobs: number of workers.
        backend: where the workers run, see align.parallel.
        gpu: reserve a GPU for each worker of Ray.
    Yields:
        one Result per photo, those without any work first.
    Raises:
        PhotoError: another run is writing to the folder.
        WorkerError, BackendError: see align.parallel; also the errors of `load`.
    """
    assert plan.folder is not None
    with lock_folder(plan.folder):
        remove_leftovers({output.parent for output in plan.outputs.values()})
        records, taken = Records(plan.folder), set(plan.outputs.values())
        tasks = []
        for photo in plan.outputs:
            if done := _without_work(plan, photo, records, taken):
                yield done
            else:
                tasks.append(photo)
        # Existing files belong to earlier requests or an interrupted run.
        start = partial(_worker, load, replace(plan, options=replace(plan.options, overwrite=True)), jobs)
        yield from parallel_map(start, tasks, jobs, backend, gpu)


def _without_work(plan: Plan, photo: Path, records: Records, taken: Collection[Path]) -> Result | None:
    """Return the result of a photo that is completed already, or whose files cannot be written; else None."""
    output, files = plan.outputs[photo], plan.files(photo)
    try:
        for file in files:
            check_target(file)
        if meeting := [file for file in files[1:] if file in taken]:
            return Result(photo, "failed", reason=f"{meeting[0]} is the output of another photo; rename one")
        if plan.options.overwrite:
            return None
        made = records.request(output) if output.exists() else None
        if made is not None:
            request = plan.request(photo, digest(photo))
            if made["photo"] != request["photo"]:
                reason = f"{output} was made from another photo; choose another output folder, or overwrite it"
                return Result(photo, "failed", reason=reason)
            if made == request and records.has(output, files):
                return Result(photo, "skipped", reason="already completed")
        for file in files:
            if file.exists() and not records.owns(file):
                reason = f"{file} was not made by this program, or was changed since; move it, or overwrite it"
                return Result(photo, "failed", reason=reason)
        return None
    except (InputError, OSError) as error:
        return Result(photo, "failed", reason=str(error))


def summary(results: Sequence[Result]) -> dict[str, float]:
    """Average each figure over the photos that have it, ignoring infinite values (of identical images)."""
    names = dict.fromkeys(name for result in results for name in result.figures)
    values = {
        name: [r.figures[name] for r in results if math.isfinite(r.figures.get(name, math.nan))] for name in names
    }
    return {name: fmean(found) for name, found in values.items() if found}


def _worker(load: Callable[[], FaceCompleter], plan: Plan, jobs: int) -> Callable[[Path], Result]:
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))  # torch reads it when it is imported
    completer = load()

    def complete(photo: Path) -> Result:
        return next(item for item in complete_photo(completer, plan, photo) if isinstance(item, Result))

    return complete


def complete_photo(completer: FaceCompleter, plan: Plan, photo: Path) -> Iterator[SearchStep | Result]:
    """Complete one photo of a plan: yield the SearchSteps, then the Result.

    Whatever goes wrong with the photo gives a failed Result.

    Raises:
        LandmarkModelError, WeightsError, ModuleNotFoundError: no photo can be completed.
    """
    try:
        yield from _complete(completer, plan, photo)
    except (LandmarkModelError, WeightsError, ModuleNotFoundError):
        raise
    except InputError as error:
        yield Result(photo, "failed", reason=str(error))
    except OSError as error:  # of files that are not photos; write_photo raises PhotoError
        yield Result(photo, "failed", reason=f"cannot be written: {error.strerror or error}")
    except MemoryError:
        yield Result(photo, "failed", reason="there is not enough memory; reduce the photo or run fewer jobs")
    except Exception as error:  # one photo must not stop the others
        message = str(error).partition("\n")[0]
        yield Result(photo, "failed", reason=f"unexpected {type(error).__name__}: {message}; please report it")


def fill(
    completer: FaceCompleter,
    pixels: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    faces: Sequence[Alignment] | None = None,
    seed: int = 0,
    lowres: bool = False,
    candidates: int = 1,
    seconds: float | None = None,
    no_face: NoFace = "fail",
) -> Iterator[SearchStep | Filling]:
    """Fill a hole in memory and describe the result; arguments and errors as in FaceCompleter.steps.

    Yields:
        the SearchSteps, then the Filling.
    """
    began = time.monotonic()
    pure, search_seconds = False, 0.0  # pure: some face has no visible pixel
    settings: dict[str, Any] = {"candidates": candidates, "seed": seed, "seconds": seconds}
    for item in completer.steps(pixels, hole, faces=faces, lowres=lowres, no_face=no_face, **settings):
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
    completions = [output, *candidate_files(output, len(completion.candidates))]
    for path, other in zip(completions[1:], completion.candidates[1:], strict=True):
        write_photo(path, other, photo, hole)
    if len(completions) > 1:
        sheet = contact_sheet(painted(photo.pixels, hole), hole, completion.candidates)
        write_photo(output.with_suffix(".candidates.png"), sheet)
    write_photo(output, completion.pixels, photo, hole)  # last: its existence marks the photo as done
    return completions


def _complete(completer: FaceCompleter, plan: Plan, path: Path) -> Iterator[SearchStep | Result]:
    began = time.monotonic()
    options, output, outputs = plan.options, plan.outputs[path], plan.files(path)
    for file in outputs:
        check_target(file)
        if file.exists() and not options.overwrite:
            raise PhotoError(f"the output {file} exists; overwrite it or choose another output")
    photo = read_photo(path)
    names = holes.split_names(options.mask)
    faces: Sequence[Alignment] | None = _given_faces(completer, plan, photo, path)
    note = None
    if names and options.invert_mask:
        raise MaskError(f"the mask {options.mask} is a name; only mask files and alpha can be inverted")
    if names:
        every = options.faces == "all"
        # Every photo has its own half.
        seed = options.seed ^ int(photo.sha256[:15], 16) if ("half", None) in names else options.seed
        hole, faces = completer.place(photo.pixels, options.mask, faces, every, seed)
    else:
        hole, note = _given_hole(plan, photo, path)
    request = plan.request(path, photo.sha256)
    progress: list[SearchStep] = []
    settings = options.seed, options.mask == "lowres", options.candidates, options.seconds, options.no_face or "fail"
    for item in fill(completer, photo.pixels, hole, faces, *settings):
        if isinstance(item, Filling):
            filling = item
        else:
            progress += [item] if options.history else []
            yield item
    if plan.folder:
        begin(plan.folder, output, outputs)
    if options.strip:
        write_photo(output.with_suffix(".strip.png"), strip(photo.pixels, hole, filling.completion.pixels))
    if options.history:
        _write_history(output, progress, painted(photo.pixels, hole))
    write_completions(output, photo, hole, filling.completion)
    if plan.folder:
        finish(plan.folder, output, outputs, request)
    figures = filling.figures | {"seconds": time.monotonic() - began}
    if options.measure and names:
        figures |= _measure(photo.pixels, filling.completion.pixels, hole)
    notes = (note, *filling.notes) if note else filling.notes
    yield Result(path, "completed", tuple(outputs), notes=notes, sources=filling.sources, figures=figures)


def _given_faces(completer: FaceCompleter, plan: Plan, photo: Photo, path: Path) -> list[Alignment] | None:
    """Faces from the options eyes, box or landmarks; None if they have to be detected.

    Raises:
        NoFaceError: a face is absurdly small or large.
    """
    options, shape = plan.options, photo.pixels.shape[:2]
    where = shape, completer.template, completer.size
    if options.eyes:
        faces = [locate.align_by_eyes(options.eyes, *where)]
    elif options.box:
        faces = [locate.align_by_box(options.box, *where)]
    elif plan.landmarks is not None:
        faces = locate.align_by_landmarks(plan.landmarks, plan.source(path), completer.template, completer.size)
    else:
        return None
    for face in faces:
        side_px = face.size / face.scale
        if not _SMALLEST_PX <= side_px <= _LARGEST * max(shape):
            raise NoFaceError(
                f"the given face has a side of {side_px:.3g} px; expected {_SMALLEST_PX} to {_LARGEST * max(shape)} "
                f"in a photo of {shape[1]}x{shape[0]}"
            )
    return faces


def _given_hole(plan: Plan, photo: Photo, path: Path) -> tuple[NDArray[np.bool_], str | None]:
    options, mask = plan.options, plan.mask(path)
    if mask is None:
        return masks.alpha_hole(photo, options.invert_mask), None
    height, width = photo.pixels.shape[:2]
    try:
        return masks.read_hole(mask, (height, width), options.invert_mask)
    except PhotoError as error:
        names = ", ".join(HOLES)
        raise MaskError(f"the mask {mask}: {error}; give another file, or one of {names}, alpha") from error


def _write_history(output: Path, progress: Sequence[SearchStep], empty: NDArray[np.uint8]) -> None:
    """Write the search as an animation and its losses; `empty` is the frame for a hole without a face."""
    frames = [painted(item.crop, item.hole) for item in progress[:1]] + [item.preview for item in progress]
    write_animation(output.with_suffix(".history.gif"), frames or [empty])
    lines = []
    for item in progress:
        step = item.step
        losses = {"context": step.context[0].tolist(), "prior": step.prior[0].tolist()}
        line = {"face": item.face, "step": step.number, "best": int(step.best[0]), **losses}
        lines.append(json.dumps(line) + "\n")
    write_text(output.with_suffix(".history.jsonl"), "".join(lines))


def _measure(real: NDArray[np.uint8], completed: NDArray[np.uint8], hole: NDArray[np.bool_]) -> dict[str, float]:
    figures = {"hole_psnr": psnr(real, completed, hole), "psnr": psnr(real, completed)}
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError:  # it belongs to the extra "train"
        return figures
    if min(real.shape[:2]) >= 7 and hole.size <= _SSIM_PX:  # 7 is the window of SSIM
        figures["ssim"] = float(structural_similarity(real, completed, channel_axis=2, data_range=255))
    return figures
