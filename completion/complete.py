"""From a photo with a hole to the completed photo: find the faces, search, paste back, blend."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align import locate
from align.errors import NoFaceError
from align.landmarks import find_landmarks
from align.template import TEMPLATES
from align.warp import Alignment, fit, transform
from completion import holes
from completion.blend import blend, grain, inpaint, match_means, surroundings
from completion.config import Solver
from completion.solve import Step, resolve, solve
from dcgan.checkpoint import Weights, WeightsError, load_fitting
from dcgan.tensors import to_image
from weights import AUTO

_POOL = 16  # candidates drawn for each one that is shown
_AGREES = 1.1  # context loss of a candidate that is shown, as a multiple of the best one's
_GRAIN_REACH = 4  # pixels of the crop around a hole in which the photo's grain is measured
_ENLARGED = 1.25  # how far weights may be enlarged before larger ones are taken
_FINEST_PX = 2048  # largest side at which a named hole is drawn
_WIDE_PX = 20  # parts of a hole beside the faces that are wider get structure, not only colour
_THIN, _SCRATCHED = 0.015, 0.3  # half the width of a scratch by the crop's side; most of a crop that scratches cover
_COVERED, _REFINEMENTS = 0.1, 2  # share of a crop under the hole from which its place is refined, and how often
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
class SearchStep:
    """One step of one face's search.

    Attributes:
        face: which face, from 0.
        faces: how many there are.
        step: of the search.
        steps: how many steps each face takes.
        alignment: photo -> crop.
        crop: uint8 (S, S, 3), the aligned face, its hole filled classically.
        hole: bool (S, S), the hole in the crop's frame.
    """

    face: int
    faces: int
    step: Step
    steps: int
    alignment: Alignment
    crop: NDArray[np.uint8]
    hole: NDArray[np.bool_]

    @property
    def preview(self) -> NDArray[np.uint8]:
        """The best candidate so far in the crop's hole, not blended: uint8 (S, S, 3)."""
        return np.where(self.hole[..., None], self.step.previews[0], self.crop)


class FaceCompleter:
    """Completes photos; numpy in, numpy out.

    Args:
        weights: trained networks; of several, each face gets those that fit its size in the photo.
        solver: "fast", a name in completion.config.SOLVERS, or a Solver.
        blend: a name in completion.config.BLENDS.
        prior_weight: of the prior loss, in place of the solver's own.
    Raises:
        WeightsError: the weights want faces aligned in a way that is unknown here, or in different ways, or lack the
            solver's encoder.
    """

    def __init__(
        self,
        weights: Weights | Sequence[Weights],
        solver: str | Solver = "fast",
        blend: str = "poisson",
        prior_weight: float | None = None,
    ) -> None:
        several = [weights] if isinstance(weights, Weights) else weights
        self.weights = {each.generator.config.size: each for each in sorted(several, key=_size)}
        templates = sorted({each.template for each in several})
        if len(templates) > 1 or templates[0] not in TEMPLATES:
            raise WeightsError(
                f"the weights are for faces aligned as {' and '.join(map(repr, templates))}, "
                f"expected one of {', '.join(TEMPLATES)}"
            )
        for each in several:
            resolve(solver, each)  # a missing encoder is reported now, not after a batch of failures
        self.solver = solver
        self.blend = blend
        self.prior_weight = prior_weight
        self.size = max(self.weights)
        self.template = TEMPLATES[templates[0]]

    @classmethod
    def load(cls, weights: str = AUTO, device: str = "auto", *args: Any, **settings: Any) -> "FaceCompleter":
        """Load weights and make a completer.

        Args:
            weights: a name in the registry, a file, or "auto", with which each face gets what fits its size.
            device: auto, cpu, cuda or cuda:N.
            args: as for the class, from `solver` on.
            settings: likewise.
        Raises:
            WeightsError, DeviceError: the weights or the device cannot be used.
        """
        return cls(load_fitting(weights, device), *args, **settings)

    def locate(self, pixels: NDArray[np.uint8], every: bool = False) -> list[Alignment]:
        """The faces of a photo, the largest first, each as a crop of the size of the weights that fit it.

        A photo of just the weights' size is an aligned face itself.

        Args:
            pixels: uint8 (H, W, 3).
            every: look for the small faces of a large photo, too.
        Raises:
            NoFaceError: none is found.
        """
        if aligned := self._aligned(pixels):
            return aligned
        faces = [self._fitted(face) for face in locate.locate(pixels, self.template, self.size, every)]
        if not faces:
            raise NoFaceError(
                "no face was found; say where it is (landmarks, box or eyes), "
                f"or give an aligned face of {self.size}x{self.size}, which needs no finding"
            )
        return faces

    def named_hole(
        self, pixels: NDArray[np.uint8], mask: str, faces: Sequence[Alignment], seed: int = 0
    ) -> NDArray[np.bool_]:
        """The hole that a mask's name means on a photo's faces, its outline as fine as the photo.

        Args:
            pixels: uint8 (H, W, 3).
            mask: see completion.holes.named_hole.
            faces: of `locate`, those to make holes in.
            seed: of the masks that are random.
        Returns:
            bool (H, W).
        Raises:
            MaskError: there is no such mask.
        """
        height, width = pixels.shape[:2]
        hole = np.zeros((height, width), dtype=bool)
        for face in faces:
            drawn = face  # holes made of the crop's pixels keep their size, the others are drawn as fine as the photo
            if not holes.is_lattice(mask):
                drawn = face.resized(min(_FINEST_PX, max(face.size, round(face.size / face.scale))))
            landmarks = find_landmarks(pixels, face) if holes.needs_landmarks(mask) else None
            if landmarks is not None:
                landmarks = drawn.apply(transform(face.inverse, landmarks))
            in_crop = holes.named_hole(mask, drawn.size, np.random.default_rng(seed), landmarks)
            ys, xs = np.nonzero(face.footprint((height, width)))
            u, v = np.round(drawn.apply(np.stack([xs, ys], axis=1))).astype(int).T  # nearest neighbour
            hole[ys, xs] |= in_crop[v, u]
        return hole

    def complete(
        self,
        pixels: NDArray[np.uint8],
        hole: NDArray[np.bool_],
        faces: Sequence[Alignment] | None = None,
        seed: int = 0,
        lowres: bool = False,
        candidates: int = 1,
        seconds: float | None = None,
    ) -> Iterator[SearchStep | Completion]:
        """Fill a hole in a photo.

        Args:
            pixels: uint8 (H, W, 3), upright; never written to. No colour under the hole is used, but for `lowres`.
            hole: bool (H, W), True = fill this.
            faces: from `locate` or align.locate. Without them they are looked for in what is known
                of the photo, and only where the hole reaches far beyond those in the photo as it is.
            seed: of the search.
            lowres: the means of blocks of 4x4 of the aligned face are known though the hole covers it.
            candidates: how many different completions to give, the best among them.
            seconds: after so many no face is searched any further, and the best found so far is taken; None for no
                limit.
        Yields:
            SearchStep for every step, then the Completion.
        Raises:
            MaskError: the hole is empty or of another size than the photo.
            NoFaceError: there is no face under the hole.
        """
        if hole.shape != pixels.shape[:2]:
            raise holes.MaskError(f"the hole is {hole.shape[::-1]}, the photo {pixels.shape[1::-1]}: give one size")
        if not hole.any():
            raise holes.MaskError("the hole is empty: there is nothing to fill; mark the pixels to fill white")
        known = inpaint(pixels, hole)
        hidden = 0
        if faces is None:
            faces, hidden = self._under(hole, known, pixels)
        faces = [self._fitted(face) for face in faces]
        owner = self._owners(hole, faces)
        if (owner < 0).all():
            raise NoFaceError(
                "no face was found under the hole; mark part of one, say where it is (landmarks, box or eyes), "
                f"or give an aligned face of {self.size}x{self.size}, which needs no finding"
            )
        touched = [face for index, face in enumerate(faces) if (owner == index).any()]
        owner = self._owners(hole, touched)
        sides = [face.size / face.scale for face in touched]
        # Of scratches their surroundings say more than a network does, unless little else of the face is visible.
        scratched = (owner >= 0).sum() < _SCRATCHED * np.square(sides).sum()
        thin = _thin(hole, min(sides)) if scratched else np.zeros_like(hole)
        outside = np.zeros_like(hole)
        outside[hole] = owner < 0
        outside &= ~thin
        empty = hole & ~thin  # what is still to be filled
        sources = {"surroundings": thin | outside} if (thin | outside).any() else {}
        if thin.any():
            known = surroundings(known, hole, thin)
        left = hole & ~thin
        block = holes.LOWRES_SCALE if lowres else 1
        ends, stopped = math.inf if seconds is None else time.monotonic() + seconds, False
        fills, contexts = [known] * candidates, []
        for number, alignment in enumerate(touched):
            part = np.zeros_like(hole)
            part[hole] = owner == number
            part &= left
            empty = empty & ~part
            if not part.any():
                continue
            sources[f"face {number + 1}"] = part
            weights = self.weights[alignment.size]
            solver = self._settings(weights, block)
            if candidates > 1:
                pool = _POOL * candidates
                solver = replace(solver, restarts=max(solver.restarts, pool), draws=max(solver.draws, pool))
            scale = 1 / alignment.scale  # a pixel of the crop in the photo's
            crop = alignment.warp(known)
            in_crop = self._hole_in_crop(left, alignment)
            source = alignment.warp(pixels) if lowres else crop
            for step in solve(weights, source[None], in_crop[None], solver, seed, block):
                yield SearchStep(number, len(touched), step, solver.steps, alignment, crop, in_crop)
                if time.monotonic() > ends:
                    break
            stopped |= step.number < solver.steps
            contexts.append(float(step.context[0, step.best[0]]))
            for index, face in enumerate(_different(step, torch.from_numpy(in_crop), candidates)):
                face = match_means(face, source, block) if lowres else face
                generated = alignment.paste(known, face, beyond_px=2)  # blending looks one pixel past the hole
                fills[index] = blend(fills[index], generated, part, self.blend, empty)
                if scale > 1 and self.blend != "none":
                    fills[index] = grain(fills[index], part, hole, _GRAIN_REACH * scale, seed)
        if cv2.distanceTransform(np.pad(outside, 1).astype(np.uint8), cv2.DIST_L2, 3).max() > _WIDE_PX / 2:
            fills = [surroundings(fill, outside, outside) for fill in fills]
        best, *others = (np.where(hole[..., None], fill, pixels) for fill in fills)
        yield Completion(best, tuple(others), sources, hidden, float(np.mean(contexts or [0])), stopped)

    def complete_crops(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], seed: int = 0) -> NDArray[np.uint8]:
        """Fill holes in many aligned faces at once, as `complete` does in one.

        Args:
            crops: uint8 (N, S, S, 3), S the size of one of the weights.
            holes: bool (N, S, S).
            seed: of the search.
        Returns:
            uint8 (N, S, S, 3).
        """
        known = np.stack([inpaint(crop, hole) for crop, hole in zip(crops, holes, strict=True)])
        weights = self.weights[crops.shape[1]]
        *_, step = solve(weights, known, holes, self._settings(weights), seed)
        made = zip(known, step.previews, holes, strict=True)
        return np.stack([blend(crop, face, hole, self.blend) for crop, face, hole in made])

    def _aligned(self, pixels: NDArray[np.uint8]) -> list[Alignment]:
        """The whole photo as the one face, if it has the size of one of the weights."""
        height, width = pixels.shape[:2]
        return [Alignment.identity(width)] if height == width and width in self.weights else []

    def _fitted(self, face: Alignment) -> Alignment:
        """A face as a crop of the smallest weights that enlarge it by a quarter at most, or of the largest."""
        side_px = face.size / face.scale
        sizes = [size for size in self.weights if side_px <= _ENLARGED * size]
        return face.resized(sizes[0] if sizes else self.size)

    def _settings(self, weights: Weights, block: int = 1) -> Solver:
        solver = resolve(self.solver, weights, block)
        return solver if self.prior_weight is None else replace(solver, prior_weight=self.prior_weight)

    def _under(
        self, hole: NDArray[np.bool_], known: NDArray[np.uint8], pixels: NDArray[np.uint8]
    ) -> tuple[list[Alignment], int]:
        """The faces of a photo that a hole may lie on, and how many of them show only in the photo as it is."""
        if aligned := self._aligned(pixels):
            return aligned, 0
        found: list[Alignment] = []
        hidden = 0
        # A face that the hole covers cannot be found in what is left. Of what lies under the hole only this is used,
        # where the face is.
        for photo, find in (
            (known, locate.find_upright),
            (pixels, locate.find_upright),
            (known, locate.find_hard),
            (pixels, locate.find_hard),
        ):
            rest = hole.copy()
            rest[hole] = self._owners(hole, found) < 0
            if rest.sum() <= _STRAY * hole.sum():
                break
            for face in find(photo, self.template, self.size):
                new = not locate.is_among(face, found)
                if new and (self._owners(rest, [face]) >= 0).any():
                    found.append(face if photo is pixels else self._refined(known, hole, face))
                    hidden += photo is pixels
        if not found:  # a face of which little is visible, rather than none
            faint = locate.find_faint(known, self.template, self.size)
            touched = [face for face in faint if (self._owners(hole, [face]) >= 0).any()]
            found = [self._refined(known, hole, face) for face in touched[:1]]
        return found, hidden

    def _refined(self, known: NDArray[np.uint8], hole: NDArray[np.bool_], face: Alignment) -> Alignment:
        """Align a face again by the landmarks of its completion, where the hole covers much of it.

        Landmarks found in a classical fill are off; those of a completed face are nearer to the truth.
        """
        refined = self._fitted(face)
        weights = self.weights[refined.size]
        if weights.encoder is None or self._hole_in_crop(hole, refined).mean() < _COVERED:
            return face
        for _ in range(_REFINEMENTS):
            crop, in_crop = refined.warp(known), self._hole_in_crop(hole, refined)
            *_, step = solve(weights, crop[None], in_crop[None], resolve("encoder", weights))
            completed = refined.paste(known, np.where(in_crop[..., None], step.previews[0], crop))
            view = np.where(hole[..., None], completed, known)
            landmarks = find_landmarks(view, refined, self.template.points, 128 / refined.size, upsample=0)
            if landmarks is None:
                break
            try:
                again = fit(self.template, transform(refined.inverse, landmarks), refined.size)
            except ValueError:  # landmarks on one point or line are no face
                break
            if not locate.is_among(again, [refined]):
                break
            refined = again
        return refined

    def _owners(self, hole: NDArray[np.bool_], faces: Sequence[Alignment]) -> NDArray[np.intp]:
        """The face that each pixel of a hole lies on, by the nearest crop; -1 outside all crops: (pixels,)."""
        points = np.argwhere(hole)[:, ::-1]  # (x, y)
        nearest, owner = np.full(len(points), 1 + 1e-6), np.full(len(points), -1)  # slack for what rounding takes
        for index, face in enumerate(faces):
            middle = (face.size - 1) / 2
            distance = np.abs(face.apply(points) / middle - 1).max(axis=1)
            owner[distance < nearest] = index
            nearest = np.minimum(nearest, distance)
        return owner

    def _hole_in_crop(self, hole: NDArray[np.bool_], face: Alignment) -> NDArray[np.bool_]:
        """Every pixel of the crop that the hole has a part in, or that lies beyond the photo's edge: bool (S, S)."""
        if np.array_equal(face.matrix, np.eye(2, 3)):
            return hole
        share = face.warp(np.where(hole, 255, 0).astype(np.uint8))
        v, u = np.mgrid[: face.size, : face.size]
        x, y = np.moveaxis(transform(face.inverse, np.stack([u, v], axis=-1)), -1, 0)
        beyond = (x < -0.5) | (x > hole.shape[1] - 0.5) | (y < -0.5) | (y > hole.shape[0] - 0.5)
        return (share > 0) | beyond


def _thin(hole: NDArray[np.bool_], side_px: float) -> NDArray[np.bool_]:
    """The parts of a hole that are thin, such as scratches, for a face whose crop has the given side: bool (H, W)."""
    thin = np.zeros_like(hole)
    radius = int(_THIN * side_px)
    ys, xs = np.nonzero(hole)
    box = tuple(slice(max(0, axis.min() - 2 * radius), axis.max() + 1 + 2 * radius) for axis in (ys, xs))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # Wide parts get back the corners that the opening takes.
    wide = cv2.dilate(cv2.morphologyEx(hole[box].astype(np.uint8), cv2.MORPH_OPEN, disc), disc)
    thin[box] = hole[box] & (wide == 0)
    return thin


def _size(weights: Weights) -> int:
    return weights.generator.config.size


def _different(step: Step, hole: Tensor, count: int) -> list[NDArray[np.uint8]]:
    """The best candidate for one face, and then always the one that is farthest from those taken already.

    All agree with the visible pixels about as well as the best, as far as there are enough of them.

    Args:
        step: the last one of a search.
        hole: bool (S, S), where they are compared.
        count: how many to take.
    Returns:
        uint8 (S, S, 3) each.
    """
    order = step.total[0].argsort(stable=True)
    context = step.context[0, order]
    enough = context.sort().values[min(count, len(order)) - 1]
    order = order[context <= torch.maximum(_AGREES * context[0], enough)]
    images = step.images[0, order]
    inside = images[..., hole.to(images.device)].flatten(1)
    distances = (inside[:, None] - inside[None]).abs().mean(dim=2)
    taken = [0]
    while len(taken) < min(count, len(order)):
        taken.append(int(distances[:, taken].amin(dim=1).argmax()))
    return list(to_image(images[sorted(taken)]))
