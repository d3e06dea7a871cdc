"""Records: JSON Lines files that say what this program wrote to a folder."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from align.errors import ConfigError, PhotoError
from align.files import MAX_TEXT_BYTES, atomic_write, check_target, parse_json, read_file
from align.settings import check

Record = TypeVar("Record")
_WRITTEN = ".written.jsonl"


@dataclass(frozen=True)
class _Written:
    file: str
    sha256: str

    def __post_init__(self) -> None:
        check(self)


def write_owned(path: Path, content: bytes | memoryview, overwrite: bool = False) -> None:
    """Write a file and record its digest in its folder, so that a later write may replace it, see `is_owned`.

    Raises:
        PhotoError: the path is no regular file, or somebody else's file, and `overwrite` is not set.
    """
    replaces = overwrite or is_owned(path)
    append_line(path.parent / _WRITTEN, asdict(_Written(path.name, hashlib.sha256(content).hexdigest())))
    with atomic_write(path, replaces) as file:
        file.write(content)


def is_owned(path: Path) -> bool:
    """Whether a file was written by `write_owned`, and nobody has changed it since."""
    if path.is_symlink() or not path.is_file():
        return False
    written = {line.sha256 for line in read_records(path.parent / _WRITTEN, _Written)[0] if line.file == path.name}
    with path.open("rb") as file:
        return bool(written) and hashlib.file_digest(file, "sha256").hexdigest() in written


def read_records(path: Path, kind: type[Record]) -> tuple[list[Record], list[bytes]]:
    """Read the lines of a file that may be absent.

    Args:
        path: the file.
        kind: a dataclass that checks its fields; further keys of a line are ignored.
    Returns:
        The records, and all other lines but a last one that was cut.
    Raises:
        PhotoError: the file cannot be read.
    """
    if not os.path.lexists(path):
        return [], []
    try:
        *lines, cut = read_file(path, MAX_TEXT_BYTES).split(b"\n")
    except PhotoError as error:
        raise PhotoError(f"the record {path}: {error}") from error
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    records, others = [], []
    for line in [*lines, cut]:
        try:
            found = parse_json(line)
            records.append(kind(**{name: value for name, value in found.items() if name in names}))
        except (ValueError, AttributeError, TypeError, ConfigError):
            others.append(line)
    if others and others[-1] is cut and (not cut or cut.startswith(b"{")):
        others.pop()
    return records, others


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a record as one line.

    Raises:
        PhotoError: the path is not a regular file.
        OSError: the file cannot be written.
    """
    check_target(path)
    with path.open("ab+", buffering=0) as file:
        cut = False
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut = file.read(1) != b"\n"  # by a process that was killed
        file.write(b"\n" * cut + json.dumps(record).encode() + b"\n")
