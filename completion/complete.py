"""From a photo with a hole to the completed photo: find the faces, search, paste back, blend."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.errors import NoFaceError
from align.template import TEMPLATES
from align.warp import footprint, invert, paste, warp
from completion.blend import blend, grain, inpaint, match_means
from completion.config import Solver
from completion.solve import Step, resolve, solve
from dcgan.checkpoint import Weights, WeightsError
from dcgan.tensors import to_image

_POOL = 8  # candidates for each one that is shown; of these the better quarter takes part
_GRAIN_REACH = 4  # pixels of the crop around a hole in which the photo's grain is measured
_STRAY = 0.05  # share of a hole that a brush leaves beside the faces; more is looked into


@dataclass(frozen=True)
class Completion:
    """A completed photo.

    Attributes:
        pixels: uint8 (H, W, 3); outside the hole the photo's own bytes.
        others: as `pixels`, further completions that differ, the likelier first.
        sources: bool (H, W) each, by where the pixels of the hole come from: "face 1", "face 2" and so on, and
            "surroundings" for what no face's crop covers, filled by a classical method. None is empty.
        hidden: faces that were found only with the help of what lies under the hole.
        context: the search's final context loss, a mean over the faces.
        stopped: the time was over before the search was.
    """

    pixels: NDArray[np.uint8]
    others: tuple[NDArray[np.uint8], ...]
    sources: dict[str, NDArray[np.bool_]]
    hidden: int
    context: float
    stopped: bool


@dataclass(frozen=True)
class Progress:
    """One step of one face's search.

    Attributes:
        face: which face, from 0.
        faces: how many there are.
        step: of the search.
        steps: how many steps each face takes.
        matrix: float64 (2, 3), photo -> crop.
        crop: uint8 (S, S, 3), the aligned face, its hole filled classically.
        hole: bool (S, S), the hole in the crop's frame.
    """

    face: int
    faces: int
    step: Step
    steps: int
    matrix: NDArray[np.float64]
    crop: NDArray[np.uint8]
    hole: NDArray[np.bool_]

    @property
    def preview(self) -> NDArray[np.uint8]:
        """The best candidate so far in the crop's hole, not blended: uint8 (S, S, 3)."""
        return np.where(self.hole[..., None], self.step.previews[0], self.crop)


class FaceCompleter:
    """Completes photos with one set of weights; numpy in, numpy out.

    Args:
        weights: trained networks.
        solver: "fast", a name in completion.solve.SOLVERS, or a Solver.
        blend: a name in completion.blend.BLENDS.
        prior_weight: of the prior loss, in place of the solver's own.
    Raises:
        WeightsError: the weights want faces aligned in a way that is unknown here, or lack the solver's encoder.
    """

    def __init__(
        self,
        weights: Weights,
        solver: str | Solver = "fast",
        blend: str = "poisson",
        prior_weight: float | None = None,
    ) -> None:
        if weights.template not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise WeightsError(f"the weights are for faces aligned as {weights.template!r}, not one of {known}")
        self.weights = weights
        resolve(solver, weights)  # an encoder that is absent is told of now, not after a batch of failures
        self.solver = solver
        self.blend = blend
        self.prior_weight = prior_weight
        self.size = weights.generator.config.size
        self.template = TEMPLATES[weights.template]

    def locate(self, pixels: NDArray[np.uint8], every: bool = False) -> list[NDArray[np.float64]]:
        """The faces of a photo, largest first, each as the (2, 3) matrix photo -> crop.

        A photo of just the weights' size is an aligned face itself.

        Args:
            pixels: uint8 (H, W, 3).
            every: look for the small faces of a large photo, too.
        Raises:
            NoFaceError: none is found.
        """
        if pixels.shape[:2] == (self.size, self.size):
            return [np.eye(2, 3)]
        matrices = place.find_matrices(pixels, self.template, self.size, every)
        if not matrices:
            raise NoFaceError(
                "no face was found; say where it is (--landmarks, --box or --eyes), "
                f"or give an aligned face of {self.size}x{self.size}, which needs no finding"
            )
        return matrices

    def named_hole(
        self, pixels: NDArray[np.uint8], mask: str, matrices: Sequence[NDArray[np.float64]], seed: int = 0
    ) -> NDArray[np.bool_]:
        """The hole that a mask's name means on a photo's faces.

        Args:
            pixels: uint8 (H, W, 3).
            mask: see completion.masks.named_hole.
            matrices: of `locate`, the faces to make holes in.
            seed: of the masks that are random.
        Returns:
            bool (H, W).
        Raises:
            MaskError: there is no such mask.
        """
        height, width = pixels.shape[:2]
        hole = np.zeros((height, width), dtype=bool)
        for matrix in matrices:
            landmarks = place.features(pixels, matrix, self.size) if masks.needs_landmarks(mask) else None
            in_crop = masks.named_hole(mask, self.size, np.random.default_rng(seed), landmarks)
            covered = footprint((height, width), matrix, self.size)
            ys, xs = np.nonzero(covered)
            u, v = np.round(matrix @ np.stack([xs, ys, np.ones(len(xs))])).astype(int)  # nearest neighbour
            hole[ys, xs] |= in_crop[v, u]
        return hole

    def complete(
        self,
        pixels: NDArray[np.uint8],
        hole: NDArray[np.bool_],
        matrices: Sequence[NDArray[np.float64]] | None = None,
        seed: int = 0,
        lowres: bool = False,
        candidates: int = 1,
        seconds: float | None = None,
    ) -> Iterator[Progress | Completion]:
        """Fill a hole in a photo.

        Args:
            pixels: uint8 (H, W, 3), upright; never written to. No colour under the hole is used, but for `lowres`.
            hole: bool (H, W), True = fill this.
            matrices: the faces, from `locate` or completion.place. Without them they are looked for in what is known
                of the photo, and only where the hole reaches far beyond those in the photo as it is.
            seed: of the search.
            lowres: the means of blocks of 4x4 of the aligned face are known though the hole covers it.
            candidates: how many different completions to give, the best among them.
            seconds: after so many no face is searched any further, and the best found so far is taken; None for no
                limit.
        Yields:
            Progress for every step, then the Completion.
        Raises:
            MaskError: the hole is empty or of another size than the photo.
            NoFaceError: there is no face under the hole.
        """
        if hole.shape != pixels.shape[:2]:
            raise masks.MaskError(f"the hole is {hole.shape[::-1]}, the photo {pixels.shape[1::-1]}: give one size")
        if not hole.any():
            raise masks.MaskError("the hole is empty: there is nothing to fill; mark the pixels to fill white")
        known = inpaint(pixels, hole)
        hidden = 0
        if matrices is None:
            matrices, hidden = self._under(hole, known, pixels)
        owner = self._owners(hole, matrices)
        if (owner < 0).all():
            raise NoFaceError(
                "no face was found under the hole; mark part of one, say where it is (--landmarks, --box or --eyes), "
                f"or give an aligned face of {self.size}x{self.size}, which needs no finding"
            )
        touched = [matrix for index, matrix in enumerate(matrices) if (owner == index).any()]
        owner = self._owners(hole, touched)
        block = masks.LOWRES_SCALE if lowres else 1
        solver = self._settings(block)
        if candidates > 1:
            pool = _POOL * candidates
            solver = replace(solver, restarts=max(solver.restarts, pool), draws=max(solver.draws, pool))
        ends, stopped = math.inf if seconds is None else time.monotonic() + seconds, False
        fills, contexts = [known] * candidates, []
        sources = {}
        for number, matrix in enumerate(touched):
            part = np.zeros_like(hole)
            part[hole] = owner == number
            sources[f"face {number + 1}"] = part
            scale = 1 / float(np.linalg.norm(matrix[:, :2], ord=2))  # a pixel of the crop in the photo's
            crop = warp(known, matrix, self.size)
            in_crop = self._hole_in_crop(hole, matrix)
            source = warp(pixels, matrix, self.size) if lowres else crop
            for step in solve(self.weights, source[None], in_crop[None], solver, seed, block):
                yield Progress(number, len(touched), step, solver.steps, matrix, crop, in_crop)
                if time.monotonic() > ends:
                    break
            stopped |= step.number < solver.steps
            contexts.append(float(step.context[0, step.best[0]]))
            for index, face in enumerate(_different(step, torch.from_numpy(in_crop), candidates)):
                face = match_means(face, source, block) if lowres else face
                generated = paste(known, face, matrix, beyond_px=2)  # blending looks one pixel past the hole
                fills[index] = blend(fills[index], generated, part, self.blend)
                if scale > 1 and self.blend != "none":
                    fills[index] = grain(fills[index], part, hole, _GRAIN_REACH * scale, seed)
        if (owner < 0).any():
            sources["surroundings"] = np.zeros_like(hole)
            sources["surroundings"][hole] = owner < 0
        best, *others = (np.where(hole[..., None], fill, pixels) for fill in fills)
        yield Completion(best, tuple(others), sources, hidden, float(np.mean(contexts)), stopped)

    def complete_crops(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], seed: int = 0) -> NDArray[np.uint8]:
        """Fill holes in many aligned faces at once, as `complete` does in one.

        Args:
            crops: uint8 (N, S, S, 3).
            holes: bool (N, S, S).
            seed: of the search.
        Returns:
            uint8 (N, S, S, 3).
        """
        known = np.stack([inpaint(crop, hole) for crop, hole in zip(crops, holes, strict=True)])
        *_, step = solve(self.weights, known, holes, self._settings(), seed)
        made = zip(known, step.previews, holes, strict=True)
        return np.stack([blend(crop, face, hole, self.blend) for crop, face, hole in made])

    def _settings(self, block: int = 1) -> Solver:
        solver = resolve(self.solver, self.weights, block)
        return solver if self.prior_weight is None else replace(solver, prior_weight=self.prior_weight)

    def _under(
        self, hole: NDArray[np.bool_], known: NDArray[np.uint8], pixels: NDArray[np.uint8]
    ) -> tuple[list[NDArray[np.float64]], int]:
        """The faces of a photo that a hole may lie on, and how many of them show only in the photo as it is."""
        if pixels.shape[:2] == (self.size, self.size):
            return [np.eye(2, 3)], 0
        found: list[NDArray[np.float64]] = []
        hidden = 0
        # A face that the hole covers cannot be found in what is left. Of what lies under the hole only this is used,
        # where the face is.
        for photo, find in (
            (known, place.find_upright),
            (pixels, place.find_upright),
            (known, place.find_hard),
            (pixels, place.find_hard),
        ):
            rest = hole.copy()
            rest[hole] = self._owners(hole, found) < 0
            if rest.sum() <= _STRAY * hole.sum():
                break
            for matrix in find(photo, self.template, self.size):
                new = not place.is_among(matrix, found, self.size)
                if new and (self._owners(rest, [matrix]) >= 0).any():
                    found.append(matrix)
                    hidden += photo is pixels
        return found, hidden

    def _owners(self, hole: NDArray[np.bool_], matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.intp]:
        """The face that each pixel of a hole lies on, by the nearest crop; -1 outside all crops: (pixels,)."""
        y, x = np.nonzero(hole)
        middle = (self.size - 1) / 2
        nearest, owner = np.full(len(x), middle + 1e-6), np.full(len(x), -1)  # slack for what rounding takes
        for index, matrix in enumerate(matrices):
            u, v = (row[0] * x + row[1] * y + row[2] - middle for row in matrix)
            distance = np.maximum(np.abs(u), np.abs(v))
            owner[distance < nearest] = index
            nearest = np.minimum(nearest, distance)
        return owner

    def _hole_in_crop(self, hole: NDArray[np.bool_], matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Every pixel of the crop that the hole has a part in, or that lies beyond the photo's edge: bool (S, S)."""
        if np.array_equal(matrix, np.eye(2, 3)):
            return hole
        share = warp(np.where(hole, 255, 0).astype(np.uint8), matrix, self.size)
        v, u = np.mgrid[: self.size, : self.size].reshape(2, -1)
        x, y = invert(matrix) @ np.stack([u, v, np.ones(u.size)])
        beyond = (x < -0.5) | (x > hole.shape[1] - 0.5) | (y < -0.5) | (y > hole.shape[0] - 0.5)
        return (share > 0) | beyond.reshape(share.shape)


def _different(step: Step, hole: Tensor, count: int) -> list[NDArray[np.uint8]]:
    """The best candidate for one face, and then always the one that is farthest from those taken already.

    Args:
        step: the last one of a search.
        hole: bool (S, S), where they are compared.
        count: how many to take.
    Returns:
        uint8 (S, S, 3) each.
    """
    order = step.total[0].argsort(stable=True)
    order = order[: max(count, len(order) // 4)]
    images = step.images[0, order]
    inside = images[..., hole.to(images.device)].flatten(1)
    distances = (inside[:, None] - inside[None]).abs().mean(dim=2)
    taken = [0]
    while len(taken) < min(count, len(order)):
        taken.append(int(distances[:, taken].amin(dim=1).argmax()))
    return list(to_image(images[sorted(taken)]))
