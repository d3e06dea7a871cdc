"""Find the training faces nearest to samples, to see whether G has memorised them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align.cli import Progress, say
from dcgan.dataset import DatasetError, load_faces
from dcgan.embeddings import embed
from dcgan.evaluate import thumbnails
from dcgan.explore.files import Outputs, sheet
from dcgan.metrics import nearest_few
from dcgan.sampling import device_of, generate, in_parts, sample_z
from dcgan.weights import Weights

_SHOWN = 5


def run(weights: Weights, faces: Path, count: int, described: int, seed: int) -> Iterator[Progress | Outputs]:
    """Find the nearest training faces of samples, by face embeddings and by pixels; the picture shows training faces.

    Pixels are compared as 16x16 thumbnails, see `dcgan.evaluate.thumbnails`, with flipped faces included. Only some
    faces, drawn at random, are compared by embedding, which takes most of the time.

    Raises:
        DatasetError: there are too few training faces.
        EmbeddingError: face embeddings do not support the alignment template.
        LandmarkModelError: the file of the embedding network is absent or broken.
    """
    training = load_faces(faces, weights.size, say)
    if len(training) < _SHOWN:
        raise DatasetError(f"found {len(training)} training faces; expected at least {_SHOWN}")
    device = device_of(weights.generator)
    samples = generate(weights.generator, sample_z(count, weights.generator.config, seed))
    searched = training[np.random.default_rng(seed).permutation(len(training))[:described]]

    def features(faces: NDArray[np.uint8]) -> NDArray[np.float64]:
        return embed(faces, weights.template, device)

    own = features(samples)
    found = yield from in_parts("embed training faces", searched, features)
    by_face, face_index = nearest_few(own, found, _SHOWN)
    both = np.concatenate([thumbnails(training), thumbnails(training[:, :, ::-1])])
    by_pixels, pixel_index = nearest_few(thumbnails(samples), both, _SHOWN)
    rows = [
        (f"sample {index}", np.concatenate([sample[None], searched[face_index[index]], _flipped(training, pixels)]))
        for index, (sample, pixels) in enumerate(zip(samples, pixel_index, strict=True))
    ]
    columns = ["sample", *(f"{by} {rank + 1}" for by in ("face", "pixels") for rank in range(_SHOWN))]
    numbers = {
        "searched_by_embedding": len(searched),
        "searched_by_pixels": len(training),
        "embedding_distance": _summary(by_face),
        "pixel_distance_levels": _summary(by_pixels),
    }
    yield {"neighbours.png": sheet(rows, columns), "neighbours.json": numbers}


def _flipped(training: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The faces of these indices, those from len(training) on flipped horizontally."""
    flip = (indices >= len(training))[:, None, None, None]
    faces = training[indices % len(training)]
    return np.where(flip, faces[:, :, ::-1], faces)


def _summary(distances: NDArray[np.float64]) -> dict[str, float | list[float]]:
    """Summarise distances (N, k), the nearest first; a memorised face is far nearer than the others."""
    return {
        "least": float(distances[:, 0].min()),
        "median": float(np.median(distances[:, 0])),
        "least_share_of_fifth": float((distances[:, 0] / distances[:, -1].clip(min=1e-12)).min()),
        "nearest": distances[:, 0].round(4).tolist(),
    }
