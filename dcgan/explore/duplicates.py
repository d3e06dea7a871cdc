"""Find near-duplicates in a folder of faces by the binary codes of an autoencoder."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.functional import mse_loss, unfold

from align.cli import Progress, say
from align.warp import Alignment
from dcgan.dataset import load_named_faces
from dcgan.explore.files import Outputs, sheet

_CROP, _SIDE_PX, _BITS = 0.75, 32, 128
_DROPOUT, _BATCH, _LR = 0.2, 128, 1e-3
_SHIFT_PX = 1  # largest random shift in training, of 32 px
_RADIUS = 20  # bits in which the codes of duplicates may differ
_CANDIDATE = 0.8  # least correlation of two crops, checked first since it is fast
_ALIKE = 0.96  # least correlation of two images at the best shift
_ROWS = 256  # rows per block of a distance table
_SHOWN, _ACROSS = 12, 6  # groups, and members of each, in the picture


class Autoencoder(nn.Module):
    """Denoising autoencoder, 3072-128-3072 with ReLU; the noise is dropout and a small shift.

    Batch norm makes each hidden unit positive for about half of the crops; without it, most bits would be constant.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = 3 * _SIDE_PX**2
        self.encode = nn.Sequential(
            nn.Dropout(_DROPOUT), nn.Linear(inputs, _BITS), nn.BatchNorm1d(_BITS, affine=False), nn.ReLU()
        )
        self.decode = nn.Linear(_BITS, inputs)

    def forward(self, crops: Tensor) -> Tensor:
        """Reconstruct crops (N, 3072) from noisy ones."""
        return self.decode(self.encode(crops))


def centre_crops(faces: NDArray[np.uint8]) -> Tensor:
    """Resize the middle three quarters of faces (N, S, S, 3) to 32x32: float32 (N, 3072).

    Each row has mean 0 and standard deviation 1, so that brightness and contrast do not matter.
    """
    edge = round(faces.shape[1] * (1 - _CROP) / 2)
    inner = faces[:, edge : faces.shape[1] - edge, edge : faces.shape[2] - edge]
    small = np.stack([cv2.resize(face, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA) for face in inner])
    return _standardised(torch.from_numpy(small).flatten(1).float())


def learn(crops: Tensor, epochs: int, seed: int) -> Generator[Progress, None, Autoencoder]:
    """Train an autoencoder on crops (N, 3072). Yields Progress, and returns the network in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder()
        adam = torch.optim.Adam(network.parameters(), _LR)
        for epoch in range(epochs):
            yield Progress("train the autoencoder", epoch, epochs)
            for part in torch.randperm(len(crops)).split(_BATCH):
                adam.zero_grad()
                shift = torch.randint(-_SHIFT_PX, _SHIFT_PX + 1, (2,)).tolist()
                mse_loss(network(_moved(crops[part], *shift)), crops[part]).backward()
                adam.step()
    return network.eval().requires_grad_(False)


def _moved(crops: Tensor, down: int, right: int) -> Tensor:
    """Shift crops (N, 3072) by pixels, with wrap-around."""
    return crops.view(-1, _SIDE_PX, _SIDE_PX, 3).roll((down, right), (1, 2)).flatten(1)


def codes(network: Autoencoder, crops: Tensor) -> NDArray[np.uint64]:
    """Compute the codes of crops (N, 3072), one bit per hidden unit above 0: uint64 (N, 2)."""
    with torch.inference_mode():
        bits = network.encode(crops) > 0
    return np.packbits(bits.numpy(), axis=1).view(np.uint64)


def near_pairs(a: NDArray[np.uint64], b: NDArray[np.uint64], radius: int) -> NDArray[np.int64]:
    """Find the rows i of a (N, 2) and j of b (M, 2) whose codes differ in at most `radius` bits: int64 (P, 2).

    All pairs are compared, which takes seconds for 31,000 codes with themselves.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for begin in range(0, len(a), _ROWS):
        part = a[begin : begin + _ROWS, None]
        apart = np.bitwise_count(part[..., 0] ^ b[:, 0])  # uint8 (256, M)
        apart += np.bitwise_count(part[..., 1] ^ b[:, 1])
        i, j = np.nonzero(apart <= radius)
        found.append(np.stack([i + begin, j], axis=1))
    return np.concatenate(found)


def run(faces: Path, size: int, epochs: int, planted: int, seed: int) -> Iterator[Progress | Outputs]:
    """Find groups of images of the same photo, flipped or not; duplicates.txt lists all but the first of each group.

    Images with similar codes are candidates; they are duplicates if the images also correlate. Altered copies that
    are planted to measure the recall are not listed.

    Source: Radford et al., ICLR 2016, section 4.1.1.
    """
    names, images = load_named_faces(faces, size, say)
    crops = centre_crops(images)
    network = yield from learn(crops, epochs, seed)
    yield Progress("compare", 0, 1)
    known = _Known(crops, codes(network, crops), _grey(images))
    pairs = _matches(network, images, known)
    groups = connected_groups(pairs[pairs[:, 0] != pairs[:, 1]], len(images))
    numbers: dict[str, Any] = {
        "images": len(images),
        "groups": [[names[index] for index in group] for group in groups],
        "left_out": sum(len(group) - 1 for group in groups),
    }
    if planted:
        yield Progress("planted copies", 0, 1)
        numbers["planted"] = _planted(network, known, images, pairs, planted, seed)
    rows = [(f"{number + 1}", images[group[:_ACROSS]]) for number, group in enumerate(groups[:_SHOWN])]
    yield {
        "duplicates.png": sheet(rows or [("no duplicates", images[:1])]),
        "duplicates.txt": [names[index] for group in groups for index in group[1:]],
        "duplicates.json": numbers,
    }


@dataclass(frozen=True)
class _Known:
    """Faces of the folder: crops (N, 3072), their codes (N, 2), and the whole images in grey (N, S, S)."""

    crops: Tensor
    codes: NDArray[np.uint64]
    grey: Tensor


def _matches(network: Autoencoder, copies: NDArray[np.uint8], faces: _Known) -> NDArray[np.int64]:
    """Pairs of copies (N, S, S, 3), flipped or not, and faces of the same photo: int64 (P, 2)."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for these in (copies, copies[:, :, ::-1]):
        crops, grey = centre_crops(these), _grey(these)
        pairs = near_pairs(codes(network, crops), faces.codes, _RADIUS)
        rows, starts = np.unique(pairs[:, 0], return_index=True)
        for row, others in zip(rows, np.split(pairs[:, 1], starts[1:]), strict=False):
            near = others[((faces.crops[others] @ crops[row]) / crops.shape[1] >= _CANDIDATE).numpy()]
            if not len(near):
                continue
            alike = near[(best_correlation(grey[row], faces.grey[near]) >= _ALIKE).numpy()]
            found.append(np.stack([np.full_like(alike, row), alike], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _grey(faces: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(faces.mean(axis=3, dtype=np.float32))


def best_correlation(image: Tensor, others: Tensor) -> Tensor:
    """Correlation of the middle of a grey image (S, S) with that of others (M, S, S), at the best small shift: (M,)."""
    side, reach = len(image), len(image) // 32
    edge = side // 8
    around, inner = slice(edge - reach, side - edge + reach), slice(edge, side - edge)
    windows = unfold(image[None, around, around], side - 2 * edge)  # (K, shifts)
    middles = others[:, inner, inner].flatten(1)  # (M, K)
    return (_standardised(middles) @ _standardised(windows.T).T / len(windows)).amax(dim=1)


def _standardised(rows: Tensor) -> Tensor:
    """Normalise to mean 0 and standard deviation 1 along dimension 1."""
    rows = rows - rows.mean(dim=1, keepdim=True)
    return rows / rows.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)


def connected_groups(pairs: NDArray[np.int64], count: int) -> list[list[int]]:
    """Groups of images connected by pairs (P, 2), the largest first, without single images."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, label = connected_components(links, directed=False)
    members: dict[int, list[int]] = {}
    for index in np.unique(pairs).tolist():
        members.setdefault(int(label[index]), []).append(index)
    return sorted(members.values(), key=len, reverse=True)


def altered(faces: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """Alter faces (N, S, S, 3) as copies of photos are; `kind` is one of KINDS."""
    if kind == "mirrored":
        return faces[:, :, ::-1]
    if kind == "brighter":
        return (faces * 1.25).clip(0, 255).astype(np.uint8)
    if kind == "jpeg":
        packed = [cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 50])[1] for face in faces]
        return np.array([cv2.imdecode(data, cv2.IMREAD_COLOR) for data in packed], dtype=np.uint8)
    by = float(kind.split()[1])
    shift = Alignment(np.array([[1, 0, by], [0, 1, by]]), faces.shape[1])
    return np.stack([shift.warp(face) for face in faces])


KINDS = ("shift 1 px", "shift 2 px", "jpeg", "brighter", "mirrored")


def _planted(
    network: Autoencoder, known: _Known, faces: NDArray[np.uint8], pairs: NDArray[np.int64], count: int, seed: int
) -> dict[str, dict[str, float]]:
    """For each kind of copy, the share whose original is found, and the share taken for another image."""
    chosen = np.random.default_rng(seed).permutation(len(faces))[:count]
    same = {(int(i), int(j)) for i, j in pairs} | {(int(index), int(index)) for index in chosen}
    found = {}
    for kind in KINDS:
        matched = _matches(network, altered(faces[chosen], kind), known)
        partners = [(int(chosen[i]), int(j)) for i, j in matched]
        found[kind] = {
            "found": len({i for i, j in partners if i == j}) / len(chosen),
            "taken_for_another": len({pair[0] for pair in partners if pair not in same}) / len(chosen),
        }
    return found
