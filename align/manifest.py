"""Manifests: JSON Lines files that say from what the files of an output folder were made; one process writes them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import PhotoError
from align.files import MAX_TEXT_BYTES, check_target, parse_json, read_file


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a file that may be absent; other lines, such as a cut last one, are ignored.

    Raises:
        PhotoError: the file cannot be read.
    """
    if not os.path.lexists(path):
        return
    try:
        data = read_file(path, MAX_TEXT_BYTES)
    except PhotoError as error:
        raise PhotoError(f"the record {path}: {error}") from error
    for line in data.split(b"\n"):
        try:
            found = parse_json(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


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
