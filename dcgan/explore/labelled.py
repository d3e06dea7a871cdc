"""Labelled images for experiments with classifiers: scikit-learn's digits, or a folder."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from align.errors import PhotoError
from align.files import list_photos
from align.photo import read_photo
from dcgan.dataset import DatasetError
from dcgan.tensors import to_tensor

REDUCED_PX = 32
_TEST = 0.5  # share of test images


@dataclass(frozen=True)
class Labelled:
    """Images and their classes.

    Attributes:
        images: uint8 (N, S, S, 3).
        labels: int64 (N,), from 0 on.
        test: bool (N,), the test images.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]

    def draw(self, per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the indices of `per_class` training images of each class.

        Raises:
            DatasetError: a class has fewer images.
        """
        rows = [np.flatnonzero(~self.test & (self.labels == label)) for label in np.unique(self.labels)]
        least = min(map(len, rows))
        if least < per_class:
            raise DatasetError(f"the smallest class has {least} training images; expected at least {per_class}")
        return np.concatenate([rng.choice(row, per_class, replace=False) for row in rows])


def load_labelled(data: str, size: int, most: int, seed: int) -> Labelled:
    """Load labelled images; half of them, at random, are test images.

    Args:
        data: "digits" (scikit-learn's, 8x8), or a folder with one sub-folder per class.
        size: side in pixels to resize the images to.
        most: largest number of training images, and of test images, drawn at random.
        seed: seed of the draws.
    Raises:
        DatasetError: the images are absent or unreadable.
    """
    rng = np.random.default_rng(seed)
    if data == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = [(digit * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=2) for digit in digits.images]
        labels = digits.target
    else:
        images, labels = _folder(Path(data))
    test = np.zeros(len(labels), dtype=bool)
    test[rng.permutation(len(labels))[: round(_TEST * len(labels))]] = True
    kept = np.concatenate([rng.permutation(np.flatnonzero(test == side))[:most] for side in (False, True)])
    resized = [_resize(images[index], size) for index in kept]
    return Labelled(np.stack(resized), np.asarray(labels, dtype=np.int64)[kept], test[kept])


def reduced(images: NDArray[np.uint8]) -> Tensor:
    """Resize images uint8 (N, S, S, 3) to 32x32: float32 (N, 3, 32, 32) in [-1, 1]."""
    return interpolate(to_tensor(images), (REDUCED_PX, REDUCED_PX), mode="area")


def _folder(folder: Path) -> tuple[list[NDArray[np.uint8]], list[int]]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(classes) < 2:
        raise DatasetError(
            f"{folder} has {len(classes)} sub-folders; expected digits, or a folder with one sub-folder per class"
        )
    images, labels = [], []
    for label, path in enumerate(classes):
        for photo in list_photos(path):
            try:
                images.append(read_photo(photo).pixels)
            except PhotoError as error:
                raise DatasetError(f"{photo}: {error}") from error
            labels.append(label)
    return images, labels


def _resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    how = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_CUBIC
    return cv2.resize(image, (size, size), interpolation=how).astype(np.uint8, copy=False)
