"""A folder of aligned faces, held in memory and served in an order that a resumed run finds again."""

import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.errors import InputError, PhotoError
from align.files import list_photos
from align.photo import read_photo


class DatasetError(InputError):
    """A folder that cannot be trained on."""


def load_faces(
    folder: Path, size: int, report: Callable[[str], None], leave_out: Collection[str] = ()
) -> NDArray[np.uint8]:
    """The crops of `load_named_faces`, without their names."""
    return load_named_faces(folder, size, report, leave_out)[1]


def load_named_faces(
    folder: Path, size: int, report: Callable[[str], None], leave_out: Collection[str] = ()
) -> tuple[list[str], NDArray[np.uint8]]:
    """Read every crop of a folder, in the order of their names.

    Args:
        folder: as `python -m align` writes it; sub-folders are read too.
        size: expected side of the crops in pixels.
        report: is told of each file that cannot be used, and why, and then how many there were.
        leave_out: names of files that are not read, as they are returned.
    Returns:
        The paths below the folder with `/` between their parts, and uint8 (N, size, size, 3).
    Raises:
        DatasetError: the folder is absent or holds no usable crop, or none of the files to leave out.
    """

    def read(path: Path) -> NDArray[np.uint8] | str:
        try:
            pixels = read_photo(path).pixels
        except PhotoError as error:
            return f"{path}: {error}"
        if pixels.shape != (size, size, 3):
            height, width = pixels.shape[:2]
            return f"{path}: is {width}x{height}, expected {size}x{size}; cut it out with python -m align"
        return pixels

    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; expected one of aligned faces, as python -m align writes it")
    paths = {path.relative_to(folder).as_posix(): path for path in list_photos(folder)}
    absent = [name for name in leave_out if paths.pop(name, None) is None]
    if leave_out:
        if len(absent) == len(leave_out):
            raise DatasetError(f"{folder} holds none of the {len(absent)} files to leave out; give its own list")
        report(f"{len(leave_out) - len(absent)} files left out, {len(absent)} of the list are not there")
    with ThreadPoolExecutor(2) as threads:  # decoding releases the interpreter's lock
        found = list(threads.map(read, paths.values()))
    reasons = [item for item in found if isinstance(item, str)]
    for reason in reasons:
        report(reason)
    if reasons:
        report(f"{len(reasons)} of {len(found)} files left out")
    faces = {name: item for name, item in zip(paths, found, strict=True) if not isinstance(item, str)}
    if not faces:
        raise DatasetError(f"{folder} holds no {size}x{size} face; run python -m align first")
    return list(faces), np.stack(list(faces.values()))


def read_list(path: Path) -> frozenset[str]:
    """The names in a list of files to leave out, one a line, as `python -m dcgan explore duplicates` writes it.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return frozenset(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise DatasetError(f"the list {path} cannot be read ({error}); give what explore duplicates wrote") from error


def digest(faces: NDArray[np.uint8]) -> str:
    """sha256 of the images' bytes: a run is resumed only on the data that it began with."""
    return hashlib.sha256(faces.tobytes()).hexdigest()


class Batches:
    """An endless stream of shuffled batches, a pure function of the seed and the number of images shown so far.

    The images lie on the device once and for all; only their numbers travel.
    """

    def __init__(
        self, faces: NDArray[np.uint8], batch: int, seed: int, flip: bool, device: torch.device | str = "cpu"
    ) -> None:
        if len(faces) < batch:
            raise DatasetError(
                f"the data set has {len(faces)} images, fewer than a batch of {batch}; add images or lower the batch"
            )
        self._faces = torch.from_numpy(faces).to(device)
        self._order: tuple[int, Tensor] | None = None  # of the newest epoch
        self._batch = batch
        self._seed = seed
        self._flip = flip

    def at(self, step: int) -> Tensor:
        """The images of one step: uint8 (batch, S, S, 3), mirrored at random where `flip` is set."""
        per_epoch = len(self._faces) // self._batch
        epoch, position = divmod(step, per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self._faces), generator=self._generator(epoch, 0))
        numbers = self._order[1][position * self._batch :][: self._batch]
        images = self._faces[numbers.to(self._faces.device, non_blocking=True)]
        if self._flip:
            mirrored = torch.rand(self._batch, generator=self._generator(step, 1)) < 0.5
            mirrored = mirrored.to(self._faces.device, non_blocking=True)
            images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
        return images

    def _generator(self, index: int, purpose: int) -> torch.Generator:
        entropy = np.random.SeedSequence([self._seed, index, purpose]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(entropy[0] >> 1))
