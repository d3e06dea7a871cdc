"""Files and folders: written whole or not at all, listed, and named for the output."""

import json
import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from align.errors import PhotoError

# Kinds that read_photo refuses are listed too, so that they are named with their reason instead of passed over.
_LISTED = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_LISTED |= {".jfif", ".gif", ".tif", ".tiff", ".heic", ".avif", ".eps", ".pdf", ".psd", ".svg"}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends well, and vanishes otherwise."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def list_photos(folder: Path, skip: Collection[Path] = ()) -> list[Path]:
    """Every file below a folder that claims by its suffix to be a picture, sorted; nothing hidden.

    Args:
        folder: links to folders are followed, each real folder once.
        skip: folders below it to stay out of, such as an output folder.
    Raises:
        PhotoError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise PhotoError(f"{error.filename} cannot be listed: {error.strerror}") from error

    seen = {os.path.realpath(path) for path in skip} - {os.path.realpath(folder)}
    photos = []
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        photos += [Path(here, name) for name in files if not name.startswith(".")]
    return sorted(photo for photo in photos if photo.suffix.lower() in _LISTED)


def output_names(photos: Sequence[Path], root: Path, numbered: bool = False) -> dict[Path, Path]:
    """Where each photo's output goes, relative to the output folder: `sub/a.jpg` to `sub/a.png`.

    Photos that would meet keep their suffix: `a.jpg` and `a.png` go to `a.jpg.png` and `a.png.png`.

    Args:
        photos: distinct files below `root`.
        root: the input folder.
        numbered: outputs may also be called `a_1.png`, `a_2.png`, ..., so a photo `a_1.jpg` meets `a.jpg`.
    """
    bases = {photo: photo.relative_to(root).with_suffix("") for photo in photos}
    while True:
        taken = set(bases.values())
        claims = {photo: _claim(base, taken, numbered) for photo, base in bases.items()}
        count = Counter(claims.values())
        meeting = {photo: photo.relative_to(root) for photo in photos if count[claims[photo]] > 1}
        if all(bases[photo] == name for photo, name in meeting.items()):
            return {photo: base.with_name(base.name + ".png") for photo, base in bases.items()}
        bases |= meeting


def prepare_folder(folder: Path, *taken: Path) -> None:
    """Make an output folder and see that it can be written to, before any work is done.

    Args:
        folder: the output folder.
        taken: folders that it must not be, such as the input's.
    Raises:
        PhotoError: it is one of `taken`, or cannot be made or written to.
    """
    try:
        for other in taken:
            if folder.exists() and other.exists() and folder.samefile(other):
                raise PhotoError(f"{folder} cannot take the output, being {other} itself; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PhotoError(f"{folder} cannot be written to: {error.strerror}; choose another folder") from error


def _claim(base: Path, bases: set[Path], numbered: bool) -> Path:
    if numbered and (first := base.with_name(re.sub(r"_\d+$", "", base.name) or base.name)) in bases:
        return first
    return base
