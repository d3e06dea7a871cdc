"""From a photo with a hole to the completed photo: find the faces, search, paste back, blend."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from align.landmarks import NoFaceError, find_faces
from align.template import TEMPLATES
from align.warp import fit, footprint, invert, paste, warp
from completion import masks
from completion.blend import blend, inpaint, match_means
from completion.solve import Solver, Step, resolve, solve
from dcgan.checkpoint import Weights, WeightsError

# dlib's detector wants faces of 80 px with some air around them, which a crop does not have.
_CROP_ZOOM = 4
_CROP_AIR = 0.5


@dataclass(frozen=True)
class Completion:
    """A completed photo.

    Attributes:
        pixels: uint8 (H, W, 3); outside the hole the photo's own bytes.
        faces: completed faces.
        outside: share of the hole that no face's crop covers; filled by a classical method.
        context: the search's final context loss, a mean over the faces; nan if there were none.
    """

    pixels: NDArray[np.uint8]
    faces: int
    outside: float
    context: float


@dataclass(frozen=True)
class Progress:
    """One step of one face's search.

    Attributes:
        face: which face, from 0.
        faces: how many there are.
        step: of the search.
        steps: how many steps each face takes.
        crop: uint8 (S, S, 3), the aligned face, its hole filled classically.
        hole: bool (S, S), the hole in the crop's frame.
    """

    face: int
    faces: int
    step: Step
    steps: int
    crop: NDArray[np.uint8]
    hole: NDArray[np.bool_]


class FaceCompleter:
    """Completes photos with one set of weights; numpy in, numpy out.

    Args:
        weights: trained networks.
        solver: a name in completion.solve.SOLVERS, or a Solver.
        blend: a name in completion.blend.BLENDS.
    Raises:
        WeightsError: the weights want faces aligned in a way that is unknown here, or lack the solver's encoder.
    """

    def __init__(self, weights: Weights, solver: str | Solver = "fast", blend: str = "poisson") -> None:
        if weights.template not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise WeightsError(f"the weights are for faces aligned as {weights.template!r}, not one of {known}")
        self.weights = weights
        resolve(solver, weights)  # an encoder that is absent is told of now, not after a batch of failures
        self.solver = solver
        self.blend = blend
        self.size = weights.generator.config.size

    def locate(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        """The faces of a photo, largest first, each as the (2, 3) matrix photo -> crop.

        A photo of just the weights' size is an aligned face itself.

        Raises:
            NoFaceError: none is found.
        """
        if pixels.shape[:2] == (self.size, self.size):
            return [np.eye(2, 3)]
        template = TEMPLATES[self.weights.template]
        matrices = []
        for landmarks in find_faces(pixels, template.points):
            with suppress(ValueError):  # landmarks on one point or line are no face
                matrices.append(fit(template, landmarks, self.size))
        if not matrices:
            raise NoFaceError(
                "no face was found in what is known of the photo; say where its eyes are (--eyes), "
                f"or give an aligned face of {self.size}x{self.size}, which needs no finding"
            )
        return matrices

    def place(self, pixels: NDArray[np.uint8], eyes: Sequence[float]) -> NDArray[np.float64]:
        """The (2, 3) matrix photo -> crop of a face that nothing can be found in, from its eyes.

        Args:
            pixels: uint8 (H, W, 3).
            eyes: (x, y, x, y) of the centres of the two eyes in the photo's pixels, the left one in the photo first.
        Raises:
            NoFaceError: the eyes lie on one point or outside the photo, or the weights' template has more than eyes.
        """
        template = TEMPLATES["face"]
        if self.weights.template != template.name:
            raise NoFaceError(f"two eyes do not place a face of the template {self.weights.template}")
        left, right = np.reshape(eyes, (2, 2))
        height, width = pixels.shape[:2]
        if not all(0 <= x < width and 0 <= y < height for x, y in (left, right)):
            raise NoFaceError(
                f"the eyes are at {left.tolist()} and {right.tolist()}, outside the {width}x{height} photo"
            )
        try:
            return fit(template, np.array([right, right, left, left, left]), self.size)
        except ValueError as error:
            raise NoFaceError(f"the eyes are both at {left.tolist()}, so no face can be placed") from error

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
            landmarks = self._features(pixels, matrix) if masks.needs_landmarks(mask) else None
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
    ) -> Iterator[Progress | Completion]:
        """Fill a hole in a photo.

        Args:
            pixels: uint8 (H, W, 3), upright; never written to, never read under the hole, but for `lowres`.
            hole: bool (H, W), True = fill this.
            matrices: the faces, from `locate`; without them they are looked for in what is known of the photo.
            seed: of the search.
            lowres: the means of blocks of 4x4 of the aligned face are known though the hole covers it.
        Yields:
            Progress for every step, then the Completion.
        Raises:
            MaskError: the hole is empty or of another size than the photo.
            NoFaceError: no face is found in what is known of the photo.
        """
        if hole.shape != pixels.shape[:2]:
            raise masks.MaskError(f"the hole is {hole.shape[::-1]}, the photo {pixels.shape[1::-1]}: give one size")
        if not hole.any():
            raise masks.MaskError("the hole is empty: there is nothing to fill; mark the pixels to fill white")
        # From here on, what lay under the hole is gone, so it can influence nothing.
        known = inpaint(pixels, hole)
        if matrices is None:
            matrices = self.locate(known)
        height, width = hole.shape
        touched = [(matrix, footprint((height, width), matrix, self.size)) for matrix in matrices]
        touched = [(matrix, covered) for matrix, covered in touched if (covered & hole).any()]
        if not touched:
            raise masks.MaskError(
                "the hole lies outside every face that was found; mark part of one, or say where its eyes are (--eyes)"
            )
        fill, left, contexts = known, hole.copy(), []
        for number, (matrix, covered) in enumerate(touched):
            crop = warp(known, matrix, self.size)
            in_crop = self._hole_in_crop(hole, matrix)
            source = warp(pixels, matrix, self.size) if lowres else crop
            block = masks.LOWRES_SCALE if lowres else 1
            solver = resolve(self.solver, self.weights, block)
            for step in solve(self.weights, source, in_crop, solver, seed, block):
                yield Progress(number, len(touched), step, solver.steps, crop, in_crop)
            contexts.append(float(step.context[step.best]))
            face = match_means(step.preview, source, block) if lowres else step.preview
            generated = paste(known, face, matrix, beyond_px=2)  # blending looks one pixel past the hole
            part = left & covered
            fill = np.where(part[..., None], blend(fill, generated, part, self.blend), fill)
            left &= ~covered
        completed = pixels.copy()
        completed[hole] = fill[hole]
        yield Completion(completed, len(touched), float(left.sum() / hole.sum()), float(np.mean(contexts)))

    def _hole_in_crop(self, hole: NDArray[np.bool_], matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Every pixel of the crop that the hole has a part in, or that lies beyond the photo's edge: bool (S, S)."""
        if np.array_equal(matrix, np.eye(2, 3)):
            return hole
        share = warp(np.where(hole, 255, 0).astype(np.uint8), matrix, self.size)
        v, u = np.mgrid[: self.size, : self.size].reshape(2, -1)
        x, y = invert(matrix) @ np.stack([u, v, np.ones(u.size)])
        beyond = (x < -0.5) | (x > hole.shape[1] - 0.5) | (y < -0.5) | (y > hole.shape[0] - 0.5)
        return (share > 0) | beyond.reshape(share.shape)

    def _features(self, pixels: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The 68 landmarks of one face, float64 (68, 2) in its crop's pixels; None if they are not found."""
        air = round(self.size * _CROP_AIR)
        around = matrix + np.array([[0, 0, air], [0, 0, air]])
        side = self.size + 2 * air
        view = warp(pixels, around * _CROP_ZOOM, side * _CROP_ZOOM)
        faces = find_faces(view, 68)
        if not faces:
            return None
        centred = min(faces, key=lambda points: float(np.linalg.norm(points.mean(axis=0) - view.shape[0] / 2)))
        return centred / _CROP_ZOOM - air
