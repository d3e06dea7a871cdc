"""Face embeddings: dlib's face recognition network in torch, 15 times as fast as in dlib's wheel."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad, relu

from align.embedding import MODEL_FILE, chip_alignment
from align.errors import InputError, LandmarkModelError
from align.landmarks import model_path

# dlib's input layer subtracts the mean colour and divides.
_MEAN, _DIVISOR = (122.782, 117.001, 104.298), 256.0
# Residual blocks from the input on: channels, and whether the block halves the sides.
_BLOCKS = (
    *((32, False),) * 3,
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False)),
    (256, True),
)
_BATCH = 32


class EmbeddingError(InputError):
    """Faces have another alignment template than the network needs."""


def embed(crops: NDArray[np.uint8], template: str = "face", device: torch.device | str = "cpu") -> NDArray[np.float64]:
    """Compute the face embeddings of aligned crops uint8 (N, S, S, 3), float64 (N, 128); no face detector runs.

    Below a distance of 0.6, two faces are of one person.

    Raises:
        EmbeddingError: the template is not "face".
        LandmarkModelError: the network's file is absent or broken.
    Source: King, "Dlib-ml", JMLR 2009; the network is that of dlib's examples/dnn_face_recognition_ex.cpp.
    """
    if template != "face":
        raise EmbeddingError(f"the faces have the template {template!r}; face embeddings need 'face', align them again")
    chip = chip_alignment(crops.shape[1])
    layers = [layer.to(device) for layer in network_layers()]
    found = [np.empty((0, 128))]
    for begin in range(0, len(crops), _BATCH):
        chips = np.stack([chip.warp(crop) for crop in crops[begin : begin + _BATCH]])
        with torch.inference_mode():
            found.append(_run(torch.from_numpy(chips).to(device), layers).double().cpu().numpy())
    return np.concatenate(found)


def _run(chips: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """Map chips uint8 (N, 150, 150, 3) to embeddings float32 (N, 128)."""
    rest = iter(layers)

    def convolve(images: Tensor, stride: int = 1) -> Tensor:
        weight, bias = next(rest), next(rest)
        return conv2d(images, weight, bias, stride, padding=weight.shape[-1] // 2 if stride == 1 else 0)

    images = (chips.permute(0, 3, 1, 2) - torch.tensor(_MEAN, device=chips.device)[:, None, None]) / _DIVISOR
    images = max_pool2d(relu(convolve(images, stride=2)), 3, 2)  # (N, 32, 35, 35)
    for channels, halve in _BLOCKS:
        change = convolve(relu(convolve(images, stride=2 if halve else 1)))
        if halve:
            # dlib pads the smaller of two summands with zeros, channels included.
            images = avg_pool2d(images, 2)
            side = max(images.shape[-1], change.shape[-1])
            images, change = (
                pad(part, (0, side - part.shape[-1]) * 2 + (0, channels - part.shape[1])) for part in (images, change)
            )
        images = relu(images + change)
    return images.mean(dim=(2, 3)) @ next(rest)  # (N, 256) to (N, 128)


@cache
def network_layers() -> list[Tensor]:
    """Read weight and bias of every convolution, and the last matrix, from dlib's file.

    The file has the tensors in the order of the network, with other values in between. A tensor is the version 2, its
    four sizes, each as a number of bytes and the bytes, and little-endian floats. All sizes are known, so each tensor
    is found by searching for its header.
    """
    path = model_path(MODEL_FILE)
    data, at = path.read_bytes(), 0

    def take(*sizes: int) -> Tensor:
        nonlocal at
        lengths = [(size.bit_length() + 7) // 8 for size in sizes]
        packed = [bytes([n]) + size.to_bytes(n, "little") for n, size in zip(lengths, sizes, strict=True)]
        head = b"\x01\x02" + b"".join(packed)
        begin = data.index(head, at) + len(head)
        values = np.frombuffer(data, "<f4", sizes[0] * sizes[1], begin)
        at = begin + values.nbytes
        return torch.from_numpy(values.astype(np.float32))

    layers, before = [], 3
    try:
        for channels, kernel in [(32, 7), *((channels, 3) for channels, _ in _BLOCKS for _ in range(2))]:
            count = channels * before * kernel**2
            weight, bias = take(count + channels, 1, 1, 1).split([count, channels])
            scale, shift = take(2 * channels, 1, 1, 1).chunk(2)  # batch norm, frozen
            layers += [weight.view(channels, before, kernel, kernel) * scale[:, None, None, None], bias * scale + shift]
            before = channels
        return [*layers, take(256, 128, 1, 1).view(256, 128)]
    except ValueError as error:
        raise LandmarkModelError(
            f"the file {path.name} is broken; run: pip install --force-reinstall face_recognition_models"
        ) from error
