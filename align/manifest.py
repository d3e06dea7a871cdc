"""Records: JSON Lines files that say what this program wrote to a folder."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from align.errors import ConfigError, PhotoError
from align.files import MAX_TEXT_BYTES, check_target, parse_json, read_file

Record = TypeVar("Record")


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
