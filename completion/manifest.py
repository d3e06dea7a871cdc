"""Manifest of an output folder: what its files were made from, so that a later run can resume or redo them."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.manifest import append_line, read_lines
from align.photo import digest

MANIFEST = ".completions.jsonl"
# Part of every fingerprint: raise it when the same settings give another result.
ALGORITHM = 5


class Manifest:
    """The manifest of a folder, read once.

    A line that lists the files of a photo is written before the first of them, and one with their SHA-256 and the
    fingerprint after the last. So files of a killed run are recognised, but do not count as finished.

    Raises:
        PhotoError: the manifest cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sha256: dict[str, str | None] = {}  # None: begun, may have any content
        self._finished: dict[str, dict[str, Any]] = {}
        for line in read_lines(folder / MANIFEST):
            match line:
                case {"output": str(output), "files": dict(files), "request": dict()}:
                    self._sha256 |= files
                    self._finished[output] = line
                case {"output": str(output), "files": [*files]}:
                    self._sha256 |= {str(name): None for name in files}
                    self._finished.pop(output, None)

    def made_by_us(self, file: Path) -> bool:
        """Whether a file was made by this program and has not been changed since."""
        name = _name(self._folder, file)
        return name in self._sha256 and self._sha256[name] in (None, digest(file))

    def fingerprint(self, output: Path) -> dict[str, Any] | None:
        """Return what a finished output was made from; None if it is not finished."""
        found = self._finished.get(_name(self._folder, output))
        return found and found["request"]

    def has(self, output: Path, files: Collection[Path]) -> bool:
        """Whether all files of a finished output were written with it."""
        found = self._finished.get(_name(self._folder, output))
        return found is not None and {_name(self._folder, file) for file in files} <= set(found["files"])


def begin(folder: Path, output: Path, files: Sequence[Path]) -> None:
    """Record that the files of a photo are about to be written."""
    append_line(folder / MANIFEST, {"output": _name(folder, output), "files": [_name(folder, file) for file in files]})


def finish(folder: Path, output: Path, files: Sequence[Path], made_from: dict[str, Any]) -> None:
    """Record that all files of a photo have been written, and what from."""
    made = {_name(folder, file): digest(file) for file in files}
    append_line(folder / MANIFEST, {"output": _name(folder, output), "files": made, "request": made_from})


def fingerprint(photo: str, mask: str, landmarks: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Describe what a completion is made from, as JSON.

    Args:
        photo: SHA-256 of the photo.
        mask: the mask's name, or the SHA-256 of its file.
        landmarks: SHA-256 of the landmarks file.
        settings: everything else that the result depends on.
    """
    made = {"algorithm": ALGORITHM, "photo": photo, "mask": mask, "landmarks": landmarks, **settings}
    found: dict[str, Any] = json.loads(json.dumps(made))  # tuples become lists, as in the file
    return found


def _name(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
