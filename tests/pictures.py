"""Pictures that several tests use, and ways to write and read them."""

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

PORTRAIT = skimage.data.astronaut()[0:230, 110:340]  # one face, small, so that the detector is quick
FACE = np.random.default_rng(0).integers(80, 160, (32, 32, 3), dtype=np.uint8)  # aligned, to untrained networks
CENTER = np.zeros((32, 32), dtype=bool)
CENTER[8:24, 8:24] = True
NO_FACE = np.full((100, 100, 3), 128, dtype=np.uint8)
# 16x16 pixels, the left half (200, 40, 90), the right half (20, 120, 220); compressed, for libheif only reads here.
HEIC = zlib.decompress(
    base64.b64decode(
        "eNpjYGCQSSupLMhIzaxgAILczDRDEDs3MzGNgYGxLje1JJEBAhQzUnKKoGyGgszkEgY0oJSZk58MYrg4MDACIRAwLoLQQAAyXjkzMy8N"
        "zAOJigI5qUxQXkZZsiGIyVeQWZILV/Ivs6CoAEjfyyxIzgfS5UBlzowsHEDmPAuQIrkPDH/+//jBwMDPnADUIe7AyMP4/z9IATNYBTNQ"
        "yS4mh0SgnJYTIyOqxAQWAYVNd0Mvx9xhMZEQAIoxTgBJCDQkAZVzuDAeLJYwkAAKMQgn5+cU5SXnVADFeRnYGoBCIpnFBalQrzlAsUZy"
        "TiLItQJQ14Pp////XwDSTDAaJF6QWZEJ0sjMwQHyikRmQS4slIEBx9rIxMzaAmQ35KYkgkK5RINxPZuRlHpIQ6xj0bfPHv+fVMnd6/6V"
        "u+33e9XF/x+GTY/L/6XJzqG3KKqZ80v2ohlbFUNihTo4lm4L0fFZcT/X4vubH3FNejWur+uflvxL2JHfvrZ+jqU/i6CVS9KUam7lC7PS"
        "V1W8cK8vTvJnytP2kZfNEw0oiQAA2OiBRQ=="
    )
)


def box(shape: Sequence[int], top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    """A rectangular hole in a photo of a shape."""
    hole = np.zeros(shape[:2], dtype=bool)
    hole[top:bottom, left:right] = True
    return hole


def save(path: Path, pixels: NDArray[Any] | Image.Image = FACE, **settings: Any) -> Path:
    """Write a picture; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.astype(np.uint8))
    image.save(path, **settings)
    return path


def save_all(folder: Path, faces: NDArray[np.uint8]) -> Path:
    """Write faces (N, S, S, 3) as 000.png, 001.png and so on."""
    for index, face in enumerate(faces):
        save(folder / f"{index:03d}.png", face)
    return folder


def files(folder: Path) -> list[str]:
    """Names of all files in a folder and its sub-folders, without locks and records."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if not name.endswith((".lock", ".completions.jsonl", ".written.jsonl")))


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files in a folder and its sub-folders, without locks and records."""
    return {name: (folder / name).read_bytes() for name in files(folder)}


def pixels(path: str | Path | IO[bytes]) -> NDArray[np.uint8]:
    """Read a picture in its own mode."""
    with Image.open(path) as image:
        return np.asarray(image)


def differences(one: Path, other: Path) -> str:
    """Where two files differ, in a line that stays short in the logs; empty for the same bytes."""
    if one.read_bytes() == other.read_bytes():
        return ""
    first, second = pixels(one), pixels(other)
    if first.shape != second.shape:
        return f"{one.name} has the shape {first.shape}, {other.name} {second.shape}"
    steps = np.abs(first.astype(int) - second).reshape(*first.shape[:2], -1).max(axis=2)
    if not steps.any():
        return f"{one.name} and {other.name} have the same pixels in different bytes"
    rows, columns = np.nonzero(steps)
    return (
        f"{one.name} and {other.name} differ in {len(rows)} pixels, by {steps.max()} at most, "
        f"in rows {rows.min()} to {rows.max()} and columns {columns.min()} to {columns.max()}"
    )
