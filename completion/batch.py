"""Complete many photos: one result per photo, whatever is wrong with any of them."""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.landmarks import NoFaceError
from align.photo import (
    WRITABLE,
    Photo,
    PhotoError,
    atomic_write,
    list_photos,
    output_names,
    prepare_folder,
    read_photo,
    write_photo,
)
from completion import masks
from completion.complete import Completion, FaceCompleter, Progress
from completion.picture import painted, strip, write_animation
from dcgan.metrics import psnr


@dataclass(frozen=True)
class BatchOptions:
    """What to do with every photo.

    Attributes:
        mask: a name, "alpha", a mask file or a folder of masks.
        invert_mask: black, or opaque, means fill.
        faces: "largest" or "all": on which faces a named mask makes its hole.
        eyes: (x, y, x, y) in the photo's pixels, where the eyes of the one face are; None to look for faces.
        seed: of the search and of the random masks.
        strip: also write photo, hole and completion side by side.
        history: also write the search as a GIF and its losses as JSON lines.
        overwrite: replace outputs that exist.
        measure: compare with the photo where a name made the hole, so that the truth is known.
    """

    mask: str
    invert_mask: bool = False
    faces: str = "largest"
    eyes: tuple[float, ...] | None = None
    seed: int = 0
    strip: bool = False
    history: bool = False
    overwrite: bool = False
    measure: bool = False


@dataclass(frozen=True)
class Result:
    """What became of one photo.

    Attributes:
        photo: the file.
        status: "completed" or "failed".
        outputs: the files written, the completed photo first.
        reason: why it failed, for people.
        notes: what a person should know of a completion.
        figures: hole_share, faces, outside_share, context_loss, search_seconds, seconds; with `measure` hole_psnr, psnr
            (dB) and ssim.
    """

    photo: Path
    status: str
    outputs: tuple[Path, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For a report: plain JSON; figures that are no finite number (equal images) are null."""
        figures = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        outputs = [str(path) for path in self.outputs]
        return asdict(self) | {"photo": str(self.photo), "outputs": outputs, "figures": figures}


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


def complete_photo(
    completer: FaceCompleter, photo: Path, output: Path, root: Path, options: BatchOptions
) -> Iterator[Progress | Result]:
    """Complete one photo; yields the steps of the search, then the Result. Never raises for a fault of the photo's."""
    try:
        yield from _complete(completer, photo, output, root, options)
    except (PhotoError, NoFaceError, masks.MaskError) as error:
        yield Result(photo, "failed", reason=str(error))
    except OSError as error:  # of the pictures of --history; write_photo has its own words
        yield Result(photo, "failed", reason=f"cannot be written: {error.strerror or error}")


def _complete(
    completer: FaceCompleter, path: Path, output: Path, root: Path, options: BatchOptions
) -> Iterator[Progress | Result]:
    began = time.monotonic()
    outputs = [output]
    outputs += [output.with_suffix(".strip.png")] if options.strip else []
    outputs += [output.with_suffix(".history.gif"), output.with_suffix(".history.jsonl")] if options.history else []
    existing = [str(item) for item in outputs if item.exists()]
    if existing and not options.overwrite:
        raise PhotoError(f"the output {existing[0]} exists; give --overwrite or another --output")
    photo = read_photo(path)
    named = masks.split_name(options.mask) is not None
    matrices = [completer.place(photo.pixels, options.eyes)] if options.eyes else None
    notes = []
    if named and options.invert_mask:
        raise masks.MaskError(f"the mask {options.mask} is a name, and only files and alpha can be inverted")
    if named:
        matrices = matrices or completer.locate(photo.pixels)[: 1 if options.faces == "largest" else None]
        hole = completer.named_hole(photo.pixels, options.mask, matrices, options.seed)
    else:
        hole, note = _given_hole(photo, path, root, options)
        notes += [note] if note else []

    lowres = options.mask == "lowres"
    pure = False  # a generation, of a face of which nothing is known
    search_began = time.monotonic()
    progress: list[Progress] = []
    for item in completer.complete(photo.pixels, hole, matrices, options.seed, lowres):
        if isinstance(item, Completion):
            completion = item
        else:
            progress += [item] if options.history else []
            yield item
            search_seconds = time.monotonic() - search_began
            pure |= bool(item.hole.all()) and not lowres
    if pure:
        notes.append("nothing of the face is known: the result is a pure generation")
    if completion.outside:
        notes.append(
            f"{completion.outside:.0%} of the hole lie outside every face and are filled from their surroundings"
        )

    write_photo(output, completion.pixels, photo, hole)
    if options.strip:
        write_photo(output.with_suffix(".strip.png"), strip(photo.pixels, hole, completion.pixels))
    if options.history:
        _write_history(output, progress)
    figures = {
        "hole_share": float(hole.mean()),
        "faces": completion.faces,
        "outside_share": completion.outside,
        "context_loss": completion.context,
        "search_seconds": search_seconds,
        "seconds": time.monotonic() - began,
    }
    if options.measure and named:
        figures |= _measure(photo.pixels, completion.pixels, hole)
    yield Result(path, "completed", tuple(outputs), notes=tuple(notes), figures=figures)


def _given_hole(photo: Photo, path: Path, root: Path, options: BatchOptions) -> tuple[NDArray[np.bool_], str | None]:
    if options.mask == "alpha":
        return masks.alpha_hole(photo, options.invert_mask), None
    mask = Path(options.mask)
    if mask.is_dir():
        mask = masks.find_mask_file(mask, _whole(path).relative_to(root))
    height, width = photo.pixels.shape[:2]
    try:
        return masks.read_hole(mask, (height, width), options.invert_mask)
    except PhotoError as error:
        names = ", ".join(masks.NAMES)
        raise masks.MaskError(f"the mask {mask}: {error}; or give a name: {names}, alpha") from error


def _write_history(output: Path, progress: Sequence[Progress]) -> None:
    frames = [np.where(item.hole[..., None], item.step.preview, item.crop) for item in progress]
    write_animation(output.with_suffix(".history.gif"), [painted(progress[0].crop, progress[0].hole), *frames])
    with atomic_write(output.with_suffix(".history.jsonl")) as file:
        for item in progress:
            step = item.step
            losses = {"context": step.context.tolist(), "prior": step.prior.tolist()}
            line = {"face": item.face, "step": step.number, "best": step.best, **losses}
            file.write(json.dumps(line).encode() + b"\n")


def _measure(real: NDArray[np.uint8], completed: NDArray[np.uint8], hole: NDArray[np.bool_]) -> dict[str, float]:
    from skimage.metrics import structural_similarity

    figures = {"hole_psnr": psnr(real, completed, hole), "psnr": psnr(real, completed)}
    if min(real.shape[:2]) >= 7:  # the window of SSIM
        figures["ssim"] = float(structural_similarity(real, completed, channel_axis=2, data_range=255))
    return figures
