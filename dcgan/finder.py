"""Train and export the finder: a photo to how likely each pixel is damaged."""

import json
from collections.abc import Callable, Sequence
from collections.abc import Generator as Steps
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    interpolate,
    max_pool2d,
    pixel_shuffle,
    pixel_unshuffle,
)

from align.errors import PhotoError
from align.files import list_photos
from align.photo import read_photo
from align.resize import reduced, scale_to
from dcgan.checkpoint import load_run, restoring, training_record
from dcgan.config import FinderConfig
from dcgan.damage import damaged, score
from dcgan.dataset import DatasetError, digest
from dcgan.device import machine
from dcgan.export import write_graph
from dcgan.graph import capturable_adam
from dcgan.run import Run, RunInputs, TrainingStep
from dcgan.tensors import to_tensor

CROP_PX = 128
_KEPT_PX = 640  # larger photos are reduced: as a whole they show no more kinds of texture
_WIDTHS = (24, 32, 64, 128)  # channels at a half, a quarter, an eighth and a sixteenth of the side
_RISE = 4_000  # crops over which the learning rate rises
_HELD_OUT = 0.03  # share of the photos, at even distances, that are only measured
_MEASURED, _SHOWN = 256, 32


class Finder(nn.Module):
    """A U-Net: tiles uint8 (N, H, W, 3), sides multiples of 16, to how likely each pixel is damaged, uint8 (N, H, W).

    It works at half the side and below, where each position holds 2x2 pixels, for a quarter of the time.

    Source: Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation"; sums in place
        of concatenations, and residual blocks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(12, _WIDTHS[0])
        pairs = list(zip(_WIDTHS[:-1], _WIDTHS[1:], strict=True))
        self.inner = nn.ModuleList(_Residual(width) for width in (*_WIDTHS, _WIDTHS[-1]))
        self.down = nn.ModuleList(_block(before, after, stride=2) for before, after in pairs)
        self.reduce = nn.ModuleList(nn.Conv2d(after, before, 1) for before, after in pairs)
        self.outer = nn.ModuleList(_block(before, before) for before, _ in pairs)
        self.head = nn.Conv2d(_WIDTHS[0], 4, 3, padding=1)

    def logits(self, tiles: Tensor) -> Tensor:
        """Map tiles uint8 (N, H, W, 3) to logits (N, 1, H, W)."""
        x = self.inner[0](self.stem(pixel_unshuffle(to_tensor(tiles), 2)))
        levels = [x]
        for down, inner in zip(self.down, self.inner[1:-1], strict=True):
            levels.append(inner(down(levels[-1])))
        x = self.inner[-1](levels.pop())
        for reduce, outer in zip(reversed(self.reduce), reversed(self.outer), strict=True):
            x = outer(levels.pop() + interpolate(reduce(x), scale_factor=2.0))
        return pixel_shuffle(self.head(x), 2)

    def forward(self, tiles: Tensor) -> Tensor:
        return (self.logits(tiles)[:, 0].sigmoid() * 255).round().byte()


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = _block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def load_photos(folders: Sequence[Path], report: Callable[[str], None]) -> list[NDArray[np.uint8]]:
    """Read photos without damage, large ones at a reduced size.

    Args:
        folders: photos; sub-folders are included.
        report: called with a message for each unusable photo.
    Returns:
        uint8 (H, W, 3) each.
    Raises:
        DatasetError: there are fewer than two photos.
    """
    photos = []
    for path in (path for folder in folders for path in list_photos(folder)):
        try:
            pixels = read_photo(path).pixels
            photos.append(reduced(pixels, scale_to(pixels.shape, _KEPT_PX)))
        except PhotoError as error:
            report(f"{path}: {error}")
    if len(photos) < 2:
        raise DatasetError(f"found {len(photos)} photo; expected two or more, one to train on and one to measure")
    return photos


def train_finder(
    config: FinderConfig, photos: list[NDArray[np.uint8]], folder: Path, device: torch.device
) -> Steps[TrainingStep]:
    """Train the finder on crops with drawn damage, or resume from the newest checkpoint of the run folder.

    The photos, uint8 (H, W, 3) each, are two or more; some are only measured. What is said of `dcgan.train.train` holds
    here, too.
    """
    every = max(2, round(1 / _HELD_OUT))
    val, train = photos[::every], [photo for number, photo in enumerate(photos) if number % every]
    torch.manual_seed(config.seed)
    network = Finder().to(device).to(memory_format=torch.channels_last)
    optimiser = capturable_adam(network.parameters(), config.lr, (0.9, 0.99))
    inputs = RunInputs(digest(*photos), len(photos), machine(device))
    run = Run(folder, "damage", config, {"F": network, "optimiser": optimiser}, inputs)

    def losses(rng: np.random.Generator) -> dict[str, Tensor]:
        crops, holes = _batch(train, config.batch, rng)
        return finder_losses(network.logits(crops.to(device)), holes.to(device))

    def diagnose() -> dict[str, float]:
        crops, holes = _batch(val, _MEASURED, np.random.default_rng(0))
        found = torch.cat([network(part.to(device)) for part in crops.split(32)]).cpu()
        run.grid(_pictures(crops[:_SHOWN], holes[:_SHOWN], found[:_SHOWN]), columns=12)
        return score(zip(found.numpy() > 127, holes[:, 0].numpy() > 0, strict=True))

    yield from run.fit(network, losses, diagnose, _RISE)


def finder_losses(logits: Tensor, holes: Tensor) -> dict[str, Tensor]:
    """Cross-entropy, in which the pixels next to damage hardly count, and the Dice loss over the batch.

    Args:
        logits: (N, 1, S, S).
        holes: float (N, 1, S, S), 1 for damage.
    Source: Milletari et al. 2016, "V-Net", section 3, for the Dice loss.
    """
    beside = max_pool2d(holes, 3, 1, 1) - holes
    entropy = binary_cross_entropy_with_logits(logits, holes, 1 - 0.7 * beside)
    shares = logits.sigmoid() * (1 - beside)
    dice = 1 - 2 * (shares * holes).sum() / (shares.sum() + holes.sum() + 1)
    return {"entropy": entropy, "dice": dice}


def export_finder(folder: Path, path: Path) -> dict[str, Any]:
    """Write the finder of a run's newest checkpoint as an ONNX graph; see `dcgan.export.export_run`."""
    saved = load_run(folder, "damage")
    with restoring(folder):
        network = Finder()
        network.load_state_dict(saved["F"])
        metadata = training_record(saved, saved["config"]["batch"], {})
    inputs = {"tiles": torch.zeros(2, CROP_PX, CROP_PX, 3, dtype=torch.uint8)}
    axes = dict.fromkeys(("tiles", "found"), ("N", "H", "W"))
    write_graph(network.eval(), inputs, "found", axes, {"facts": json.dumps(metadata)}, path)
    return metadata


def _batch(photos: list[NDArray[np.uint8]], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Damaged crops, uint8 (N, S, S, 3), and where they are damaged, float (N, 1, S, S)."""
    drawn = [damaged(_crop(photos[rng.integers(len(photos))], rng), rng) for _ in range(count)]
    crops, holes = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    return crops, holes[:, None].float()


def _crop(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random part at a random scale, some flipped: uint8 (CROP_PX, CROP_PX, 3)."""
    side = min(*photo.shape[:2], round(CROP_PX / np.exp(rng.uniform(np.log(0.3), np.log(2.5)))))
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    how = cv2.INTER_AREA if side > CROP_PX else cv2.INTER_CUBIC
    crop = cv2.resize(photo[top : top + side, left : left + side], (CROP_PX, CROP_PX), interpolation=how)
    return np.ascontiguousarray(crop[:, :: 1 if rng.random() < 0.5 else -1], dtype=np.uint8)


def _pictures(crops: Tensor, holes: Tensor, found: Tensor) -> Tensor:
    """Crops, what is damaged, and what was found, one beside the other: (3 N, 3, S, S)."""
    masks = [(255 * mask).byte() if mask.is_floating_point() else mask for mask in (holes[:, 0], found)]
    rows = [crops, *(mask[..., None].expand_as(crops) for mask in masks)]
    return to_tensor(torch.stack(rows, dim=1).flatten(0, 1))
