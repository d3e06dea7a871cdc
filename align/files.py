"""Files and folders: what may be read and written, atomic writes, locks, lists of photos, output names."""

import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from align.errors import PhotoError

# Includes formats that read_photo refuses: the user gets an error for them, not silence.
_UNREADABLE = {".eps", ".jp2", ".jxl", ".pdf", ".psd", ".svg", ".tga"}
_LISTED = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif"}
_LISTED |= {".pgm", ".pnm", ".ppm", *_UNREADABLE}
# Folders of network drives and archives, which hold thumbnails and deleted photos.
_SYSTEM_FOLDERS = {"@eadir", "#recycle", "#snapshot", "__macosx"}
MAX_TEXT_BYTES = 2**30
_MAX_TOML_BYTES = 2**20
_PART = re.compile(r"\.[0-9a-f]{16}\.part")
LOCK_S = 60.0  # longest wait for a folder that another run writes to
_log = logging.getLogger(__name__)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of limited size, without waiting for a pipe or a device.

    Raises:
        PhotoError: the file is not a regular file, is too large, or cannot be read.
    """
    text = os.fspath(path)  # a number would be an open file
    try:
        with open(text, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise PhotoError("not a regular file; expected a file")
            if found.st_size > max_bytes:
                raise PhotoError(f"too large: {found.st_size:,} bytes, the limit is {max_bytes:,}")
            return file.read(found.st_size)
    except IsADirectoryError as error:
        raise PhotoError("not a regular file; expected a file") from error
    except (OSError, ValueError) as error:  # ValueError: the name contains a zero byte
        raise PhotoError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_text(path: Path) -> str:
    """Read UTF-8 text, with or without a byte order mark; other bytes become surrogates, as in names of files.

    Raises:
        PhotoError: see `read_file`.
    """
    return read_file(path, MAX_TEXT_BYTES).decode("utf-8-sig", "surrogateescape")


def read_json_lines(path: Path) -> Iterator[Any]:
    """Parse the lines of a file, which only line feeds separate; empty lines are left out.

    Raises:
        PhotoError: see `read_file`.
        ValueError: see `parse_json`.
    """
    for line in read_file(path, MAX_TEXT_BYTES).split(b"\n"):
        if line.strip():
            yield parse_json(line)


def check_target(path: Path) -> None:
    """Check that a path is free or a regular file, so that it can be written to.

    Raises:
        PhotoError: the path is a link, a folder, a device or a pipe, or too long.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise PhotoError(f"{path} cannot be written to: {error.strerror}; choose another output") from error
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise PhotoError(f"the output {path} is {what}; remove it or choose another output")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path], folder: Path | None = None) -> None:
    """Check before any work that writing the outputs leaves the inputs untouched.

    Args:
        outputs: files that will be written; they need not exist.
        inputs: files and folders that are read. Files are compared by identity, whatever their names.
        folder: outputs below this folder must not lie behind a link inside it.
    Raises:
        PhotoError: an output is an input, or lies in an input folder or behind a link.
    """
    files, folders = set(), {}
    for path in inputs:
        with suppress(OSError):  # reported when the input is read
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                folders[Path(os.path.realpath(path))] = path
            else:
                files.add((found.st_dev, found.st_ino))
    checked = set()
    for output in outputs:
        if output.parent not in checked:
            _check_folder(output.parent, folders, folder)
            checked.add(output.parent)
        with suppress(OSError):
            found = output.stat()
            if (found.st_dev, found.st_ino) in files:
                raise PhotoError(f"the output {output} is also an input; choose another output")


def _check_folder(folder: Path, inputs: Mapping[Path, Path], top: Path | None = None) -> None:
    """Check an output folder, for `check_outputs`; `inputs` maps real input folders to their names."""
    real = Path(os.path.realpath(folder))
    for above in (real, *real.parents):
        if above in inputs:
            raise PhotoError(
                f"the output folder {folder} is in the input folder {inputs[above]}; choose a folder outside it"
            )
    if top is not None and folder.is_relative_to(top) and real != Path(os.path.realpath(top), folder.relative_to(top)):
        raise PhotoError(f"the output folder {folder} is behind a link; remove the link or choose another folder")


@contextmanager
def lock_folder(folder: Path, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock of a folder while it is written to; the system releases it if the process dies.

    Args:
        folder: the folder.
        wait_s: how long to wait for another run, which is logged; LOCK_S if None.
    Raises:
        PhotoError: another run still holds the lock, or the file system has no locks.
    """
    from filelock import FileLock, Timeout  # slow to import

    wait_s = LOCK_S if wait_s is None else wait_s
    lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
    try:
        try:
            lock.acquire()
        except Timeout:
            if wait_s:
                _log.warning("another run is writing to %s; waiting for up to %g s", folder, wait_s)
            lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise PhotoError(
            f"another run is writing to {folder}, after {wait_s:g} s too; wait until it ends, or choose another folder"
        ) from error
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
            if _PART.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif _PART.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make a hidden folder inside a folder, for files that `publish` moves out; it is deleted at the end."""
    stage = folder / _part()
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def atomic_write(path: Path, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` if the block succeeds and is deleted otherwise; folders are created.

    Raises:
        PhotoError: see `publish`.
    """
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(_part())
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(part, path, overwrite)
    finally:
        part.unlink(missing_ok=True)


def publish(part: Path, path: Path, overwrite: bool) -> None:
    """Give a complete file its name.

    Args:
        part: the file, on the same file system.
        path: its name.
        overwrite: replace a file of this name, whose permissions are kept. Else no file is ever replaced, even if it
            appears at the same moment.
    Raises:
        PhotoError: `path` is a link, a folder, a device or a pipe, or exists and must not be replaced.
    """
    check_target(path)
    if overwrite:
        with suppress(FileNotFoundError):
            part.chmod(stat.S_IMODE(path.lstat().st_mode))
        os.replace(part, path)
        return
    try:
        os.link(part, path)
    except OSError as error:
        if os.path.lexists(path):
            raise PhotoError(f"the output {path} exists; overwrite it or choose another output") from error
        os.replace(part, path)  # a file system without hard links
    else:
        part.unlink()


def _part() -> str:
    return f".{secrets.token_hex(8)}.part"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; names of files that are no UTF-8 keep their bytes."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: the value contains NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of limited depth with finite numbers only.

    Raises:
        ValueError: the text is something else.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of limited depth and size.

    Raises:
        PhotoError: see `read_file`.
        ValueError: the file is no UTF-8 text or no TOML.
    """
    text = read_file(path, _MAX_TOML_BYTES).decode("utf-8-sig")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is not a finite number")
    return float(text)


def list_photos(folder: Path) -> list[Path]:
    """List all files with an image suffix in a folder and its sub-folders, sorted.

    Hidden files and folders are left out, and those in which systems keep thumbnails and deleted files. Links are
    followed, but each real folder is listed only once.

    Raises:
        PhotoError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise PhotoError(f"{error.filename} cannot be listed: {error.strerror}") from error

    seen = set()
    photos = []
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != "." and name.lower() not in _SYSTEM_FOLDERS)
        photos += [Path(here, name) for name in files if not name.startswith(".")]
    return sorted(photo for photo in photos if photo.suffix.lower() in _LISTED)


def output_names(photos: Sequence[Path], root: Path, numbered: bool = False) -> dict[Path, Path]:
    """Map each photo to its output path, relative to the output folder: `sub/a.jpg` to `sub/a.png`.

    Photos whose outputs would collide keep their suffix: `a.jpg` and `a.png` map to `a.jpg.png` and `a.png.png`. Files
    of formats that cannot be read, such as `a.pdf`, always do, and so change no other name.

    Args:
        photos: distinct files below `root`.
        root: the input folder.
        numbered: a photo can also have outputs `a_1.png`, `a_2.png`, ..., so `a_1.jpg` collides with `a.jpg`.
    """
    names = {photo: photo.relative_to(root) for photo in photos}
    bases = {
        photo: name if photo.suffix.lower() in _UNREADABLE else name.with_suffix("") for photo, name in names.items()
    }
    while True:
        taken = set(bases.values())
        claims = {photo: _claim(base, taken, numbered) for photo, base in bases.items()}
        count = Counter(claims.values())
        colliding = {photo: names[photo] for photo in photos if count[claims[photo]] > 1}
        if all(bases[photo] == name for photo, name in colliding.items()):
            return {photo: base.with_name(base.name + ".png") for photo, base in bases.items()}
        bases |= colliding


def prepare_folder(folder: Path, *inputs: Path) -> None:
    """Create an output folder and check that it is writable.

    Args:
        folder: the output folder.
        inputs: files and folders that are read; the output folder must not be inside one of them.
    Raises:
        PhotoError: the folder is inside an input folder, or cannot be created or written to.
    """
    _check_folder(folder, {Path(os.path.realpath(path)): path for path in inputs if path.is_dir()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PhotoError(f"{folder} cannot be written to: {error.strerror}; choose another folder") from error


def prepare_report(path: Path, overwrite: bool = False) -> None:
    """Create the folder of a JSON report and check that the report can be written; an earlier one is replaced.

    Raises:
        PhotoError: the report has another suffix than .json, cannot be written, or would replace something else.
    """
    if path.suffix.lower() != ".json":  # a mistyped name must not cost a photo
        raise PhotoError(f"the report is {path}; expected .json")
    prepare_folder(path.parent)
    check_target(path)
    if path.exists() and not overwrite and not _is_report(path):
        raise PhotoError(f"{path} exists and is no report of this program; overwrite it or choose another output")


def _is_report(path: Path) -> bool:
    """Whether a file has the records of photos, or tables."""
    try:
        found = parse_json(read_file(path, MAX_TEXT_BYTES))
    except (PhotoError, ValueError):
        return False
    records = found.get("photos") if isinstance(found, dict) else found
    return isinstance(records, list) and all(
        isinstance(each, dict) and {"status", "rows"} & each.keys() for each in records
    )


def _claim(base: Path, bases: set[Path], numbered: bool) -> Path:
    """The name for which photos compete: that of `a` for `a_1` if outputs are numbered."""
    if numbered and (first := base.with_name(re.sub(r"_\d+$", "", base.name) or base.name)) in bases:
        return first
    return base
