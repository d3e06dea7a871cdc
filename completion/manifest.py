"""Manifest of an output folder: what its files were made from, so that a later run can resume or redo them."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.manifest import append_line, read_records
from align.photo import digest
from align.settings import check

MANIFEST = ".completions.jsonl"
# Part of every fingerprint: raise it when the same settings give another result.
ALGORITHM = 7


@dataclass(frozen=True)
class _Line:
    """A line; one without request is written before the files get their names, the other after that."""

    output: str
    files: dict[str, str]  # SHA-256 by name
    request: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check(self)


class Manifest:
    """The manifest of a folder, read once; without a folder, nothing is recorded.

    Raises:
        PhotoError: the manifest cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._written: defaultdict[str, set[str]] = defaultdict(set)  # every SHA-256 that a file was to have
        self._finished: dict[str, _Line] = {}
        for line in read_records(folder / MANIFEST, _Line)[0] if folder else ():
            for name, sha256 in line.files.items():
                self._written[name].add(sha256)
            self._finished.pop(line.output, None)
            if line.request is not None:
                self._finished[line.output] = line

    def made_by_us(self, file: Path) -> bool:
        """Whether a file was made by this program and has not been changed since."""
        return self._folder is not None and digest(file) in self._written[self._name(file)]

    def fingerprint(self, output: Path) -> dict[str, Any] | None:
        """Return what a finished output was made from; None if it is not finished."""
        found = self._finished.get(self._name(output)) if self._folder else None
        return found.request if found else None

    def has(self, output: Path, files: Collection[Path]) -> bool:
        """Whether all files of a finished output were written with it."""
        found = self._finished.get(self._name(output))
        return found is not None and {*map(self._name, files)} <= found.files.keys()

    def record(self, files: Mapping[Path, str], made_from: dict[str, Any] | None = None) -> None:
        """Record the files of a photo, its completion first, and their SHA-256.

        Args:
            files: the files; those about to be written have no `made_from`.
            made_from: what they were made from, when all have been written.
        """
        if self._folder is not None:
            names = {self._name(file): sha256 for file, sha256 in files.items()}
            line = asdict(_Line(next(iter(names)), names, made_from))
            append_line(self._folder / MANIFEST, {key: value for key, value in line.items() if value is not None})

    def _name(self, file: Path) -> str:
        assert self._folder is not None
        return file.relative_to(self._folder).as_posix()


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
