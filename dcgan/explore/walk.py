"""Interpolate between random z: a generator that has memorised faces jumps between them, others change smoothly."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from align.cli import Progress
from dcgan.embeddings import embed
from dcgan.explore.files import Outputs, sheet
from dcgan.sampling import device_of, generate, lerp, sample_z, slerp
from dcgan.weights import Weights


def pixel_steps(faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Root mean square differences of consecutive images (N, S, S, 3), in levels of 255: (N - 1,)."""
    return np.sqrt(np.square(np.diff(faces.astype(np.float64), axis=0)).mean(axis=(1, 2, 3)))


def largest_step(steps: NDArray[np.float64]) -> float:
    """Ratio of the largest step to the mean step: 1 for an even walk, len(steps) for a single jump."""
    mean = float(steps.mean())
    return float(steps.max()) / mean if mean else 1.0


def run(weights: Weights, pairs: int, steps: int, seed: int) -> Iterator[Progress | Outputs]:
    """Interpolate between pairs of random z, spherically and linearly, and measure how smoothly the images change.

    Face embeddings are measured if the template of the weights is "face". walk.gif shows the spherical walks.
    """
    device = device_of(weights.generator)
    z = sample_z(2 * pairs, weights.generator.config, seed)
    rows: list[tuple[str, NDArray[np.uint8]]] = []
    figures: list[dict[str, float | str]] = []
    for pair, (start, end) in enumerate(zip(z[::2], z[1::2], strict=True)):
        for kind, path in (("spherical", slerp), ("linear", lerp)):
            faces = generate(weights.generator, path(start, end, steps))
            rows.append((f"{pair + 1} {kind}", faces))
            pixels = pixel_steps(faces)
            figure: dict[str, float | str] = {"walk": f"{pair + 1}", "kind": kind}
            figure |= {"mean_step_levels": float(pixels.mean()), "largest_step_pixels": largest_step(pixels)}
            if weights.template == "face":
                apart = np.linalg.norm(np.diff(embed(faces, device=device), axis=0), axis=1)
                figure |= {"mean_step_embedding": float(apart.mean()), "largest_step_embedding": largest_step(apart)}
            figures.append(figure)
        yield Progress("walks", pair + 1, pairs)
    numbers = {"steps": steps - 1, "a_jump_would_be": steps - 1, "summary": _summary(figures), "walks": figures}
    frames = [np.hstack([faces[step] for _, faces in rows[::2]]) for step in range(steps)]
    yield {"walk.png": sheet(rows), "walk.gif": np.stack(frames), "walk.json": numbers}


def _summary(figures: list[dict[str, float | str]]) -> dict[str, dict[str, float]]:
    """Median and maximum over the walks of each kind."""
    found = {}
    for kind in ("spherical", "linear"):
        for name in figures[0].keys() - {"walk", "kind"}:
            values = [float(figure[name]) for figure in figures if figure["kind"] == kind]
            found[f"{kind} {name}"] = {"median": float(np.median(values)), "max": max(values)}
    return dict(sorted(found.items()))
