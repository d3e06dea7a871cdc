"""Masks of photos: holes from image files, arrays and alpha channels; bool arrays, True = fill this."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align.errors import MaskError, PhotoError
from align.files import list_photos
from align.photo import Photo, read_photo, to_photo
from align.warp import Alignment, transform
from dcgan.holes import unknown_mask

MaskLike = NDArray[Any] | Image.Image | str | os.PathLike[str]


def read_hole(path: Path, shape: tuple[int, int], invert: bool = False) -> tuple[NDArray[np.bool_], str | None, str]:
    """Read a hole from a mask image: white means fill; grey is rounded to black or white.

    Args:
        path: the mask file.
        shape: (H, W) of the photo; a mask of another size is resized to it by nearest neighbour.
        invert: fill black instead of white.
    Returns:
        bool (H, W), a warning if the mask was resized, otherwise None, and the SHA-256 of the file.
    Raises:
        PhotoError: the file cannot be read.
    """
    mask = read_photo(path)
    white, warning = _white(mask.image), None
    if white.shape != shape:
        warning = f"the mask was resized from {white.shape[1]}x{white.shape[0]} to the photo's {shape[1]}x{shape[0]}"
        white = cv2.resize(white.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    return white != invert, warning, mask.sha256


def as_hole(mask: MaskLike, photo: Photo) -> NDArray[np.bool_]:
    """Convert any usual form of a mask, except a name; white, 1 and True mean fill.

    Args:
        mask: "alpha" for the transparent pixels of the photo, the path of a mask image, a Pillow image, or an array of
            shape (H, W) or (H, W, 1): bool, 0 and 1, 0 and 255, or 0 and 65535. Values between are rounded to either.
            An array (H, W, 3) or (H, W, 4) is an image, uint8.
        photo: the photo.
    Returns:
        bool (H, W), of the mask's own size.
    Raises:
        MaskError: the mask is none of these, or the photo has no alpha channel.
    """
    if isinstance(mask, str) and mask == "alpha":
        return alpha_hole(photo)
    if isinstance(mask, str | os.PathLike):
        if isinstance(mask, str) and not os.path.lexists(mask):
            raise unknown_mask(mask)
        try:
            return _white(read_photo(Path(mask)).image)
        except PhotoError as error:
            raise MaskError(f"the mask {os.fspath(mask)}: {error}") from error
    if isinstance(mask, Image.Image) and (len(mask.getbands()) > 1 or mask.mode == "P"):
        return _white(to_photo(mask).image)
    values = np.asarray(mask)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8:
        return _white(Image.fromarray(values))
    if values.dtype.kind not in "biuf" or values.ndim == 0:
        what = type(mask).__name__
        raise MaskError(f"the mask is a {what}; expected a name, a path, a Pillow image or a numpy array")
    if values.ndim != 2:
        raise MaskError(f"the mask is {values.dtype} of shape {values.shape}; expected (H, W)")
    if values.dtype == bool:
        return values
    least, most = values.min(initial=0), values.max(initial=0)
    white = next((white for white in (1, 255, 65_535) if 0 <= least <= most <= white), None)  # None also with NaN
    if white is None:
        raise MaskError(f"the mask has values from {least:g} to {most:g}; expected 0 and 1, or 0 and 255")
    return values >= white / 2


def _white(image: Image.Image) -> NDArray[np.bool_]:
    """Mark the white pixels of a mask image; grey is rounded to black or white, transparent pixels count as black."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.asarray(image.convert("L")) >= 128


def alpha_hole(photo: Photo, invert: bool = False) -> NDArray[np.bool_]:
    """Read a hole from a photo's alpha channel: the pixels that are not fully opaque.

    Args:
        photo: the photo, with an alpha channel.
        invert: fill the opaque pixels instead.
    Returns:
        bool (H, W).
    Raises:
        MaskError: the photo has no alpha channel.
    """
    if "A" not in photo.image.mode:
        raise MaskError(
            f"the mask is alpha, but the photo is {photo.image.mode} without alpha; make the hole transparent"
        )
    return (np.asarray(photo.image)[..., -1] < 255) != invert


def mask_files(folder: Path) -> dict[Path, list[Path]]:
    """List the masks in a folder by their relative path without suffix.

    Raises:
        PhotoError: the folder cannot be listed.
    """
    found: dict[Path, list[Path]] = {}
    for path in list_photos(folder):
        found.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
    return found


def find_mask(masks: Mapping[Path, Sequence[Path]], name: Path) -> Path:
    """Find the mask of a photo.

    Args:
        masks: see `mask_files`.
        name: the photo's relative path without suffix; with suffix if several photos differ only in it.
    Raises:
        MaskError: there is no such mask, or more than one.
    """
    found = masks.get(name, [])
    if len(found) != 1:
        what = "no mask" if not found else f"{len(found)} masks"
        raise MaskError(f"the folder of masks holds {what} for this photo; expected one image named {name}.*")
    return found[0]


def hole_in_crop(hole: NDArray[np.bool_], face: Alignment) -> NDArray[np.bool_]:
    """Mark pixels of a crop that overlap a hole (H, W) or lie outside the photo: bool (S, S)."""
    if np.array_equal(face.matrix, np.eye(2, 3)):
        return hole
    share = face.warp(hole * np.uint8(255))
    v, u = np.mgrid[: face.size, : face.size]
    x, y = np.moveaxis(transform(face.inverse, np.stack([u, v], axis=-1)), -1, 0)
    beyond = (x < -0.5) | (x > hole.shape[1] - 0.5) | (y < -0.5) | (y > hole.shape[0] - 0.5)
    return (share > 0) | beyond
