"""Complete a photo in memory: find the faces, generate what is missing, paste and blend."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from align import locate
from align.errors import ConfigError, InputError, MaskError, NoFaceError, hint
from align.photo import Photo, PhotoLike, as_photo
from align.settings import check
from align.template import TEMPLATES
from align.warp import Alignment
from completion.config import FillOptions, LoadOptions, Solver
from completion.damage import find_damage
from completion.detail import Variant
from completion.faces import as_faces, faces_by_landmarks, faces_under, given_face
from completion.grain import grain, match_means
from completion.inpaint import fill_around, fsr_inpaint, inpaint, is_wide, reduce_visible
from completion.masks import Marked, MaskLike, MaskSpec, alpha_hole, parse_mask, read_mask
from completion.named import draw_named_mask
from completion.networks import Runner, by_size, open_weights, resolve, runner
from completion.poisson import blend
from completion.references import References
from completion.regions import Regions, divide, hole_in_crop, touches, working_area
from completion.result import Completion, Detail
from completion.step import Step
from completion.tone import Stretch, Tone, grey
from completion.variants import detailed, different, pasted, visibly_different
from dcgan.holes import LOWRES_SCALE
from dcgan.weights import Weights, WeightsError
from weights import AUTO

_POOL = 16  # candidates searched for each one returned
_SPREAD = 30  # levels by which colours at the edge of a hole may differ from the usual, and change the face
_ALIGNED = 0.15  # largest distance of corners of a face's crop from those of an aligned photo, relative to its side
_GRAIN_REACH = 4  # width of the border around a hole where grain is measured, in pixels of the crop
_ENLARGED = 1.25  # maximum enlargement of a face before larger weights are used
_CANDIDATES_PX = 160_000_000  # of all candidates together, which take 6 bytes per pixel


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

    def __call__(self, photo: PhotoLike, mask: MaskLike | MaskSpec | Marked, **options: Any) -> Completion:
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
    ) -> Marked:
        """Find the pixels that a mask of any kind marks.

        Args:
            photo: the photo.
            mask: names, "alpha", "damage" and files, separated by commas, see completion.masks.parse_mask; else an
                image, see completion.masks.read_mask.
            faces: the faces to choose from for names; None to detect them.
            invert: invert files, images and alpha.
            options: see `steps`.
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
            return Marked(hole, faces, notes)
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
        return Marked(hole, faces, notes, spec.damage is not None, spec.names == "lowres")

    def steps(
        self,
        photo: PhotoLike,
        mask: MaskLike | MaskSpec | Marked,
        *,
        faces: Sequence[Alignment] | None = None,
        landmarks: ArrayLike | None = None,
        lowres: bool = False,
        **options: Any,
    ) -> Iterator[Step | Completion]:
        """Fill a hole in a photo, and report every step of the search.

        Args:
            photo: see align.photo.as_photo; not modified. Colours under the hole are used only with `lowres`.
            mask: see `mark`, or what it returned.
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
        if not isinstance(mask, Marked):
            faces = as_faces(faces) if landmarks is None else faces_by_landmarks(landmarks, self.template, self.size)
            mask = self.mark(photo, mask, faces, **options)
        remarks = photo.notes + mask.notes
        if not mask.hole.any():
            if not mask.damage:
                raise MaskError("the hole is empty; mark at least one pixel to fill")
            yield Completion((photo.pixels[mask.hole],), photo, mask.hole, remarks=remarks)
            return
        if mask.damage and chosen.no_face is None:
            chosen = replace(chosen, no_face="fill")
        for item in self._complete(photo, mask._replace(lowres=lowres or mask.lowres), chosen, began):
            yield replace(item, remarks=remarks + item.remarks) if isinstance(item, Completion) else item

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
        self, photo: Photo, marked: Marked, options: FillOptions, began: float
    ) -> Iterator[Step | Completion]:
        """Complete the area around a hole and its faces; a large one at reduced size, which bounds time and memory.

        The arguments are those of `steps`, and the time at which it began.
        """
        # Find the faces, and cut out the area.
        hole, faces, hidden = marked.hole, marked.faces, 0
        if faces is None:
            faces, hidden = self.locate_under(photo, hole, options.aligned)
        faces = [self._fitted(face) for face in faces if touches(hole, face)]
        if not faces and (options.no_face != "fill" or hole.all()):
            raise NoFaceError(f"no face was found under the hole; mark part of a face, {self._advice}")
        area, scale = working_area(hole, faces)
        pixels, part, corner = photo.pixels[area], hole[area], (area[1].start, area[0].start)
        if scale < 1:
            pixels, part = reduce_visible(pixels, part, scale)
        near = Photo(pixels, pixels, None, None, None, photo.sha256)
        moved = marked._replace(hole=part, faces=[face.cut(corner, scale) for face in faces])
        done = Completion((pixels[part],), near, part)
        for item in self._fill(near, moved, options, began):
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

    def _fill(self, photo: Photo, marked: Marked, options: FillOptions, began: float) -> Iterator[Step | Completion]:
        """Fill a hole at the size of the photo; see `_complete`."""
        hole, lowres = marked.hole, marked.lowres
        if not hole.any():
            return
        pixels, visible, seed = photo.pixels, inpaint(photo.pixels, hole), options.seed
        ends = math.inf if options.seconds is None else began + options.seconds
        regions = divide(hole, marked.faces or ())

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
            images = different(step, len(fills))
            if lowres:
                images = [match_means(image, face.warp(pixels), LOWRES_SCALE) for image in images]
            variants = pasted(face, images, visible, part)
            if options.detail == "auto" and not lowres and face.scale < 1 and self.template.name == "face":
                made = detailed(step, images, visible, hole, part, references, tone is not None, options)
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
            visibly_different([tone.colour(fill) for fill in inside] if tone else inside),
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


def _described(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"
