"""Bring a photo's colours to those of the training faces, and the completed photo back to its own tone.

Grey, sepia and other one-tone photos are completed in luminance, and coloured by the curve of their visible pixels.
Colour photos far from the training faces, such as dark or faded ones, are stretched for the network only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from align.picture import rounded
from align.warp import Alignment
from completion.regions import hole_in_crop
from completion.step import Step

_CELLS = 48  # side of the crop that decides whether a photo has one tone
_LEAST_VALID, _LEAST_OF_PHOTO = 0.15, 0.02  # share of its cells, or else of the photo's, that must be visible
_KNOTS, _WINDOW, _END_KNOTS, _END_L = 64, 0.06, 6, 6.0  # of the curve through the cells' colours
# Largest chroma, in Lab units, that such a curve may leave. Of 85 prints, noisy scans among them, 99 % were below, of
# colour photos none (the least had 0.72); for faded ones completion in luminance is better, too.
_ONE_TONE = 0.6
# Noise counts as structure up to this distance, in pixels of the photo and in cells: JPEG spreads it over its blocks.
_APART_PX, _APART = 10, (2, 5)
_NOISIEST = 8.0  # Lab units; no scan has so much noise in an area of a cell
# Mean offsets of red, green and blue from luminance in the training faces.
_SKIN_Y = (0, 16, 32, 64, 96, 128, 160, 192, 224, 240, 255)
_SKIN = (
    (1.5, 6.1, 10.6, 20.9, 29.9, 33.5, 34.6, 30.9, 15.0, 4.8, 1.0),
    (-0.7, -2.2, -3.7, -6.9, -9.6, -10.3, -10.7, -9.3, -3.7, -0.7, 0.2),
    (-0.4, -4.6, -9.0, -19.3, -29.0, -34.5, -35.8, -33.1, -20.0, -8.7, -3.7),
)
_LEAST_PX = 5000  # a tone is read from as many visible pixels of the faces, otherwise from the whole photo
_LEAST_OFFSET = 0.5  # levels; a smaller tone is grey


# Mean and standard deviation of training faces in levels, and how much the mean and the logarithm of the deviation
# vary from face to face.
_COLOUR = np.array([[143.8, 110.8, 93.1], [61.2, 53.7, 50.5], [31.3, 28.0, 28.1], [0.26, 0.23, 0.26]])
_LUMINANCE = np.array([[118.7], [54.7], [28.1], [0.23]])
# Faces up to as many deviations from the mean are left alone, and from the second on are moved fully.
_NEAR, _FAR = 2.0, 3.0
_GAINS = 0.33, 4.0


def is_one_tone(photo: NDArray[np.uint8], hole: NDArray[np.bool_], face: Alignment | None) -> bool:
    """Whether the chroma of a photo follows from its luminance, as in grey, sepia or faded prints.

    Args:
        photo: uint8 (H, W, 3), with the hole filled classically, so that nothing from under it shows.
        hole: bool (H, W).
        face: a face to decide by; None to decide by the whole photo.
    """
    if face is not None:
        view = face.resized(_CELLS)
        valid = ~hole_in_crop(hole, view)
        if valid.mean() >= _LEAST_VALID and view.scale <= 1:  # enlarged noise is no longer fine
            return _stray(view.warp(photo), valid, view.scale) < _ONE_TONE
    small = cv2.resize(photo, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    valid = cv2.resize(hole.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA) == 0
    return bool(valid.mean() >= _LEAST_OF_PHOTO) and _stray(small, valid, _CELLS / min(hole.shape)) < _ONE_TONE


def _stray(small: NDArray[np.uint8], valid: NDArray[np.bool_], scale: float) -> float:
    """Measure the chroma that neither luminance nor a plane (uneven yellowing) explains, without noise, in Lab units.

    Infinite for confetti, whose noise could be anything.

    Args:
        small: uint8 (S, S, 3).
        valid: bool (S, S), the cells to measure, not empty.
        scale: cells per pixel of the photo.
    """
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[valid].astype(np.float64)
    light, chroma = lab[:, 0], lab[:, 1:]
    order = light.argsort(kind="stable")
    reach = max(4, round(_WINDOW * len(order) / 2))
    knots = []
    for middle in np.linspace(0, len(order) - 1, _KNOTS).round().astype(int):
        near = order[max(0, middle - reach) : middle + reach + 1]
        knots.append((light[near].mean(), *np.median(chroma[near], axis=0)))
    table = np.array(knots)
    for end, side in ((table[:_END_KNOTS], -1), (table[-_END_KNOTS:], 1)):  # continue the curve linearly
        x = end[:, 0] - end[:, 0].mean()
        slope = x @ end[:, 1:] / max(float(x @ x), 1.0)
        tip = end[0] if side < 0 else end[-1]
        beyond = np.array([tip[0] + side * _END_L, *(tip[1:] + side * _END_L * slope)])
        table = np.vstack([beyond, table] if side < 0 else [table, beyond])
    offset = chroma - np.stack([np.interp(light, table[:, 0], column) for column in table[:, 1:].T], axis=1)
    ys, xs = np.nonzero(valid)
    plane = np.stack([xs, ys, np.ones_like(xs)], axis=1).astype(np.float64)
    rest = offset
    for _ in range(3):
        length = np.linalg.norm(rest, axis=1)
        kept = length <= np.quantile(length, 0.8)
        rest = offset - plane @ np.linalg.lstsq(plane[kept], offset[kept], rcond=None)[0]
    length = np.linalg.norm(rest, axis=1)
    kept = length <= np.quantile(length, 0.9)  # without stamps and ink
    if np.sqrt(np.square(length[kept]).mean()) > _NOISIEST:
        return float("inf")
    field = np.full((*valid.shape, 2), np.nan)
    field[ys[kept], xs[kept]] = rest[kept]
    apart = int(np.clip(np.ceil(_APART_PX * scale), *_APART))
    pairs = (field[apart:], field[:-apart]), (field[:, apart:], field[:, :-apart])
    products = np.concatenate([(one * other).sum(axis=-1).ravel() for one, other in pairs])
    products = products[~np.isnan(products)]
    return float(np.sqrt(max(0.0, products.mean()))) if len(products) else 0.0


@dataclass(frozen=True, eq=False)
class Tone:
    """The tone of a one-tone photo.

    Attributes:
        offsets: float64 (256, 3), red, green and blue minus luminance, by luminance; 0 for grey.
    """

    offsets: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        photo: NDArray[np.uint8],
        filled: NDArray[np.uint8],
        hole: NDArray[np.bool_],
        faces: Sequence[Alignment],
    ) -> "Tone | None":
        """Read the tone of a photo from the visible pixels of its faces, or else from all of them.

        Args:
            photo: uint8 (H, W, 3).
            filled: uint8 (H, W, 3), the photo with its hole filled classically.
            hole: bool (H, W).
            faces: the largest comes first.
        Returns:
            The tone; None for a colour photo.
        """
        if not is_one_tone(filled, hole, faces[0] if faces else None):
            return None
        visible = ~hole
        around = np.logical_or.reduce([face.footprint(hole.shape) for face in faces] or [visible]) & visible
        pixels = photo[around if around.sum() >= _LEAST_PX else visible]
        light = luma(pixels)
        count = np.bincount(light, minlength=256).astype(np.float64)
        sums = [np.bincount(light, channel - light.astype(np.float64), 256).astype(np.float64) for channel in pixels.T]
        smooth = np.zeros((256, 3))
        # Levels that few pixels have lean on those around them.
        for width in (40, 12, 4):
            few = 2e-4 * len(light) / max(1.0, width / 4)
            weight = _blurred(count, width)
            share = (weight / (weight + few))[:, None]
            mean = np.stack([_blurred(total, width) for total in sums], axis=1) / np.maximum(weight, 1e-9)[:, None]
            smooth = mean if width == 40 else share * mean + (1 - share) * smooth
        return cls(smooth if np.abs(smooth[count > 0]).max(initial=0) >= _LEAST_OFFSET else np.zeros((256, 3)))

    def colour(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Colour pixels (..., 3) of equal channels."""
        light = grey[..., 0]
        table = rounded(np.arange(256)[:, None] + self.offsets)
        return table[light]

    def coloured(self, step: Step) -> Step:
        """Colour the crops and images of a step."""
        return replace(step, crops=self.colour(step.crops), images=self.colour(step.images))


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance of pixels (..., 3), rounded; that of grey pixels is exact."""
    flat = np.ascontiguousarray(pixels).reshape(-1, 1, 3)
    return cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY).reshape(pixels.shape[:-1]).astype(np.uint8, copy=False)


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance in three equal channels."""
    return np.repeat(luma(pixels)[..., None], 3, axis=-1)


@dataclass(frozen=True, eq=False)
class Stretch:
    """How the pixels of a crop are brought near those of the training faces.

    Attributes:
        one_tone: whether the crop has three equal channels, which are coloured as skin.
        gain, offset: float64 (channels,).
    """

    one_tone: bool
    gain: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def of(cls, crop: NDArray[np.uint8], hole: NDArray[np.bool_], one_tone: bool) -> "Stretch":
        """Fit to the visible pixels of a crop uint8 (S, S, 3)."""
        usual_mean, usual_spread, mean_varies, spread_varies = _LUMINANCE if one_tone else _COLOUR
        seen = crop[~hole].astype(np.float64)[:, : len(usual_mean)]
        gain, offset = np.ones(len(usual_mean)), np.zeros(len(usual_mean))
        if not len(seen):
            return cls(one_tone, gain, offset)
        mean, spread = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1.0)
        far = (mean - usual_mean) / mean_varies
        wide = np.log(spread / usual_spread) / spread_varies
        kept = np.clip((_FAR - max(np.abs(far).max(), np.abs(wide).max())) / (_FAR - _NEAR), 0, 1)
        if kept < 1:
            gain = np.clip(usual_spread * np.exp(kept * wide * spread_varies) / spread, *_GAINS)
            offset = usual_mean + kept * far * mean_varies - gain * mean
        return cls(one_tone, gain, offset)

    @property
    def changes(self) -> bool:
        """Whether the network sees other pixels than the photo's."""
        return self.one_tone or bool((self.gain != 1).any() or (self.offset != 0).any())

    def apply(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels that the network sees, for uint8 (..., 3)."""
        if not self.changes:
            return crop
        values = crop * self.gain + self.offset
        if self.one_tone:
            light = np.clip(values[..., 0], 0, 255)
            values = np.stack([light + np.interp(light, _SKIN_Y, offset) for offset in _SKIN], axis=-1)
        return rounded(values)

    def undo(self, generated: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring generated pixels uint8 (..., 3) to the photo's range; those of one tone to three equal channels."""
        if not self.changes:
            return generated
        return rounded(((grey(generated) if self.one_tone else generated) - self.offset) / self.gain)


def _blurred(values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Blur a histogram by a Gaussian, without mass from beyond its ends."""
    levels = np.arange(-255, 256)
    kernel = np.exp(-0.5 * (levels / width) ** 2)
    return np.convolve(values, kernel / kernel.sum(), mode="full")[255:511]
