"""Complete a photo in memory: find the faces, search for their latents, paste and blend the results."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align import locate
from align.errors import InputError, MaskError, NoFaceError, hint
from align.landmarks import find_landmarks
from align.photo import Photo, PhotoLike, as_photo, merge
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion import masks, refine
from completion.blend import blend, grain, inpaint, match_means, reduce_visible, spread, surroundings
from completion.config import BLENDS, SOLVER_NAMES, NoFace, Solver
from completion.engine import Networks, Step, as_networks, load_fitting
from completion.masks import MaskLike
from dcgan import holes
from dcgan.weights import WeightsError
from weights import AUTO

if TYPE_CHECKING:
    from dcgan.weights import Weights

_POOL = 16  # candidates searched for each one returned
_AGREES = 1.1  # maximum context loss of a returned candidate, as a multiple of the best one's
_GRAIN_REACH = 4  # width of the border around a hole where grain is measured, in pixels of the crop
_ENLARGED = 1.25  # maximum enlargement of a face before larger weights are used
_FINEST_PX = 2048  # maximum side at which a named hole is drawn
_WIDE_PX = 20  # areas outside the faces wider than this are filled with structure, not only colour
_THIN = 0.015  # maximum half width of a scratch, relative to the crop's side
_SCRATCHED = 0.3  # holes that cover more of the crops than this are not treated as scratches
_LARGEST_HOLE_PX = 3_000_000  # larger holes are completed at reduced size
_CANDIDATES_PX = 160_000_000  # of all candidates together, which take 6 bytes per pixel
_ROWS = 256  # of a photo, processed at once
_STRAY = 0.05  # share of a hole that may lie outside the faces before more faces are searched for


@dataclass(frozen=True)
class Completion:
    """A completed photo.

    Attributes:
        candidates: uint8 (H, W, 3) each, different completions, the best first; all equal the photo outside the hole.
        photo: the photo.
        hole: bool (H, W), the pixels that were filled.
        faces: the faces that the hole touches.
        sources: origin of the hole's pixels -> bool (H, W), not empty: "face 1", "face 2" and so on for generated
            faces; "surroundings" for scratches and areas outside all faces, filled by a classical method.
        hidden: number of faces that were found only in the original photo, by looking under the hole.
        context: final context loss, averaged over the faces.
        stopped: whether the time limit ended the search.
    """

    candidates: tuple[NDArray[np.uint8], ...]
    photo: Photo
    hole: NDArray[np.bool_]
    faces: tuple[Alignment, ...]
    sources: dict[str, NDArray[np.bool_]]
    hidden: int
    context: float
    stopped: bool

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The best completion: uint8 (H, W, 3)."""
        return self.candidates[0]

    @property
    def image(self) -> Image.Image:
        """The best completion in the photo's mode (L, LA, RGB or RGBA), with its colour profile."""
        image = merge(self.pixels, self.photo, self.hole)
        if self.photo.icc_profile:
            image.info["icc_profile"] = self.photo.icc_profile
        return image


@dataclass(frozen=True)
class SearchStep:
    """Progress of a completion: one step of the search for one face.

    Attributes:
        face: index of the face, from 0.
        faces: number of faces.
        step: state of the search.
        steps: number of the last step.
        alignment: maps the photo to the crop.
        crop: uint8 (S, S, 3), the aligned face with its hole filled classically.
        hole: bool (S, S), the hole in the crop.
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
        """The crop with the best candidate copied into the hole, without blending: uint8 (S, S, 3)."""
        return np.where(self.hole[..., None], self.step.previews[0], self.crop)


@dataclass(frozen=True)
class _Regions:
    """A hole divided by how its parts are filled.

    Attributes:
        faces: the faces that the hole touches.
        parts: bool (H, W) for each face, the pixels to generate; empty if they are all scratches.
        thin: bool (H, W), scratches, filled from their surroundings.
        outside: bool (H, W), other pixels outside all faces.
    """

    faces: list[Alignment]
    parts: list[NDArray[np.bool_]]
    thin: NDArray[np.bool_]
    outside: NDArray[np.bool_]

    def sources(self) -> dict[str, NDArray[np.bool_]]:
        """As in Completion."""
        named = {"surroundings": self.thin | self.outside}
        named |= {f"face {number}": part for number, part in enumerate(self.parts, 1)}
        return {name: part for name, part in named.items() if part.any()}


class FaceCompleter:
    """Completes photos: `completer(photo, mask)` returns the completed photo, `steps` also the search for it.

    Args:
        weights: trained networks; if there are several, each face uses those that fit its size in the photo.
        solver: "fast", a name in completion.config.SOLVERS, or a Solver.
        blend: a name in completion.config.BLENDS.
        prior_weight: weight of the prior loss; None for the solver's default.
    Raises:
        InputError: there is no such solver or blend.
        WeightsError: the weights have an unknown template or different ones, or lack the encoder of the solver.
    """

    def __init__(
        self,
        weights: "Networks | Weights | Sequence[Networks | Weights]",
        solver: str | Solver = "fast",
        blend: str = "poisson",
        prior_weight: float | None = None,
    ) -> None:
        if isinstance(solver, str) and solver not in SOLVER_NAMES:
            raise InputError(f"there is no solver named {solver!r}; {hint(solver, SOLVER_NAMES)}")
        if blend not in BLENDS:
            raise InputError(f"there is no blend named {blend!r}; {hint(blend, BLENDS)}")
        networks = as_networks(weights)
        self.weights = {each.size: each for each in networks}
        templates = sorted({each.template for each in networks})
        if len(templates) > 1 or templates[0] not in TEMPLATES:
            raise WeightsError(
                f"the weights are for faces aligned as {' and '.join(map(repr, templates))}, "
                f"expected one of {', '.join(TEMPLATES)}"
            )
        # Fails early if an encoder, torch or the device is missing.
        self.gpu = any(each.engine(each.resolve(solver)).gpu for each in networks)
        self.solver = solver
        self.blend = blend
        self.prior_weight = prior_weight
        self.size = max(self.weights)
        self.template = TEMPLATES[templates[0]]

    @classmethod
    def load(
        cls,
        weights: str = AUTO,
        device: str = "auto",
        solver: str | Solver = "fast",
        blend: str = "poisson",
        prior_weight: float | None = None,
    ) -> "FaceCompleter":
        """Load weights and create a completer.

        Args:
            weights: a name in the registry, a file, or "auto" to use for each face the weights that fit its size.
            device: auto, cpu, cuda or cuda:N.
            solver: see the class.
            blend: see the class.
            prior_weight: see the class.
        Raises:
            WeightsError, DeviceError: the weights or the device cannot be used.
        """
        return cls(load_fitting(weights, device), solver, blend, prior_weight)

    def __call__(
        self,
        photo: PhotoLike,
        mask: MaskLike,
        *,
        faces: Sequence[Alignment] | None = None,
        every: bool = False,
        candidates: int = 1,
        seed: int = 0,
        seconds: float | None = None,
        no_face: NoFace = "fail",
    ) -> Completion:
        """Fill a hole in a photo; see `steps` for arguments and errors."""
        settings: dict[str, Any] = {"candidates": candidates, "seed": seed, "seconds": seconds, "no_face": no_face}
        steps = self.steps(photo, mask, faces=faces, every=every, **settings)
        return next(item for item in steps if isinstance(item, Completion))

    def locate(self, photo: PhotoLike, every: bool = False) -> list[Alignment]:
        """Find the faces of a photo, the largest first, as crops of the size of the weights that fit them.

        A square photo of the weights' size counts as an aligned face.

        Args:
            photo: see align.photo.as_photo.
            every: also search large photos for small faces.
        Raises:
            NoFaceError: no face was found.
            PhotoError: the photo cannot be used.
        """
        pixels = as_photo(photo).pixels
        if aligned := self._aligned(pixels):
            return aligned
        faces = [self._fitted(face) for face in locate.locate(pixels, self.template, self.size, every)]
        if not faces:
            raise NoFaceError(
                "no face was found; give its position (landmarks, box or eyes), "
                f"or an aligned face of {self.size}x{self.size} pixels"
            )
        return faces

    def named_hole(
        self, pixels: NDArray[np.uint8], mask: str, faces: Sequence[Alignment], seed: int = 0
    ) -> NDArray[np.bool_]:
        """Draw a named hole on faces, at the resolution of the photo.

        Args:
            pixels: uint8 (H, W, 3).
            mask: see dcgan.holes.named_hole.
            faces: faces from `locate` to draw the hole on.
            seed: seed of random holes.
        Returns:
            bool (H, W).
        Raises:
            MaskError: the hole cannot be created, see dcgan.holes.named_hole.
        """
        height, width = pixels.shape[:2]
        hole = np.zeros((height, width), dtype=bool)
        for face in faces:
            drawn = face  # holes made of single pixels are drawn at the size of the crop
            if not holes.is_lattice(mask):
                drawn = face.resized(min(_FINEST_PX, max(face.size, round(face.size / face.scale))))
            landmarks = find_landmarks(pixels, face) if holes.needs_landmarks(mask) else None
            if landmarks is not None:
                landmarks = drawn.apply(transform(face.inverse, landmarks))
            in_crop = holes.named_hole(mask, drawn.size, np.random.default_rng(seed), landmarks)
            footprint = face.footprint((height, width))
            for top in range(0, height, _ROWS):  # in strips, which bounds the memory
                ys, xs = np.nonzero(footprint[top : top + _ROWS])
                u, v = np.round(drawn.apply(np.stack([xs, ys + top], axis=1))).astype(int).T  # nearest neighbour
                hole[ys + top, xs] |= in_crop[v, u]
        return hole

    def place(
        self,
        pixels: NDArray[np.uint8],
        mask: str,
        faces: Sequence[Alignment] | None = None,
        every: bool = False,
        seed: int = 0,
    ) -> tuple[NDArray[np.bool_], Sequence[Alignment]]:
        """Place a named hole on the faces of a photo.

        Args:
            pixels: uint8 (H, W, 3).
            mask: see dcgan.holes.named_hole.
            faces: the faces to choose from; None to detect them.
            every: use all faces instead of only the first.
            seed: seed of random holes.
        Returns:
            The hole, bool (H, W), and the faces it is placed on.
        Raises:
            MaskError: the hole cannot be created.
            NoFaceError: no face was found.
        """
        faces = faces or self.locate(pixels, every)
        faces = faces if every else faces[:1]
        return self.named_hole(pixels, mask, faces, seed), faces

    def steps(
        self,
        photo: PhotoLike,
        mask: MaskLike,
        *,
        faces: Sequence[Alignment] | None = None,
        every: bool = False,
        candidates: int = 1,
        seed: int = 0,
        seconds: float | None = None,
        lowres: bool = False,
        no_face: NoFace = "fail",
    ) -> Iterator[SearchStep | Completion]:
        """Fill a hole in a photo, and report every step of the search.

        Args:
            photo: see align.photo.as_photo; not modified. Colours under the hole are used only with `lowres`.
            mask: names such as "eyes,mouth", see dcgan.holes.named_hole; else see completion.masks.as_hole.
            faces: faces from `locate` or align.locate. None to detect them in the visible part and, where much of
                the hole is then left without a face, in the original photo.
            every: place a named mask on all faces instead of the largest.
            candidates: number of different completions; together at most 160 million pixels.
            seed: seed of the search and of random holes.
            seconds: time limit; at the limit, the search ends with its best result so far, and no further candidate
                is blended. None for no limit.
            lowres: match the means of 4x4 blocks of the aligned face, under the hole too; implied by the mask "lowres".
            no_face: whether a hole that touches no face fails, or is filled from its surroundings.
        Yields:
            a SearchStep per step, then the Completion.
        Raises:
            PhotoError: the photo cannot be used.
            MaskError: the mask cannot be used, is empty, or its size differs from the photo's.
            NoFaceError: no face was found for a named mask or, with `no_face` "fail", under the hole.
        """
        ends = math.inf if seconds is None else time.monotonic() + seconds
        if candidates < 1:
            raise InputError(f"candidates is {candidates}; expected 1 or more")
        if no_face not in get_args(NoFace):
            raise InputError(f"no_face is {no_face!r}; {hint(no_face, get_args(NoFace))}")
        photo = as_photo(photo)
        pixels = photo.pixels
        height, width = pixels.shape[:2]
        if candidates > (most := max(1, _CANDIDATES_PX // (height * width))):
            raise InputError(f"candidates is {candidates}; expected at most {most} for a photo of {width}x{height}")
        if isinstance(mask, str) and holes.split_names(mask):
            hole, faces = self.place(pixels, mask, faces, every, seed)
            lowres |= mask == "lowres"
        else:
            hole = masks.as_hole(mask, photo)
        _check(hole, pixels)
        settings = (candidates, seed, ends, lowres, no_face)
        if hole.sum() > _LARGEST_HOLE_PX:
            yield from self._reduced(photo, hole, faces, *settings)
        else:
            yield from self._complete(photo, hole, faces, *settings)

    def _reduced(
        self, photo: Photo, hole: NDArray[np.bool_], faces: Sequence[Alignment] | None, *settings: Any
    ) -> Iterator[SearchStep | Completion]:
        """Complete a reduced copy of a photo, which bounds time and memory, and enlarge the fill."""
        scale = math.sqrt(_LARGEST_HOLE_PX / hole.sum())
        small, small_hole = reduce_visible(photo.pixels, hole, scale)
        size = hole.shape[::-1]
        found = Completion((small,), photo, small_hole, (), {}, 0, 0.0, False)
        if small_hole.any():
            given = None if faces is None else [face.rescaled(scale) for face in faces]
            for item in self._complete(as_photo(small), small_hole, given, *settings):
                if isinstance(item, Completion):
                    found = item
                else:
                    yield replace(item, alignment=item.alignment.rescaled(1 / scale))
        made = []
        for candidate in found.candidates:
            fill = cv2.resize(candidate, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
            np.copyto(fill, photo.pixels, where=~hole[..., None])
            made.append(fill)
        sources, rest = {}, hole.copy()
        for name, part in found.sources.items():
            inside: NDArray[np.bool_] = cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
            sources[name] = inside & rest
            rest &= ~inside
        if rest.any():  # pixels of a fine hole, filled from the visible ones between them
            sources["surroundings"] = sources.get("surroundings", rest) | rest
        yield replace(
            found,
            candidates=tuple(made),
            photo=photo,
            hole=hole,
            faces=tuple(face.rescaled(1 / scale) for face in found.faces),
            sources={name: part for name, part in sources.items() if part.any()},
        )

    def _complete(
        self,
        photo: Photo,
        hole: NDArray[np.bool_],
        faces: Sequence[Alignment] | None,
        candidates: int,
        seed: int,
        ends: float,
        lowres: bool,
        no_face: NoFace,
    ) -> Iterator[SearchStep | Completion]:
        """Complete a photo at its own size; arguments as in `steps`, with `ends` the time at which the search ends."""
        pixels = photo.pixels
        known, hidden = inpaint(pixels, hole), 0
        if faces is None:
            faces, hidden = self._under(hole, known, pixels)
        regions = self._divide(hole, [self._fitted(face) for face in faces], no_face)
        if regions.thin.any():
            known = surroundings(known, hole, regions.thin)
        fills, contexts, stopped = [known] * candidates, [], False
        empty = hole & ~regions.thin
        for number, (face, part) in enumerate(zip(regions.faces, regions.parts, strict=True)):
            if not part.any():
                continue
            empty = empty & ~part
            for item in self._search(number, regions, known, pixels if lowres else None, seed, candidates):
                yield item
                if time.monotonic() > ends:
                    break
            stopped |= item.step.number < item.steps
            contexts.append(float(item.step.context[0, item.step.best[0]]))
            for index, image in enumerate(_different(item.step, item.hole, len(fills))):
                image = match_means(image, face.warp(pixels), holes.LOWRES_SCALE) if lowres else image
                fills[index] = self._paste(image, face, known, fills[index], hole, part, empty, seed)
                if index + 1 < len(fills) and time.monotonic() > ends:
                    fills, stopped = fills[: index + 1], True
                    break
        outside = regions.outside
        if cv2.distanceTransform(np.pad(outside, 1).astype(np.uint8), cv2.DIST_L2, 3).max() > _WIDE_PX / 2:
            fills = [surroundings(fill, outside, outside) for fill in fills]
        made = tuple(np.where(hole[..., None], fill, pixels) for fill in fills)
        found, context = tuple(regions.faces), float(np.mean(contexts or [0]))
        yield Completion(made, photo, hole, found, regions.sources(), hidden, context, stopped)

    def complete_crops(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], seed: int = 0) -> NDArray[np.uint8]:
        """Fill holes in a batch of aligned faces.

        Args:
            crops: uint8 (N, S, S, 3), with S the size of one of the weights.
            holes: bool (N, S, S), True = fill this.
            seed: seed of the search.
        Returns:
            uint8 (N, S, S, 3).
        """
        known = np.stack([inpaint(crop, hole) for crop, hole in zip(crops, holes, strict=True)])
        weights = self.weights[crops.shape[1]]
        solver = self._settings(weights)
        *_, step = weights.engine(solver).solve(known, holes, solver, seed)
        made = zip(known, step.previews, holes, strict=True)
        return np.stack([blend(crop, face, hole, self.blend) for crop, face, hole in made])

    def _aligned(self, pixels: NDArray[np.uint8]) -> list[Alignment]:
        """Return the photo itself as the only face, if it has the size of one of the weights."""
        height, width = pixels.shape[:2]
        return [Alignment.identity(width)] if height == width and width in self.weights else []

    def _fitted(self, face: Alignment) -> Alignment:
        """Resize the crop of a face to the smallest weights that enlarge it by at most a quarter, or to the largest."""
        side_px = face.size / face.scale
        sizes = [size for size in self.weights if side_px <= _ENLARGED * size]
        return face.resized(sizes[0] if sizes else self.size)

    def _settings(self, weights: Networks, block: int = 1, candidates: int = 1) -> Solver:
        solver = weights.resolve(self.solver, block)
        if self.prior_weight is not None:
            solver = replace(solver, prior_weight=self.prior_weight)
        if candidates == 1:
            return solver
        pool = _POOL * candidates
        return replace(solver, restarts=max(solver.restarts, pool), draws=max(solver.draws, pool))

    def _divide(self, hole: NDArray[np.bool_], faces: Sequence[Alignment], no_face: NoFace) -> _Regions:
        """Assign each pixel of a hole to a face, to a scratch or to the outside.

        Raises:
            NoFaceError: no pixel of the hole lies on a face, and it must not or cannot be filled from its surroundings.
        """
        owner = self._owners(hole, faces)
        if (owner < 0).all():
            if no_face == "fill" and not hole.all():
                return _Regions([], [], np.zeros_like(hole), hole)
            raise NoFaceError(
                "no face was found under the hole; mark part of a face, give its position (landmarks, box or eyes), "
                f"or an aligned face of {self.size}x{self.size} pixels"
            )
        touched = [face for index, face in enumerate(faces) if (owner == index).any()]
        owner = self._owners(hole, touched)
        sides = [face.size / face.scale for face in touched]
        # Scratches are better filled from their surroundings, unless they leave little of the face visible.
        scratched = (owner >= 0).sum() < _SCRATCHED * np.square(sides).sum()
        thin = _thin(hole, min(sides)) if scratched else np.zeros_like(hole)
        outside, *parts = (np.zeros_like(hole) for _ in range(1 + len(touched)))
        for number, part in enumerate([outside, *parts], -1):
            part[hole] = owner == number
            part &= ~thin
        return _Regions(touched, parts, thin, outside)

    def _search(
        self,
        number: int,
        regions: _Regions,
        known: NDArray[np.uint8],
        original: NDArray[np.uint8] | None,
        seed: int,
        candidates: int,
    ) -> Iterator[SearchStep]:
        """Search for the latent of one face; with `original`, from the block means of that photo."""
        face = regions.faces[number]
        block = 1 if original is None else holes.LOWRES_SCALE
        weights = self.weights[face.size]
        solver = self._settings(weights, block, candidates)
        crop = face.warp(known)
        hole = masks.hole_in_crop(np.logical_or.reduce([*regions.parts, regions.outside]), face)
        source = crop if original is None else face.warp(original)
        for step in weights.engine(solver).solve(source[None], hole[None], solver, seed, block):
            yield SearchStep(number, len(regions.faces), step, solver.steps, face, crop, hole)

    def _paste(
        self,
        image: NDArray[np.uint8],
        face: Alignment,
        known: NDArray[np.uint8],
        fill: NDArray[np.uint8],
        hole: NDArray[np.bool_],
        part: NDArray[np.bool_],
        empty: NDArray[np.bool_],
        seed: int,
    ) -> NDArray[np.uint8]:
        """Blend a generated crop into its part of the hole, with the photo's grain if the crop is enlarged."""
        generated = face.paste(known, image, beyond_px=2)  # blending reads one pixel around the hole
        filled = blend(fill, generated, part, self.blend, empty)
        scale = 1 / face.scale  # pixels of the photo per pixel of the crop
        if scale > 1 and self.blend != "none":
            filled = grain(filled, part, hole, _GRAIN_REACH * scale, seed)
        return filled

    def _under(
        self, hole: NDArray[np.bool_], known: NDArray[np.uint8], pixels: NDArray[np.uint8]
    ) -> tuple[list[Alignment], int]:
        """Find faces that a hole may cover, and count those found only in the original photo."""
        if aligned := self._aligned(pixels):
            return aligned, 0
        found: list[Alignment] = []
        hidden = 0
        # A covered face can only be found in the original photo. Only its position is used from under the hole.
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
                    found.append(face if photo is pixels else self._corrected(known, hole, face))
                    hidden += photo is pixels
        for fill in (known, spread(pixels, hole)) if not found else ():  # accept a detection of low confidence
            faint = locate.find_faint(fill, self.template, self.size)
            touched = [face for face in faint if (self._owners(hole, [face]) >= 0).any()]
            found = [self._corrected(known, hole, face) for face in touched[:1]]
            if found:
                break
        return found, hidden

    def _corrected(self, known: NDArray[np.uint8], hole: NDArray[np.bool_], face: Alignment) -> Alignment:
        """Correct the position of a detected face, unless the template needs more than its eyes."""
        if self.template.name != "face":
            return face
        corrected = refine.locate_hidden(known, hole, face)
        return corrected if locate.is_among(corrected, [face]) else face  # it may have strayed to another one

    def _owners(self, hole: NDArray[np.bool_], faces: Sequence[Alignment]) -> NDArray[np.intp]:
        """Index of the face with the nearest crop centre for each pixel of a hole; -1 outside all crops: (pixels,)."""
        points = np.argwhere(hole)[:, ::-1]  # (x, y)
        nearest, owner = np.full(len(points), 1 + 1e-6), np.full(len(points), -1)  # tolerance for rounding
        for index, face in enumerate(faces):
            middle = (face.size - 1) / 2
            distance = np.abs(face.apply(points) / middle - 1).max(axis=1)
            owner[distance < nearest] = index
            nearest = np.minimum(nearest, distance)
        return owner


def _check(hole: NDArray[np.bool_], pixels: NDArray[np.uint8]) -> None:
    (height, width), (hole_height, hole_width) = pixels.shape[:2], hole.shape
    if (height, width) != (hole_height, hole_width):
        raise MaskError(
            f"the hole is {hole_width}x{hole_height}, but the photo is {width}x{height}; both must have the same size"
        )
    if not hole.any():
        raise MaskError("the hole is empty; mark at least one pixel to fill")


def _thin(hole: NDArray[np.bool_], side_px: float) -> NDArray[np.bool_]:
    """Mark the thin parts of a hole, such as scratches, relative to a crop's side: bool (H, W)."""
    thin = np.zeros_like(hole)
    radius = int(_THIN * side_px)
    ys, xs = np.nonzero(hole)
    box = tuple(slice(max(0, axis.min() - 2 * radius), axis.max() + 1 + 2 * radius) for axis in (ys, xs))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # Dilation restores the corners of wide parts that the opening removes.
    wide = cv2.dilate(cv2.morphologyEx(hole[box].astype(np.uint8), cv2.MORPH_OPEN, disc), disc)
    thin[box] = hole[box] & (wide == 0)
    return thin


def _different(step: Step, hole: NDArray[np.bool_], count: int) -> list[NDArray[np.uint8]]:
    """Select the best candidate for one face, then repeatedly the one farthest from those selected.

    Prefers candidates that match the visible pixels about as well as the best one.

    Args:
        step: last step of a search.
        hole: bool (S, S), pixels to compare the candidates on.
        count: number of candidates.
    Returns:
        uint8 (S, S, 3) each, in order of their total loss.
    """
    order = step.total[0].argsort(kind="stable")
    context = step.context[0, order]
    enough = np.sort(context)[min(count, len(order)) - 1]
    order = order[context <= max(_AGREES * context[0], enough)]
    images = step.images[0, order]
    inside = images[:, hole].reshape(len(images), -1).astype(np.float32)
    distances = np.stack([np.abs(inside - each).mean(axis=1) for each in inside])
    taken = [0]
    while len(taken) < min(count, len(order)):
        taken.append(int(distances[:, taken].min(axis=1).argmax()))
    return list(images[sorted(taken)])
