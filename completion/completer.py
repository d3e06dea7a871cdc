"""Complete a photo in memory: find the faces, generate what is missing, paste and blend."""

import io
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from align import locate
from align.errors import ConfigError, InputError, MaskError, NoFaceError, hint
from align.landmarks import predict_aligned
from align.locate import view_of
from align.photo import Photo, PhotoLike, as_photo, filled, merge, write_photo
from align.resize import box_around
from align.settings import check
from align.template import TEMPLATES
from align.warp import Alignment, transform
from completion.config import FillOptions, LoadOptions, Solver
from completion.damage import find_damage
from completion.detail import MIRROR, MIRROR_LIMIT, REFERENCE_LIMIT, Generated, Variant, add_detail, head_of, inner_face
from completion.faces import as_faces, faces_by_landmarks, faces_under, given_face
from completion.grain import grain, match_means
from completion.inpaint import fill_around, fsr_inpaint, inpaint, is_wide, reduce_visible
from completion.masks import MaskLike, MaskSpec, alpha_hole, hole_in_crop, parse_mask, read_mask
from completion.named import draw_named_mask
from completion.networks import Runner, by_size, open_weights, resolve, runner
from completion.octave import is_soft, sharpen
from completion.poisson import blend
from completion.references import Reference, References, choose
from completion.regions import Regions, divide, touches
from completion.step import Step
from completion.tone import Stretch, Tone, grey
from dcgan.holes import LOWRES_SCALE
from dcgan.weights import Weights, WeightsError
from weights import AUTO

_POOL = 16  # candidates searched for each one returned
_AGREES = 1.1  # maximum context loss of a returned candidate, as a multiple of the best one's
_ONE_SIDED = 0.12  # smaller shares of a hole whose mirror image is visible bring no detail
# An area that every head covers in the template "face", as (x, y) shares of the crop.
_FACE = np.array([(0.21, 0.2), (0.79, 0.2), (0.79, 0.76), (0.67, 0.88), (0.33, 0.88), (0.21, 0.76)])
_SPREAD = 30  # levels by which colours at the edge of a hole may differ from the usual, and change the face
_ALIGNED = 0.15  # largest distance of corners of a face's crop from those of an aligned photo, relative to its side
_GRAIN_REACH = 4  # width of the border around a hole where grain is measured, in pixels of the crop
_ENLARGED = 1.25  # maximum enlargement of a face before larger weights are used
_LEAST_DIFFERENCE = 1.5  # mean absolute difference between candidates in the hole, in levels
# Larger holes, areas around them and faces are completed at reduced size.
_LARGEST_HOLE_PX, _LARGEST_AREA_PX, _LARGEST_FACE_PX = 3_000_000, 12_000_000, 1024
_AROUND, _AROUND_PX, _AROUND_FACE = 0.5, 64, 1.5  # area around a hole, by its longer side and in pixels; around a face
_CANDIDATES_PX = 160_000_000  # of all candidates together, which take 6 bytes per pixel


@dataclass(frozen=True)
class Detail:
    """Where a face's fine structure comes from.

    Attributes:
        source: "its mirror image", or the file name of a reference photo.
        misfit: root mean square distance between the landmarks of the generated face and those of the source, in
            distances of the eyes; up to 0.2 for a mirror image and 0.15 for a reference.
    """

    source: str
    misfit: float


@dataclass(frozen=True, eq=False, repr=False)
class Completion:
    """A completed photo.

    Attributes:
        fills: uint8 (N, 3) each, the colours of the N pixels of the hole in different completions, the best first.
        photo: the photo.
        hole: bool (H, W), the pixels that were filled.
        faces: the faces that the hole touches.
        sources: origin of the hole's pixels -> bool (H, W), not empty: "face 1", "face 2" and so on for generated
            faces; "surroundings" for scratches and areas outside all faces, filled by a classical method.
        context: final context loss, averaged over the faces.
        hidden: number of faces that were found only in the original photo, by looking under the hole.
        unseen: whether a face has no visible pixels, so that it was generated at random.
        stopped_s: the time limit in seconds, if it ended the search; else None.
        search_s: duration of the search in seconds.
        details: for each detailed face in `sources`, where its fine structure comes from.
        remarks: what was found in the photo, the mask and reference photos, where that is not obvious.
    """

    fills: tuple[NDArray[np.uint8], ...]
    photo: Photo
    hole: NDArray[np.bool_]
    faces: tuple[Alignment, ...] = ()
    sources: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    context: float = 0.0
    hidden: int = 0
    unseen: bool = False
    stopped_s: float | None = None
    search_s: float = 0.0
    details: dict[str, Detail] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @cached_property
    def candidates(self) -> tuple[NDArray[np.uint8], ...]:
        """Different completions, the best first: uint8 (H, W, 3) each, equal to the photo outside the hole."""
        return tuple(filled(self.photo.pixels, self.hole, fill) for fill in self.fills)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The best completion: uint8 (H, W, 3)."""
        return self.candidates[0]

    @property
    def image(self) -> Image.Image:
        """The best completion in the photo's mode (L, LA, RGB or RGBA), with its colour profile."""
        image = merge(self.fills[0], self.photo, self.hole)
        if self.photo.icc_profile:
            image.info["icc_profile"] = self.photo.icc_profile
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the best completion with the photo's metadata, in the format of the suffix.

        Raises:
            PhotoError: the suffix is not supported, or the file cannot be written.
        """
        write_photo(Path(path), self.fills[0], self.photo, self.hole)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        height, width = self.hole.shape
        return f"<Completion of a photo of {width}x{height}: {', '.join(self.sources)}>"

    def _repr_png_(self) -> bytes:
        """Show the image in a notebook."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the hole by its origin, see `sources`."""
        size = int(self.hole.sum())
        return {name: float(part.sum() / size) for name, part in self.sources.items()}

    @property
    def figures(self) -> dict[str, float]:
        """Figures for reports: hole_share, faces, outside_share, context_loss, search_seconds."""
        return {
            "hole_share": float(self.hole.mean()),
            "faces": len(self.sources) - ("surroundings" in self.sources),
            "outside_share": self.shares.get("surroundings", 0.0),
            "context_loss": self.context,
            "search_seconds": self.search_s,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user, as sentences without a full stop."""
        notes = []
        if self.unseen:
            notes.append("a face has no visible pixels and was generated at random")
        if self.stopped_s is not None:
            notes.append(f"the search was stopped after {self.stopped_s:.3g} s; the best result so far was used")
        if self.hidden == 1:
            notes.append("a face was found only in the original photo; its position was used, not the colours")
        elif self.hidden:
            found = f"{self.hidden} faces were found only in the original photo"
            notes.append(f"{found}; their positions were used, not the colours")
        if outside := self.shares.get("surroundings"):
            notes.append(f"{outside:.0%} of the hole was filled from the surroundings instead of a generated face")
        for face, detail in self.details.items():
            limit = MIRROR_LIMIT if detail.source == MIRROR else REFERENCE_LIMIT
            notes.append(f"{face} has its detail from {detail.source} (misfit {detail.misfit:.2f}, limit {limit})")
        return (*notes, *self.remarks)


class FaceCompleter:
    """Completes photos: `completer(photo, mask)` returns the completed photo, `steps` also the search for it.

    Args:
        weights: trained networks; if there are several, each face uses those that fit its size in the photo.
        options: the defaults of `steps`, by name, see `completion.config.FillOptions`.
    Raises:
        ConfigError: an option has an unknown value.
        WeightsError: the weights have an unknown template or different ones, or lack the encoder of the solver.
        DeviceError: the device is absent.
        ModuleNotFoundError: the solver needs torch.
    """

    def __init__(self, weights: Weights | Sequence[Weights], **options: Any) -> None:
        self.options = FillOptions()
        self.options = self._chosen(options)
        self.weights = by_size(weights)
        templates = sorted({each.template for each in self.weights.values()})
        if len(templates) > 1 or templates[0] not in TEMPLATES:
            raise WeightsError(
                f"the weights are for faces aligned as {' and '.join(map(repr, templates))}, "
                f"expected one of {', '.join(TEMPLATES)}"
            )
        self.size = max(self.weights)
        self.template = TEMPLATES[templates[0]]
        self._runners: dict[tuple[int, str], Runner] = {}
        self.references = References()
        # Fails early if an encoder, torch or the device is missing.
        solver = self.options.solver
        self.gpu = any(self._runner(each, resolve(solver, each)).gpu for each in self.weights.values())

    @classmethod
    def load(cls, weights: str = AUTO, device: str = "auto", **options: Any) -> "FaceCompleter":
        """Load weights and create a completer.

        Args:
            weights: a name in the registry, a file, or "auto" to use for each face the weights that fit its size.
            device: auto, cpu, cuda or cuda:N.
            options: see the class.
        Raises:
            WeightsError, DeviceError: the weights or the device cannot be used.
            ConfigError: the device is no text, or an option is out of range.
        """
        check(LoadOptions(device=device))
        return cls(open_weights(weights, device), **options)

    def __call__(self, photo: PhotoLike, mask: MaskLike | MaskSpec, **options: Any) -> Completion:
        """Fill a hole in a photo; see `steps` for arguments and errors."""
        return next(item for item in self.steps(photo, mask, **options) if isinstance(item, Completion))

    def locate(self, photo: PhotoLike, every: bool = False, aligned: bool | None = None) -> list[Alignment]:
        """Find the faces of a photo, the largest first, as crops of the size of the weights that fit them.

        A Photo remembers its faces.

        Args:
            photo: see align.photo.as_photo.
            every: also search large photos for small faces.
            aligned: take a square photo of the weights' size as an aligned face without a search; None for the option
                of the completer.
        Raises:
            NoFaceError: no face was found.
            PhotoError: the photo cannot be used.
        """
        photo = as_photo(photo)
        aligned = self.options.aligned if aligned is None else aligned
        key = self.template.name, tuple(self.weights), every, aligned
        if key not in photo.faces:
            found = self._aligned(photo, aligned) or locate.locate(photo.pixels, self.template, self.size, every)
            photo.faces[key] = [self._fitted(face) for face in found]
        if not photo.faces[key]:
            raise NoFaceError(f"no face was found; {self._advice}")
        return photo.faces[key]

    def locate_under(
        self, photo: PhotoLike, hole: NDArray[np.bool_], aligned: bool | None = None
    ) -> tuple[list[Alignment], int]:
        """Find the faces that a hole (H, W) may cover, and how many of them show only in the original photo.

        Args:
            photo: see align.photo.as_photo.
            hole: bool (H, W).
            aligned: see `locate`.
        """
        photo = as_photo(photo)
        whole = self._aligned(photo, self.options.aligned if aligned is None else aligned)
        return faces_under(photo.pixels, hole, self.template, self.size) if whole is None else (whole, 0)

    def place(
        self, photo: PhotoLike, mask: str, faces: Sequence[Alignment] | None = None, **options: Any
    ) -> tuple[NDArray[np.bool_], Sequence[Alignment]]:
        """Place a named mask on the faces of a photo.

        Args:
            photo: see align.photo.as_photo.
            mask: names, see dcgan.holes.named_hole.
            faces: the faces to choose from; None to detect them, unless the options give one.
            options: changes to the options of the completer, see `completion.config.FillOptions`.
        Returns:
            The hole, bool (H, W), and the faces it is placed on.
        Raises:
            MaskError: the hole cannot be created.
            NoFaceError: no face was found, or its position is impossible.
        """
        chosen = self._chosen(options)
        photo, every = as_photo(photo), chosen.on == "all"
        faces = faces or given_face(chosen, photo.pixels.shape[:2], self.template, self.size)
        faces = faces or self.locate(photo, every, chosen.aligned)
        faces = faces if every else faces[:1]
        return draw_named_mask(photo.pixels, mask, faces, chosen.seed), faces

    def mark(
        self,
        photo: Photo,
        mask: MaskLike | MaskSpec,
        faces: Sequence[Alignment] | None = None,
        invert: bool = False,
        **options: Any,
    ) -> tuple[NDArray[np.bool_], Sequence[Alignment] | None, tuple[str, ...]]:
        """Find the pixels that a mask of any kind marks.

        Args:
            photo: the photo.
            mask: names, "alpha", "damage" and files, separated by commas, see completion.masks.parse_mask; else an
                image, see completion.masks.read_mask.
            faces: the faces to choose from for names; None to detect them.
            invert: invert files, images and alpha.
            options: see `steps`.
        Returns:
            The hole, bool (H, W), empty only if there is no damage; the faces, if the mask is placed on them alone; and
            notes on how it was read.
        Raises:
            MaskError: the mask cannot be used.
            NoFaceError: a name was given, and no face was found.
        """
        chosen = self._chosen(options)
        if faces is None:
            faces = given_face(chosen, photo.pixels.shape[:2], self.template, self.size)
        spec = parse_mask(mask) if isinstance(mask, str) else mask
        if not isinstance(spec, MaskSpec):
            hole, notes = read_mask(spec, photo, invert)
            return hole, faces, notes
        if invert and spec.names:
            raise MaskError(f"the mask {spec.names} is a name; only mask files and alpha can be inverted")
        hole, notes = np.zeros(photo.pixels.shape[:2], dtype=bool), ()
        if spec.alpha:
            hole, notes = alpha_hole(photo, invert)
        if spec.damage is not None:
            damage = find_damage(photo, spec.damage)
            share = f"damage was found in {damage.mean():.2%} of the photo"
            notes += (share if damage.any() else "no damage was found",)
            hole |= damage
        for file in spec.files:
            part, found = read_mask(file, photo, invert)
            hole |= part
            notes += found
        if spec.names:
            part, placed = self.place(photo, spec.names, faces, **options)
            hole |= part
            faces = placed if not (spec.alpha or spec.files or spec.damage) else faces
        return hole, faces, notes

    def steps(
        self,
        photo: PhotoLike,
        mask: MaskLike | MaskSpec,
        *,
        faces: Sequence[Alignment] | None = None,
        landmarks: ArrayLike | None = None,
        lowres: bool = False,
        **options: Any,
    ) -> Iterator[Step | Completion]:
        """Fill a hole in a photo, and report every step of the search.

        Args:
            photo: see align.photo.as_photo; not modified. Colours under the hole are used only with `lowres`.
            mask: see `mark`.
            faces: faces from `locate` or align.locate. None to detect them in the visible part and, where much of
                the hole is then left without a face, in the original photo.
            landmarks: (5, 2) or (68, 2) in the photo's pixels and dlib's order, those of one face, or of several.
            lowres: match the means of 4x4 blocks of the aligned face, under the hole too; implied by the mask "lowres".
            options: changes to the options of the completer, see `completion.config.FillOptions`. All candidates
                together have at most 160 million pixels. At the time limit, the search ends with its best result so
                far, and no further candidate is blended.
        Yields:
            a Step per step of the search for a face, then the Completion.
        Raises:
            ConfigError: an option has an unknown value.
            PhotoError: the photo cannot be used.
            MaskError: the mask cannot be used, is empty, or its size differs from the photo's.
            NoFaceError: no face was found for a named mask or, unless `no_face` is "fill", under the hole.
        """
        chosen, began = self._chosen(options), time.monotonic()
        photo = as_photo(photo)
        height, width = photo.pixels.shape[:2]
        if chosen.candidates > (most := max(1, _CANDIDATES_PX // (height * width))):
            raise InputError(
                f"candidates is {chosen.candidates}; expected at most {most} for a photo of {width}x{height}"
            )
        faces = as_faces(faces) if landmarks is None else faces_by_landmarks(landmarks, self.template, self.size)
        hole, faces, notes = self.mark(photo, mask, faces, **options)
        spec = parse_mask(mask) if isinstance(mask, str) else mask
        lowres = bool(lowres) or isinstance(spec, MaskSpec) and spec.names == "lowres"
        if not hole.any():
            if not isinstance(spec, MaskSpec) or spec.damage is None:
                raise MaskError("the hole is empty; mark at least one pixel to fill")
            yield Completion((photo.pixels[hole],), photo, hole, remarks=photo.notes + notes)
            return
        if isinstance(spec, MaskSpec) and spec.damage is not None and chosen.no_face is None:
            chosen = replace(chosen, no_face="fill")
        for item in self._complete(photo, hole, faces, lowres, chosen, began):
            yield replace(item, remarks=photo.notes + notes + item.remarks) if isinstance(item, Completion) else item

    def complete_crops(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], **options: Any) -> NDArray[np.uint8]:
        """Fill holes in a batch of aligned faces.

        Args:
            crops: uint8 (N, S, S, 3), with S the size of one of the weights.
            holes: bool (N, S, S), True = fill this.
            options: see `steps`; faces, candidates and the time limit have no effect.
        Returns:
            uint8 (N, S, S, 3).
        Raises:
            InputError: crops or holes have another type or shape, or there are none.
        """
        chosen = self._chosen(options)
        for name, value, kind in (("crops", crops, np.uint8), ("holes", holes, np.bool_)):
            if not isinstance(value, np.ndarray) or value.dtype != kind or value.shape[:3] != crops.shape[:3]:
                raise InputError(f"{name} is {_described(value)}; expected uint8 (N, S, S, 3) and bool (N, S, S)")
        size = crops.shape[1] if crops.ndim == 4 else 0
        if size not in self.weights or crops.shape != (len(crops), size, size, 3) or holes.ndim != 3 or not len(crops):
            sizes = " or ".join(map(str, self.weights))
            raise InputError(f"crops is {_described(crops)}; expected uint8 (N, S, S, 3) with S = {sizes} and N from 1")
        visible = np.stack([inpaint(crop, hole) for crop, hole in zip(crops, holes, strict=True)])
        weights = self.weights[crops.shape[1]]
        solver = self._solver(weights, replace(chosen, candidates=1))
        *_, step = self._runner(weights, solver).solve(visible, holes, solver, chosen.seed)
        made = zip(visible, step.best_images, holes, strict=True)
        return np.stack([blend(crop, face, hole, chosen.blend, limit=_SPREAD) for crop, face, hole in made])

    def _complete(
        self,
        photo: Photo,
        hole: NDArray[np.bool_],
        faces: Sequence[Alignment] | None,
        lowres: bool,
        options: FillOptions,
        began: float,
    ) -> Iterator[Step | Completion]:
        """Complete the area around a hole and its faces; a large one at reduced size, which bounds time and memory.

        The arguments are those of `steps`, and the time at which it began.
        """
        # Find the faces, and cut out the area.
        hidden = 0
        if faces is None:
            faces, hidden = self.locate_under(photo, hole, options.aligned)
        faces = [self._fitted(face) for face in faces if touches(hole, face)]
        if not faces and (options.no_face != "fill" or hole.all()):
            raise NoFaceError(f"no face was found under the hole; mark part of a face, {self._advice}")
        rows, columns = area = _area(hole, faces)
        pixels, part, corner = photo.pixels[area], hole[area], (columns.start, rows.start)
        sides = [face.size / face.scale for face in faces]
        scale = min(
            1.0,
            math.sqrt(_LARGEST_HOLE_PX / hole.sum()),
            math.sqrt(_LARGEST_AREA_PX / part.size),
            *(_LARGEST_FACE_PX / side for side in sides),
        )
        if scale < 1:
            pixels, part = reduce_visible(pixels, part, scale)
        near = Photo(pixels, pixels, None, None, None, photo.sha256)
        done = Completion((pixels[part],), near, part)
        for item in self._fill(near, part, [face.cut(corner, scale) for face in faces], lowres, options, began):
            if isinstance(item, Completion):
                done = item
            else:
                yield replace(item, alignment=item.alignment.uncut(corner, scale))

        # Put the fill into the photo.
        rest = hole[area].copy()
        size = rest.shape[::-1]
        enlarged = [cv2.resize(each, size, interpolation=cv2.INTER_CUBIC)[rest] for each in done.candidates]
        sources: dict[str, NDArray[np.bool_]] = {}
        # Pixels of a fine hole are filled from the visible ones between them.
        for name, where in (*done.sources.items(), ("surroundings", np.ones_like(part))):
            inside = rest & (cv2.resize(where.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)
            if inside.any():
                sources.setdefault(name, np.zeros(hole.shape, dtype=bool))[area][inside] = True
                rest &= ~inside
        yield replace(
            done,
            fills=tuple(fill.astype(np.uint8, copy=False) for fill in enlarged),
            photo=photo,
            hole=hole,
            faces=tuple(face.uncut(corner, scale) for face in done.faces),
            sources=sources,
            hidden=hidden,
        )

    def _fill(
        self,
        photo: Photo,
        hole: NDArray[np.bool_],
        faces: Sequence[Alignment],
        lowres: bool,
        options: FillOptions,
        began: float,
    ) -> Iterator[Step | Completion]:
        """Fill a hole at the size of the photo; see `_complete`."""
        if not hole.any():
            return
        pixels, visible, seed = photo.pixels, inpaint(photo.pixels, hole), options.seed
        ends = math.inf if options.seconds is None else began + options.seconds
        regions = divide(hole, faces)

        # Complete a photo of one tone in luminance.
        tone = Tone.of(pixels, visible, hole, regions.faces)
        references, remarks = self.references.find(options.reference, photo.sha256)
        if tone:
            pixels, visible = grey(pixels), grey(visible)
            references = [each.in_grey() for each in references]

        # Fill scratches first: they belong to what the networks see.
        if regions.scratches.any():
            visible = fsr_inpaint(visible, hole, regions.scratches)
        fills, contexts = [visible] * options.candidates, []
        stopped, unseen, search_s = False, False, 0.0
        unfilled = [hole & ~regions.scratches] * options.candidates
        inner = np.zeros_like(hole)  # eyes, noses and mouths, which must not be copied
        best: dict[str, Variant] = {}

        # Generate each face, and blend it into its part.
        for number, (face, part) in enumerate(zip(regions.faces, regions.parts, strict=True)):
            if not part.any():
                continue
            for step in self._search(number, regions, visible, pixels if lowres else None, tone is not None, options):
                yield step if tone is None else tone.coloured(step)
                search_s = time.monotonic() - began
                if time.monotonic() > ends:
                    break
            stopped |= step.number < step.steps
            unseen |= bool(step.holes.all()) and not lowres
            contexts.append(float(step.context[0, step.best[0]]))
            images = _different(step, len(fills))
            if lowres:
                images = [match_means(image, face.warp(pixels), LOWRES_SCALE) for image in images]
            variants = _pasted(face, images, visible, part)
            if options.detail == "auto" and not lowres and face.scale < 1 and self.template.name == "face":
                made = _detailed(step, images, visible, hole, part, references, tone is not None, options)
                variants, features, remark = made
                inner, remarks = inner | features, [*remarks, *remark]
            for index, variant in zip(range(len(fills)), variants, strict=False):
                best.setdefault(f"face {number + 1}", variant)
                unfilled[index] = unfilled[index] & ~variant.part
                if not variant.part.any():
                    continue
                rest = unfilled[index] if is_wide(unfilled[index]) else None  # narrow gaps are filled already
                fill = blend(fills[index], variant.pixels, variant.part, options.blend, rest, _SPREAD)
                scale = 1 / face.scale  # pixels of the photo per pixel of the crop
                if scale > 1 and options.blend != "none":
                    fill = grain(fill, variant.part, hole, _GRAIN_REACH * scale, seed)
                fills[index] = fill
                if index + 1 < len(fills) and time.monotonic() > ends:
                    fills, stopped = fills[: index + 1], True
                    break

        # Fill what lies beside the faces, and bring the fills to the photo's tone.
        pairs = zip(fills, unfilled, strict=False)
        fills = [fill_around(fill, rest, inner) for fill, rest in pairs]
        inside = [fill[hole] for fill in fills]
        sources = {name: variant.part for name, variant in best.items()}
        sources["surroundings"] = regions.scratches | unfilled[0]
        yield Completion(
            _visibly_different([tone.colour(fill) for fill in inside] if tone else inside),
            photo,
            hole,
            tuple(regions.faces),
            {name: where for name, where in sources.items() if where.any()},
            context=float(np.mean(contexts or [0])),
            unseen=unseen,
            stopped_s=options.seconds if stopped else None,
            search_s=search_s,
            details={name: Detail(variant.source, variant.misfit) for name, variant in best.items() if variant.source},
            remarks=tuple(remarks),
        )

    def _search(
        self,
        number: int,
        regions: Regions,
        visible: NDArray[np.uint8],
        original: NDArray[np.uint8] | None,
        one_tone: bool,
        options: FillOptions,
    ) -> Iterator[Step]:
        """Search for the latent of one face; with `original`, from the block means of that photo."""
        face, block = regions.faces[number], 1 if original is None else LOWRES_SCALE
        weights = self.weights[face.size]
        solver = self._solver(weights, options, block)
        crops = face.warp(visible)[None]
        holes = hole_in_crop(np.logical_or.reduce([*regions.parts, regions.background]), face)[None]
        source = crops if original is None else face.warp(original)[None]
        stretch = Stretch.of(crops[0], holes[0], one_tone)
        for step in self._runner(weights, solver).solve(stretch.apply(source), holes, solver, options.seed, block):
            images = stretch.undo(step.images)
            yield replace(step, crops=crops, images=images, alignment=face, face=number, faces=len(regions.faces))

    def _chosen(self, changes: dict[str, Any]) -> FillOptions:
        """The options with changes.

        Raises:
            ConfigError: there is no such option, or a value is out of range.
        """
        names = vars(self.options)
        for name in changes:
            if name not in names:
                raise ConfigError(f"there is no option {name!r}; {hint(name, names)}")
        return replace(self.options, **changes)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_runners": {}}  # sessions of ONNX Runtime cannot be pickled; they are opened again

    def _runner(self, weights: Weights, solver: Solver) -> Runner:
        key = weights.size, solver.start
        if key not in self._runners:
            self._runners[key] = runner(weights, solver)
        return self._runners[key]

    def _solver(self, weights: Weights, options: FillOptions, block: int = 1) -> Solver:
        """The solver with the settings that the options change."""
        solver = resolve(options.solver, weights, block)
        if options.prior_weight is not None:
            solver = replace(solver, prior_weight=options.prior_weight)
        if options.candidates == 1:
            return solver
        pool = _POOL * options.candidates
        return replace(solver, candidates=max(solver.candidates, pool), samples=max(solver.samples, pool))

    def _aligned(self, photo: Photo, sure: bool) -> list[Alignment] | None:
        """Return the photo as the only face, if it has the size of weights and, unless `sure`, a face in place."""
        height, width = photo.pixels.shape[:2]
        if height != width or width not in self.weights:
            return None
        corners = width * np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
        found = [] if sure else locate.find_upright(photo.pixels, self.template, width)
        near = any(np.abs(face.apply(corners) - corners).max() < _ALIGNED * width for face in found)
        return [Alignment.identity(width)] if sure or near else None

    def _fitted(self, face: Alignment) -> Alignment:
        """Resize the crop of a face to the smallest weights that enlarge it by at most a quarter, or to the largest."""
        side_px = face.size / face.scale
        sizes = [size for size in self.weights if side_px <= _ENLARGED * size]
        return face.resized(sizes[0] if sizes else self.size)

    @property
    def _advice(self) -> str:
        return f"give its position (landmarks, box or eyes), or aligned for a crop of {self.size}x{self.size} pixels"


def _area(hole: NDArray[np.bool_], faces: Sequence[Alignment]) -> tuple[slice, slice]:
    """The rows and columns of a photo on which the fill of a hole (H, W) depends."""
    sides = box_around(hole)
    margin = round(_AROUND * max(side.stop - side.start for side in sides)) + _AROUND_PX
    ends = [[side.start - margin, side.stop + margin] for side in sides]
    for face in faces:
        view = view_of(face, reach=_AROUND_FACE)
        corners = transform(view.inverse, view.size * np.array([(0, 0), (1, 0), (0, 1), (1, 1)]))
        for end, values in zip(ends, corners.T[::-1], strict=True):
            end[:] = min(end[0], math.floor(values.min())), max(end[1], math.ceil(values.max()) + 1)
    rows, columns = (slice(max(0, low), min(high, side)) for (low, high), side in zip(ends, hole.shape, strict=True))
    return rows, columns


def _pasted(
    face: Alignment, images: Sequence[NDArray[np.uint8]], visible: NDArray[np.uint8], part: NDArray[np.bool_]
) -> Iterator[Variant]:
    """Put generated faces into a photo; blending reads one pixel around the hole."""
    return (Variant(face.paste(visible, image, beyond_px=2), part) for image in images)


def _detailed(
    step: Step,
    images: Sequence[NDArray[np.uint8]],
    visible: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    part: NDArray[np.bool_],
    references: Sequence[Reference],
    one_tone: bool,
    options: FillOptions,
) -> tuple[Iterator[Variant], NDArray[np.bool_], list[str]]:
    """Sharpen generated faces that are enlarged, and give the best one detail.

    Args:
        step: last step of the search for the face.
        images: uint8 (S, S, 3) each, generated faces, the best first.
        visible: uint8 (H, W, 3), the photo with its hole filled classically.
        hole: bool (H, W), the whole hole.
        part: bool (H, W), the part of the hole that belongs to the face.
        references: faces in reference photos.
        one_tone: whether the photo has three equal channels.
        options: number of variants, and how to blend.
    Returns:
        The variants, the best first; the features of the face, bool (H, W); and remarks.
    """
    face, covered = step.alignment, step.holes[0]
    if is_soft(face):
        blended = (blend(step.crops[0], image, covered, options.blend) for image in images)
        images = [sharpen(visible, hole, face, crop, one_tone) for crop in blended]
        face, completed = face.resized(2 * face.size), images[0]
    else:
        completed = blend(step.crops[0], images[0], covered)
    # The landmarks take half a second to load, and bring nothing where the mirror image is hidden as well.
    within = (
        cv2.fillConvexPoly(np.zeros_like(covered, np.uint8), np.round(_FACE * len(covered)).astype(np.int32), 1) > 0
    )
    if not references and (covered & ~covered[:, ::-1]).sum() < _ONE_SIDED * covered.sum() and within[covered].all():
        return _pasted(face, images, visible, part), np.zeros_like(hole), []
    generated = face.paste(visible, completed, beyond_px=2)
    coarse = np.where(part[..., None], generated, visible)
    landmarks = predict_aligned(coarse, face)
    portraits, remark = choose(references, coarse, face, landmarks, part)
    detailed = add_detail(Generated(visible, generated, hole, part, landmarks), portraits, options.candidates)
    plain = _pasted(face, images, visible, head_of(part, landmarks))
    remarks = [f"face {step.face + 1}: {remark}"] if remark else []
    return chain(detailed, plain), inner_face(landmarks, hole.shape), remarks


def _visibly_different(fills: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], ...]:
    """Leave out fills that look like one before them."""
    kept = [fills[0]]
    for fill in fills[1:]:
        if all(np.abs(fill.astype(np.int16) - other).mean() >= _LEAST_DIFFERENCE for other in kept):
            kept.append(fill)
    return tuple(kept)


def _different(step: Step, count: int) -> list[NDArray[np.uint8]]:
    """Select the best candidate for a face, then repeatedly the one farthest in its hole from those selected.

    Prefers candidates that match the visible pixels about as well as the best one.

    Returns:
        uint8 (S, S, 3) each, at most `count`, in order of their total loss.
    """
    order = step.total[0].argsort(kind="stable")
    context = step.context[0, order]
    enough = np.sort(context)[min(count, len(order)) - 1]
    order = order[context <= max(_AGREES * context[0], enough)]
    images = step.images[0, order]
    inside = images[:, step.holes[0]].reshape(len(images), -1).astype(np.float32)
    distances = np.stack([np.abs(inside - each).mean(axis=1) for each in inside])
    taken = [0]
    while len(taken) < min(count, len(order)):
        taken.append(int(distances[:, taken].min(axis=1).argmax()))
    return list(images[sorted(taken)])


def _described(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"
