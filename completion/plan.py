"""Plan what to complete and where to: list photos, name outputs, find masks, and check everything before any work."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.errors import PhotoError
from align.files import check_outputs, list_photos, output_names, prepare_folder, prepare_report
from align.locate import read_landmarks
from align.photo import WRITABLE, digest
from completion.config import FileOptions, FillOptions
from completion.manifest import MANIFEST
from completion.mask_files import find_mask, folded, mask_files, mask_names
from completion.masks import MaskSpec, parse_mask


@dataclass(frozen=True)
class Plan:
    """What to complete, from what, and where to.

    Attributes:
        options: how to fill the photos; `no_face` is set.
        files: what to read and write.
        root: common parent folder of the photos.
        names: photo -> relative path of its output without the last suffix, unique; masks have the same names.
        outputs: photo -> file of its completion.
        folder: folder of all outputs; None if the output is a single file.
        mask: what to fill; a folder of masks is the only file in it.
        masks: masks by the names of their photos; None if there is no folder of masks.
        landmarks: landmarks by photo; None if faces are detected or placed otherwise.
        landmarks_sha256: SHA-256 of the file of landmarks.
        references: SHA-256 of each reference photo, and whether it was named itself, not found in a folder.
        settings: what else the results depend on, as JSON; part of each fingerprint.
    """

    options: FillOptions
    files: FileOptions
    root: Path
    names: dict[Path, Path]
    outputs: dict[Path, Path]
    folder: Path | None
    mask: MaskSpec
    masks: dict[Path, list[Path]] | None
    landmarks: dict[str, list[NDArray[np.float64]]] | None
    landmarks_sha256: str | None
    references: list[tuple[str, bool]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def source(self, photo: Path) -> Path:
        """Return the path of a photo relative to `root`."""
        return _whole(photo).relative_to(self.root)

    def mask_of(self, photo: Path) -> MaskSpec:
        """Return the mask of a photo, with a file in place of a folder.

        Raises:
            MaskError: the folder of masks has none for this photo, or several.
        """
        if self.masks is None:
            return self.mask
        return replace(self.mask, files=(find_mask(self.masks, self.names[photo], photo),))

    def outputs_of(self, photo: Path) -> list[Path]:
        """Return all output files of a photo, the completion first."""
        return _outputs(self.outputs[photo], self.options, self.files)


def plan_outputs(inputs: Sequence[Path], output: Path, options: FillOptions, files: FileOptions) -> Plan:
    """List the photos and the output file of each, and check before any work that all files can be written.

    Args:
        inputs: photos and folders of photos.
        output: a folder; for a single photo also a file, if the path has a suffix.
        options: how to fill the photos.
        files: further inputs and outputs; the caller writes the report.
    Raises:
        PhotoError: an input does not exist, there are no photos, an output is or replaces an input, or an output cannot
            be written.
        NoFaceError: the file of landmarks cannot be read.
    """
    for path in (*inputs, *options.reference):
        if not os.path.lexists(path):
            raise PhotoError(f"{path} does not exist; give photos or folders of photos")
    folders, mask = [path for path in inputs if path.is_dir()], parse_mask(files.mask)
    listed = [photo for folder in folders for photo in list_photos(folder)]
    masks = mask_files(mask.files[0]) if mask.files and mask.files[0].is_dir() else None
    if masks is not None:
        listed = _without_masks(listed, mask.files[0])
    photos = dict.fromkeys([*(path for path in inputs if path not in folders), *listed])
    if not photos:
        raise PhotoError(f"found no photos in {', '.join(map(str, inputs))}; give photos or folders of photos")
    root = Path(os.path.commonpath([_whole(path) if path in folders else _whole(path).parent for path in inputs]))
    named = output_names([_whole(path) for path in photos], root)
    names = {path: named[_whole(path)] for path in photos}
    folder: Path | None = output
    outputs = {path: output / name for path, name in names.items()}
    if not folders and len(photos) == 1 and output.suffix and not output.is_dir():
        if output.suffix.lower() not in WRITABLE:
            raise PhotoError(f"the output {output} has an unsupported suffix; use one of {', '.join(WRITABLE)}")
        folder, outputs = None, dict.fromkeys(photos, output)
    elif output.suffix.lower() in WRITABLE and not output.is_dir():
        raise PhotoError(f"the output {output} is named like a file, but these photos need a folder; name a folder")
    if options.no_face is None:
        options = replace(options, no_face="fill" if folders or len(photos) > 1 or mask.damage else "fail")
    landmarks, report = files.landmarks, files.report
    read = [*folders, *photos, *{photo.parent for photo in listed}]  # a photo's folder may be a link
    read += [*options.reference, *mask.files, *([landmarks] if landmarks else [])]
    written = [file for main in outputs.values() for file in _outputs(main, options, files)]
    written += [folder / MANIFEST] if folder else []
    check_outputs([*filter(None, [report]), *written], read, folder)
    prepare_folder(folder or output.parent)
    if report:
        prepare_report(report, files.overwrite)
    return Plan(
        options,
        files,
        root,
        {path: name.with_suffix("") for path, name in names.items()},
        outputs,
        folder,
        mask,
        masks,
        read_landmarks(landmarks) if landmarks else None,
        digest(landmarks) if landmarks else None,
        [
            (digest(file), not path.is_dir())
            for path in options.reference
            for file in (list_photos(path) if path.is_dir() else [path])
        ],
    )


def _without_masks(photos: list[Path], masks: Path) -> list[Path]:
    """Leave out masks: what lies in a folder of masks among the photos, and `a_mask.png` beside `a.png`."""
    within = {photo for photo in photos if _whole(photo).is_relative_to(_whole(masks))}
    if within != set(photos):
        return [photo for photo in photos if photo not in within]
    stems = {folded(photo.with_suffix("")) for photo in photos}
    return [photo for photo in photos if not (mask_names(photo) - {folded(photo.with_suffix(""))}) & stems]


def candidate_files(output: Path, candidates: int) -> list[Path]:
    """Return the output files of the candidates after the first."""
    return [output.with_suffix(f".{number}{output.suffix}") for number in range(2, candidates + 1)]


def candidates_of(output: Path, candidates: int) -> list[Path]:
    """Return the files that only several candidates have: all but the first, and the contact sheet."""
    sheet = [output.with_suffix(".candidates.png")] if candidates > 1 else []
    return [*candidate_files(output, candidates), *sheet]


def _outputs(output: Path, options: FillOptions, files: FileOptions) -> list[Path]:
    return [
        output,
        *candidates_of(output, options.candidates),
        *([output.with_suffix(".mask.png")] if files.save_mask else []),
        *([output.with_suffix(".strip.png")] if files.strip else []),
        *([output.with_suffix(".history.gif"), output.with_suffix(".history.jsonl")] if files.history else []),
    ]


def _whole(path: Path) -> Path:
    """Make a path absolute and resolve "..", so that outputs stay inside the output folder."""
    return Path(os.path.abspath(path))
