"""Complete photos in files: one result per photo, even for photos that fail."""

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align import locate
from align.config import cores
from align.errors import InputError, LandmarkModelError, PhotoError
from align.files import check_target, lock_folder, publish, remove_leftovers, staging, write_text
from align.folder import MANIFEST, Crop
from align.manifest import read_records
from align.parallel import parallel_map
from align.photo import digest, read_photo, write_photo
from completion.completer import FaceCompleter
from completion.faces import checked
from completion.manifest import Manifest, fingerprint
from completion.picture import contact_sheet, overlay_mask, strip, write_animation
from completion.plan import Plan, candidate_files, candidates_of
from completion.result import Completion
from completion.step import Step
from dcgan.metrics import psnr
from dcgan.weights import WeightsError
from weights import FINDER, SHA256

_SSIM_PX = 4_000_000  # largest photo to measure SSIM on; it needs 300 bytes per pixel


@dataclass(frozen=True)
class FillResult:
    """Result of completing one photo.

    Attributes:
        photo: the photo's path.
        status: "completed", "failed", or "skipped" if the output already exists.
        outputs: the files written, the completed photo first.
        reason: why the photo failed or was skipped.
        notes: remarks on the completion, as sentences without a full stop.
        sources: origin of the hole's pixels -> share of the hole, see `Completion.shares`.
        figures: those of `Completion.figures`, and seconds; with a report also hole_psnr and psnr (dB) for named masks,
            and ssim if scikit-image is installed.
        details: for each detailed face, the source and its misfit, see `completion.result.Detail`.
    """

    photo: Path
    status: str
    outputs: tuple[Path, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    sources: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the result as plain JSON; infinite figures (of identical images) become null."""
        figures = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        outputs = [str(path) for path in self.outputs]
        return asdict(self) | {"photo": str(self.photo), "outputs": outputs, "figures": figures}


def complete_folder(load: Callable[[], FaceCompleter], plan: Plan, gpu: bool = False) -> Iterator[FillResult]:
    """Complete many photos. Results with the same fingerprint are skipped, so that an interrupted run can be resumed.

    Args:
        load: creates the completer, called once per worker.
        plan: the photos and their outputs; their folder is locked during the run.
        gpu: reserve a GPU for each worker of Ray.
    Yields:
        one FillResult per photo, those without any work first.
    Raises:
        PhotoError: another run is writing to the folder.
        WorkerError, BackendError: see align.parallel; also the errors of `load`.
    """
    assert plan.folder is not None
    with lock_folder(plan.folder), ExitStack() as stack:
        folders = {output.parent for output in plan.outputs.values()}
        remove_leftovers(folders)  # of killed runs
        stack.callback(remove_leftovers, folders)  # of workers that were ended
        manifest, taken = Manifest(plan.folder), set(plan.outputs.values())
        tasks = []
        for photo in plan.outputs:
            if done := _without_work(plan, photo, manifest, taken):
                yield done
            else:
                tasks.append(photo)
        jobs, backend = plan.files.jobs, plan.files.backend
        yield from parallel_map(partial(_worker, load, plan, jobs), tasks, jobs, backend, gpu)


def _without_work(plan: Plan, photo: Path, manifest: Manifest, taken: Collection[Path]) -> FillResult | None:
    """Return the result of a photo that is completed already, or whose files cannot be written; else None."""
    try:
        if meeting := [file for file in plan.outputs_of(photo)[1:] if file in taken]:
            return FillResult(photo, "failed", reason=f"{meeting[0]} is the output of another photo; rename one")
        if _is_completed(plan, photo, manifest):
            return FillResult(photo, "skipped", reason="already completed")
        _check_files(plan, photo, manifest)
        return None
    except (InputError, OSError) as error:
        return FillResult(photo, "failed", reason=str(error))


def _is_completed(plan: Plan, photo: Path, manifest: Manifest) -> bool:
    """Whether a photo is completed already; raises PhotoError if its output was made from another photo."""
    output = plan.outputs[photo]
    made = manifest.fingerprint(output) if output.exists() and not plan.files.overwrite else None
    if made is None:
        return False
    now = _fingerprint(plan, photo, digest(photo))
    if made.get("photo") != now["photo"]:
        raise PhotoError(f"{output} was made from another photo; overwrite it or choose another output")
    needed = {*plan.outputs_of(photo)} - {*candidates_of(output, plan.options.candidates)}  # fewer may differ visibly
    return made == now and manifest.has(output, needed)


def _check_files(plan: Plan, photo: Path, manifest: Manifest) -> None:
    """Raise PhotoError if a file of a photo cannot be written or must not be replaced."""
    for file in plan.outputs_of(photo):
        check_target(file)
        if file.exists() and not plan.files.overwrite and not manifest.made_by_us(file):
            why = ", and was not made by this program or was changed since" if plan.folder else ""
            raise PhotoError(f"the output {file} exists{why}; overwrite it or choose another output")


def _worker(load: Callable[[], FaceCompleter], plan: Plan, jobs: int) -> Callable[[Path], FillResult]:
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))  # torch reads it when it is imported
    completer, manifest = load(), Manifest(plan.folder)

    def complete(photo: Path) -> FillResult:
        return next(item for item in _reported(completer, plan, photo, manifest) if isinstance(item, FillResult))

    return complete


def complete_photo(completer: FaceCompleter, plan: Plan, photo: Path) -> Iterator[Step | FillResult]:
    """Complete the only photo of a plan, whose folder is locked meanwhile: yield the Steps, then the FillResult.

    Whatever goes wrong with the photo gives a failed FillResult.

    Raises:
        PhotoError: another run is writing to the folder.
        LandmarkModelError, WeightsError, ModuleNotFoundError: no photo can be completed.
    """
    with lock_folder(plan.folder) if plan.folder else nullcontext():
        if plan.folder:
            remove_leftovers([plan.outputs[photo].parent])  # of killed runs
        yield from _reported(completer, plan, photo, Manifest(plan.folder))


def _reported(completer: FaceCompleter, plan: Plan, photo: Path, manifest: Manifest) -> Iterator[Step | FillResult]:
    try:
        yield from _complete(completer, plan, photo, manifest)
    except (LandmarkModelError, WeightsError, ModuleNotFoundError):
        raise
    except InputError as error:
        yield FillResult(photo, "failed", reason=str(error))
    except OSError as error:  # of files that are not photos; write_photo raises PhotoError
        yield FillResult(photo, "failed", reason=f"cannot be written: {error.strerror or error}")
    except MemoryError:
        yield FillResult(photo, "failed", reason="there is not enough memory; reduce the photo or run fewer jobs")
    except Exception as error:  # one photo must not stop the others
        message = str(error).partition("\n")[0]
        yield FillResult(photo, "failed", reason=f"unexpected {type(error).__name__}: {message}; please report it")


def _complete(completer: FaceCompleter, plan: Plan, path: Path, manifest: Manifest) -> Iterator[Step | FillResult]:
    began = time.monotonic()
    options, files, output = plan.options, plan.files, plan.outputs[path]
    _is_completed(plan, path, manifest)  # raises
    _check_files(plan, path, manifest)

    # Read the photo, and find or draw the hole.
    photo = read_photo(path)
    mask = plan.mask_of(path)
    # Every photo has its own half.
    seed = options.seed ^ int(photo.sha256[:15], 16) if "half" in mask.names.split(",") else options.seed
    given = None
    if plan.landmarks is not None:
        found = locate.align_by_landmarks(plan.landmarks, plan.source(path), completer.template, completer.size)
        given = checked(found, photo.pixels.shape[:2])
    chosen = vars(options) | {"aligned": options.aligned or _is_crop(path)}
    marked = completer.mark(photo, mask, given, files.invert_mask, **(chosen | {"seed": seed}))

    # Fill it.
    progress: list[Step] = []
    for item in completer.steps(photo, marked, **chosen):
        if isinstance(item, Completion):
            completion = item
        else:
            progress += [item] if files.history else []
            yield item
    hole = completion.hole

    # Write the files, record them, and give them their names, that of the completion last.
    with staging(output.parent) as stage:
        staged = stage / output.name
        if files.save_mask:
            write_photo(staged.with_suffix(".mask.png"), hole * np.uint8(255))
        if files.strip:
            write_photo(staged.with_suffix(".strip.png"), strip(photo.pixels, hole, completion.pixels))
        if files.history:
            _write_history(staged, progress, overlay_mask(photo.pixels, hole))
        write_completions(staged, completion)
        outputs = {file: stage / file.name for file in plan.outputs_of(path)}
        made = {file: digest(part) for file, part in outputs.items() if part.exists()}
        manifest.record(made)
        for file in reversed(outputs):
            ours = file.exists() and manifest.made_by_us(file)
            if file in made:
                publish(outputs[file], file, files.overwrite or ours)
            elif ours:  # of an earlier run that found more different candidates
                file.unlink()
        manifest.record(made, _fingerprint(plan, path, photo.sha256))
    figures = completion.figures | {"seconds": time.monotonic() - began}
    if files.report and not (mask.files or mask.alpha or mask.damage):  # else the true pixels are unknown
        figures |= _measure(photo.pixels, completion.pixels, hole)
    details = {face: asdict(detail) for face, detail in completion.details.items()}
    yield FillResult(path, "completed", tuple(made), "", completion.notes, completion.shares, figures, details)


def _fingerprint(plan: Plan, photo: Path, sha256: str) -> dict[str, Any]:
    mask = plan.mask_of(photo)
    words = [*filter(None, [mask.names]), *["alpha"] * mask.alpha, *map(digest, mask.files)]
    words += [] if mask.damage is None else [f"damage:{mask.damage:g}", SHA256[FINDER]]
    return fingerprint(sha256, ",".join(words), plan.landmarks_sha256, plan.settings)


def _is_crop(photo: Path) -> bool:
    """Whether python -m align wrote a photo, as the manifest of its folder or of one above says."""
    whole = photo.absolute()
    return any(whole.relative_to(folder).as_posix() in _crops(folder) for folder in whole.parents)


@cache
def _crops(folder: Path) -> frozenset[str]:
    return frozenset(crop.crop for crop in read_records(folder / MANIFEST, Crop)[0])


def write_completions(output: Path, completion: Completion) -> list[Path]:
    """Write a completion, and its other candidates with a contact sheet if there are any.

    Args:
        output: file for the best completion, written last; the names of the others derive from it.
        completion: the completion; its photo provides the mode, the metadata and the pixels outside the hole.
    Returns:
        The files of the completions, the best first, without the contact sheet.
    Raises:
        PhotoError: a file cannot be written.
    """
    photo, hole = completion.photo, completion.hole
    completions = [output, *candidate_files(output, len(completion.fills))]
    for path, fill in zip(completions[1:], completion.fills[1:], strict=True):
        write_photo(path, fill, photo, hole)
    if len(completions) > 1:
        sheet = contact_sheet(photo.pixels, hole, completion.candidates)
        write_photo(output.with_suffix(".candidates.png"), sheet)
    write_photo(output, completion.fills[0], photo, hole)  # last: its existence marks the photo as done
    return completions


def _write_history(output: Path, progress: Sequence[Step], no_face: NDArray[np.uint8]) -> None:
    """Write the search as an animation and its losses; `no_face` is the frame for a hole without a face."""
    frames = [overlay_mask(step.crops[0], step.holes[0]) for step in progress[:1]]
    frames += [step.previews[0] for step in progress]
    write_animation(output.with_suffix(".history.gif"), frames or [no_face])
    lines = []
    for step in progress:
        losses = {"context": step.context[0].tolist(), "prior": step.prior[0].tolist()}
        line = {"face": step.face, "step": step.number, "best": int(step.best[0]), **losses}
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


def summary(results: Sequence[FillResult]) -> dict[str, float]:
    """Average each figure over the photos that have it, ignoring infinite values (of identical images)."""
    names = dict.fromkeys(name for result in results for name in result.figures)
    values = {
        name: [r.figures[name] for r in results if math.isfinite(r.figures.get(name, math.nan))] for name in names
    }
    return {name: fmean(found) for name, found in values.items() if found}
