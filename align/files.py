"""Files and folders: atomic writes, lists of photos, output names."""

import json
import os
import re
import secrets
import stat
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from align.errors import PhotoError

# Includes formats that read_photo refuses: the user gets an error for them, not silence.
_LISTED = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_LISTED |= {".jfif", ".gif", ".tif", ".tiff", ".heic", ".avif", ".eps", ".pdf", ".psd", ".svg"}
_PART = re.compile(r"\.[0-9a-f]{16}\.part")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder while it is written to; the system releases it if the process dies.

    Raises:
        PhotoError: another run holds the lock, or the file system has no locks.
    """
    lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise PhotoError(f"another run is writing to {folder}; wait until it ends, or choose another folder") from error
    except (OSError, NotImplementedError) as error:
        raise PhotoError(f"{folder} cannot be locked: {error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete the temporary files of killed runs in folders that are locked; sub-folders are not searched."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if _PART.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` if the block succeeds and is deleted otherwise."""
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
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: the value contains NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def list_photos(folder: Path, skip: Collection[Path] = ()) -> list[Path]:
    """List all files with an image suffix in a folder and its sub-folders, sorted, without hidden ones.

    Args:
        folder: the folder; links are followed, but each real folder is listed only once.
        skip: sub-folders to leave out, such as an output folder.
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
    """Map each photo to its output path, relative to the output folder: `sub/a.jpg` to `sub/a.png`.

    Photos whose outputs would collide keep their suffix: `a.jpg` and `a.png` map to `a.jpg.png` and `a.png.png`.

    Args:
        photos: distinct files below `root`.
        root: the input folder.
        numbered: a photo can also have outputs `a_1.png`, `a_2.png`, ..., so `a_1.jpg` collides with `a.jpg`.
    """
    bases = {photo: photo.relative_to(root).with_suffix("") for photo in photos}
    while True:
        taken = set(bases.values())
        claims = {photo: _claim(base, taken, numbered) for photo, base in bases.items()}
        count = Counter(claims.values())
        colliding = {photo: photo.relative_to(root) for photo in photos if count[claims[photo]] > 1}
        if all(bases[photo] == name for photo, name in colliding.items()):
            return {photo: base.with_name(base.name + ".png") for photo, base in bases.items()}
        bases |= colliding


def prepare_folder(folder: Path, *taken: Path) -> None:
    """Create an output folder and check that it is writable.

    Args:
        folder: the output folder.
        taken: folders that it must differ from, such as the input folder.
    Raises:
        PhotoError: the folder is one of `taken`, or cannot be created or written to.
    """
    try:
        for other in taken:
            if folder.exists() and other.exists() and folder.samefile(other):
                raise PhotoError(f"the output folder {folder} is the same as {other}; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PhotoError(f"{folder} cannot be written to: {error.strerror}; choose another folder") from error


def _claim(base: Path, bases: set[Path], numbered: bool) -> Path:
    """The name for which photos compete: that of `a` for `a_1` if outputs are numbered."""
    if numbered and (first := base.with_name(re.sub(r"_\d+$", "", base.name) or base.name)) in bases:
        return first
    return base
