"""Aligned faces from a folder or one packed file, held in memory and served in a reproducible order."""

import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.errors import InputError, PhotoError
from align.files import atomic_write, list_photos, read_text
from align.photo import read_photo


class DatasetError(InputError):
    """A folder or list of images cannot be used."""


def load_faces(
    source: Path, size: int, report: Callable[[str], None], leave_out: Collection[str] = ()
) -> NDArray[np.uint8]:
    """Read faces from a file written by `pack_faces`, or every crop of a folder; see `load_named_faces`.

    Raises:
        DatasetError: as `load_named_faces`; or the file is unusable, or files are to be left out of it.
    """
    if not source.is_file():
        return load_named_faces(source, size, report, leave_out)[1]
    if leave_out:
        raise DatasetError(f"{source} has no file names; leave files out when you pack it")
    try:
        faces = np.load(source, allow_pickle=False)
    except Exception as error:  # numpy raises almost anything for damaged headers
        reason = " ".join(str(error).split())
        raise DatasetError(f"{source} is unreadable ({reason}); expected a file of python -m dcgan pack") from error
    if not isinstance(faces, np.ndarray) or faces.dtype != np.uint8 or faces.shape[1:] != (size, size, 3):
        found = f"{faces.dtype} {faces.shape}" if isinstance(faces, np.ndarray) else "several arrays"
        raise DatasetError(f"{source} holds {found}; expected uint8 (N, {size}, {size}, 3); pack with this size")
    return faces


def pack_faces(faces: NDArray[np.uint8], path: Path) -> None:
    """Write faces, uint8 (N, S, S, 3), to one file, which is read at once instead of crop by crop."""
    with atomic_write(path) as file:
        np.save(file, faces)


def load_named_faces(
    folder: Path, size: int, report: Callable[[str], None], leave_out: Collection[str] = ()
) -> tuple[list[str], NDArray[np.uint8]]:
    """Read every crop of a folder, sorted by name.

    Args:
        folder: folder written by `python -m align`; sub-folders are included.
        size: expected side of the crops in pixels.
        report: called with one line per unusable file, then with their number.
        leave_out: names of files to skip, as returned.
    Returns:
        Paths relative to the folder, with `/`, and uint8 (N, size, size, 3).
    Raises:
        DatasetError: the folder is absent, or has no usable crop or none of the files to leave out.
    """

    def read(path: Path) -> NDArray[np.uint8] | str:
        try:
            pixels = read_photo(path).pixels
        except PhotoError as error:
            return f"{path}: {error}"
        if pixels.shape != (size, size, 3):
            height, width = pixels.shape[:2]
            return f"{path}: is {width}x{height}; expected {size}x{size}, as written by python -m align"
        return pixels

    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; expected a folder of faces written by python -m align")
    paths = {path.relative_to(folder).as_posix(): path for path in list_photos(folder)}
    absent = [name for name in leave_out if paths.pop(name, None) is None]
    if leave_out:
        if len(absent) == len(leave_out):
            raise DatasetError(f"{folder} has none of the {len(absent)} files to leave out; use the folder's own list")
        report(f"{len(leave_out) - len(absent)} files left out, {len(absent)} on the list are absent")
    faces = {}
    with ThreadPoolExecutor(2) as threads:  # decoding releases the GIL
        for name, found in zip(paths, threads.map(read, paths.values()), strict=True):
            if isinstance(found, str):
                report(found)
            else:
                faces[name] = found
    if len(faces) < len(paths):
        report(f"{len(paths) - len(faces)} of {len(paths)} files left out")
    if not faces:
        raise DatasetError(f"{folder} has no {size}x{size} faces; run python -m align first")
    return list(faces), np.stack(list(faces.values()))


def read_list(path: Path | None) -> frozenset[str]:
    """Read a list of files to leave out, one name per line, if there is one; DatasetError if it is unreadable."""
    if path is None:
        return frozenset()
    try:
        return frozenset(read_text(path).split("\n")) - {""}
    except PhotoError as error:
        raise DatasetError(f"the list {path}: {error}; expected the list of explore duplicates") from error


def digest(*images: NDArray[np.uint8]) -> str:
    """SHA-256 of the images' bytes; a run resumes only on the same images."""
    total = hashlib.sha256()
    for each in images:
        total.update(each.tobytes())
    return total.hexdigest()


class Batches:
    """Shuffled batches of faces uint8 (N, S, S, 3) by step, a pure function of the seed. They stay on the device.

    With `flip`, half of the images are flipped horizontally.

    Raises:
        DatasetError: there are fewer images than a batch.
    """

    def __init__(
        self, faces: NDArray[np.uint8], batch: int, seed: int, flip: bool, device: torch.device | str = "cpu"
    ) -> None:
        if len(faces) < batch:
            raise DatasetError(
                f"the data set has {len(faces)} images, fewer than a batch of {batch}; add images or lower the batch"
            )
        self._faces = torch.from_numpy(faces).to(device)
        self._order: tuple[int, Tensor] | None = None  # the latest epoch and its order
        self._batch, self._seed, self._flip = batch, seed, flip

    def at(self, step: int) -> Tensor:
        """Return the batch of one step: uint8 (batch, S, S, 3)."""
        per_epoch = len(self._faces) // self._batch
        epoch, position = divmod(step, per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self._faces), generator=self._generator(epoch, 0))
        numbers = self._order[1][position * self._batch :][: self._batch]
        images = self._faces[numbers.to(self._faces.device, non_blocking=True)]
        if self._flip:
            flipped = torch.rand(self._batch, generator=self._generator(step, 1)) < 0.5
            flipped = flipped.to(self._faces.device, non_blocking=True)
            images = torch.where(flipped[:, None, None, None], images.flip(2), images)
        return images

    def _generator(self, index: int, purpose: int) -> torch.Generator:
        entropy = np.random.SeedSequence([self._seed, index, purpose]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(entropy[0] >> 1))
