"""Tests of completing photos in memory: faces, holes, blending, candidates, and unchanged pixels elsewhere."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, PORTRAIT, box, save
from PIL import Image, ImageCms
from scipy import ndimage

from align import locate
from align.errors import ConfigError, InputError, MaskError, NoFaceError
from align.landmarks import find_faces
from align.photo import Photo, PhotoLike, as_photo
from align.warp import Alignment, transform
from completion.completer import FaceCompleter
from completion.config import SOLVERS
from completion.inpaint import inpaint
from completion.masks import MaskLike
from completion.named import draw_named_mask
from completion.regions import divide
from completion.result import Completion
from completion.search import Search
from completion.step import Step
from dcgan.networks import Discriminator, Generator
from dcgan.weights import Weights, WeightsError

SHORT = replace(SOLVERS["search"], steps=2, samples=4, candidates=2)


@pytest.fixture(scope="module")
def completer(small_weights: Weights) -> FaceCompleter:
    # What untrained networks draw has no landmarks to fit detail to; tests/test_completion_detail.py has trained ones.
    return FaceCompleter(small_weights, solver=SHORT, detail="network", aligned=True)


@pytest.fixture(scope="module")
def portrait() -> Photo:
    """A photo of one face, read-only, which remembers its face."""
    pixels = PORTRAIT.copy()
    pixels.flags.writeable = False
    return as_photo(pixels)


@pytest.fixture(scope="module")
def found(completer: FaceCompleter, portrait: Photo) -> Alignment:
    [alignment] = completer.locate(portrait)
    return alignment


def of_size(weights: Weights, size: int) -> Weights:
    """Random networks of another size."""
    config = replace(weights.network, size=size)
    return Weights.of(*(network(config).eval().requires_grad_(False) for network in (Generator, Discriminator)))


@pytest.fixture(scope="module")
def pair() -> Photo:
    """A photo of two faces."""
    return as_photo(np.hstack([PORTRAIT, PORTRAIT]))


def run(
    completer: FaceCompleter, photo: PhotoLike, mask: MaskLike, faces: Sequence[Alignment] | None = None, **options: Any
) -> tuple[list[Step], Completion]:
    """The steps and the completion, which differs from the photo only in the hole."""
    *steps, completed = completer.steps(photo, mask, faces=faces, **options)
    assert isinstance(completed, Completion)
    for candidate in completed.candidates:
        assert np.array_equal(candidate[~completed.hole], completed.photo.pixels[~completed.hole])
    assert np.array_equal(np.logical_or.reduce(list(completed.sources.values())), completed.hole)
    return [step for step in steps if isinstance(step, Step)], completed


def overwritten(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The photo with noise under the hole."""
    noise = np.random.default_rng(5).integers(0, 256, photo.shape, dtype=np.uint8)
    return np.where(hole[..., None], noise, photo)


# Aligned faces


def test_an_aligned_face_is_used_unchanged(completer: FaceCompleter) -> None:
    steps, completed = run(completer, FACE, CENTER)
    assert [(step.number, step.steps, step.face, step.faces) for step in steps] == [(n, 2, 0, 1) for n in range(3)]
    for step in steps:
        assert np.array_equal(step.crops[0][~CENTER], FACE[~CENTER]) and np.array_equal(step.holes[0], CENTER)
    assert not np.array_equal(completed.pixels[CENTER], FACE[CENTER])
    assert completed.context == float(steps[-1].context[0, steps[-1].best[0]])
    assert np.array_equal(completed.sources["face 1"], CENTER) and len(completed.sources) == 1
    unblended = run(completer, FACE, CENTER, blend="none")[1]
    assert np.array_equal(unblended.pixels, steps[-1].previews[0])


@pytest.mark.parametrize("lowres", [False, True])
def test_a_full_hole_gives_a_random_face(completer: FaceCompleter, lowres: bool) -> None:
    steps, completed = run(completer, FACE, np.ones((32, 32), dtype=bool), lowres=lowres)
    assert np.array_equal(completed.pixels, steps[-1].previews[0]) != lowres
    means, wanted = (pixels.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)) for pixels in (completed.pixels, FACE))
    assert (np.abs(means - wanted).max() <= 1) == lowres and completed.unseen != lowres
    assert not np.array_equal(completed.pixels, FACE)


@pytest.mark.parametrize("hole", [(9, 10, 9, 10), (9, 10, 3, 17), (0, 8, 5, 14), (0, 8, 0, 8), (8, 32, 0, 32)], ids=str)
def test_small_holes_and_holes_at_the_border_are_filled(
    completer: FaceCompleter, hole: tuple[int, int, int, int]
) -> None:
    run(completer, FACE, box(FACE.shape, *hole))


@pytest.mark.parametrize("blend", ["poisson", "alpha", "none"])
def test_pixels_under_the_hole_have_no_effect(completer: FaceCompleter, portrait: Photo, blend: str) -> None:
    mouth, far = box(PORTRAIT.shape, 140, 165, 95, 135), box(PORTRAIT.shape, 205, 225, 0, 30)
    for photo, hole in ((portrait.pixels, mouth | far), (FACE, box(FACE.shape, 0, 20, 10, 32))):
        one, other = (run(completer, each, hole, blend=blend)[1] for each in (photo, overwritten(photo, hole)))
        assert np.array_equal(one.pixels[hole], other.pixels[hole]) and one.context == other.context


def test_the_seed_repeats_a_completion(completer: FaceCompleter) -> None:
    one, again, other = (run(completer, FACE, CENTER, seed=seed)[1].pixels for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_a_batch_of_crops_is_completed_like_each_alone(encoder_weights: Weights) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)  # as far apart as in photos
    holes = np.stack([box((32, 32), 8, 24, left, left + 16) for left in (0, 8, 16)])
    completer = FaceCompleter(encoder_weights, aligned=True)
    for solver in ("encoder", SHORT):
        together = completer.complete_crops(crops, holes, solver=solver)
        for crop, hole, completed in zip(crops, holes, together, strict=True):
            assert np.array_equal(completed[~hole], crop[~hole])
            alone = run(completer, crop, hole, solver=solver)[1].pixels
            assert np.abs(alone.astype(int) - completed).max() <= 1


# Whole photos


def test_a_small_spot_of_a_large_photo_is_a_hole_in_the_crop(
    completer: FaceCompleter, portrait: Photo, found: Alignment
) -> None:
    steps, _ = run(completer, portrait, box(PORTRAIT.shape, 147, 153, 113, 119))
    [hole] = steps[0].holes
    assert 1 <= hole.sum() <= 9  # 6 px of the photo are 1.4 px of the crop
    v, u = np.argwhere(hole).mean(axis=0)
    assert np.abs(found.apply(np.array([115.5, 149.5])) - [u, v]).max() < 1


def test_scratches_are_filled_from_their_surroundings(completer: FaceCompleter, portrait: Photo) -> None:
    scratch = box(PORTRAIT.shape, 110, 112, 60, 170)
    steps, completed = run(completer, portrait, scratch)
    assert not steps and completed.sources.keys() == {"surroundings"}
    fills = completed.pixels, inpaint(PORTRAIT, scratch)
    error, classical = (np.abs(fill.astype(float) - PORTRAIT)[scratch].mean() for fill in fills)
    assert error < 1.2 * classical


def test_there_is_no_seam_at_the_border_of_the_crop(
    completer: FaceCompleter, portrait: Photo, found: Alignment
) -> None:
    hole = draw_named_mask(PORTRAIT, "full", [found])
    rim = ndimage.binary_dilation(~hole) & hole
    poisson, none = (
        np.abs(run(completer, portrait, hole, [found], blend=blend)[1].pixels[rim].astype(float) - known).mean()
        for known in [inpaint(PORTRAIT, hole)[rim]]
        for blend in ("poisson", "none")
    )
    assert poisson < 0.15 * none


def test_each_face_gets_the_weights_that_fit_its_size(small_weights: Weights) -> None:
    larger = of_size(small_weights, 64)
    both = FaceCompleter([larger, small_weights], solver=SHORT)
    [found] = both.locate(PORTRAIT)
    side = found.size / found.scale
    for times, expected in ((0.25, small_weights), (2.0, larger)):
        photo = cv2.resize(PORTRAIT, None, fx=times, fy=times, interpolation=cv2.INTER_AREA).astype(np.uint8)
        assert (times * side <= 1.25 * 32) == (expected.size == 32)
        scaled = Alignment(np.hstack([found.matrix[:, :2] / times, found.matrix[:, 2:]]), found.size)
        hole = box(photo.shape, *(round(times * at) for at in (90, 140, 90, 140)))
        one, alone = (run(each, photo, hole, [scaled])[1] for each in (both, FaceCompleter(expected, solver=SHORT)))
        assert np.array_equal(one.pixels, alone.pixels)
        assert both.locate(np.zeros((expected.size, expected.size, 3), np.uint8), aligned=True)[0].size == expected.size
    aligned = as_photo(FACE)
    assert both.locate(aligned, aligned=True)[0].size == 32
    with pytest.raises(NoFaceError):  # what a Photo remembers is not used for other weights
        FaceCompleter(larger, solver=SHORT).locate(aligned)


def test_several_faces_are_filled_independently(completer: FaceCompleter, pair: Photo) -> None:
    faces = completer.locate(pair)
    both = draw_named_mask(pair.pixels, "center", faces)
    steps, together = run(completer, pair, both, faces)
    assert [step.face for step in steps] == [0, 0, 0, 1, 1, 1] and {step.faces for step in steps} == {2}
    assert together.sources.keys() == {"face 1", "face 2"}
    for left in (0, 230):
        half = both & box(both.shape, 0, 230, left, left + 230)
        assert half.any() and any(np.array_equal(part, half) for part in together.sources.values())
        steps, alone = run(completer, pair, half, faces)
        assert {step.faces for step in steps} == {1} and alone.sources.keys() == {"face 1"}
        assert np.array_equal(together.pixels[half], alone.pixels[half])


def test_a_hole_partly_outside_every_face_is_filled_classically_there(
    completer: FaceCompleter, portrait: Photo, found: Alignment
) -> None:
    far = box(PORTRAIT.shape, 205, 225, 0, 30)
    hole = far | draw_named_mask(PORTRAIT, "mouth", [found])
    completed = run(completer, portrait, hole)[1]
    assert np.array_equal(completed.sources["surroundings"], far)
    assert np.array_equal(completed.pixels[far], inpaint(PORTRAIT, far)[far])


def test_a_hole_without_a_face_is_refused_or_filled_from_its_surroundings(
    completer: FaceCompleter, portrait: Photo
) -> None:
    with pytest.raises(NoFaceError, match="no face was found under the hole.*landmarks, box or eyes.*32x32"):
        completer(portrait, box(PORTRAIT.shape, 205, 225, 0, 30))
    hole = box(NO_FACE.shape, 40, 50, 40, 50)
    completed = run(completer, NO_FACE, hole, no_face="fill")[1]
    assert completed.sources.keys() == {"surroundings"} and completed.faces == ()
    assert np.array_equal(completed.pixels, NO_FACE)  # which is uniform
    spot = box(PORTRAIT.shape, 140, 160, 105, 125)  # on a face; an empty list says that there is none
    assert run(completer, portrait, spot, [], no_face="fill")[1].sources.keys() == {"surroundings"}
    for photo, mask in ((NO_FACE, hole), (NO_FACE, np.ones_like(hole))):
        with pytest.raises(NoFaceError):
            completer(photo, mask, no_face="fail" if mask is hole else "fill")


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (31, 32), (2, 2), (100, 100)])
def test_tiny_and_plain_photos_contain_no_face(completer: FaceCompleter, shape: tuple[int, int]) -> None:
    for mask in (box(shape, 0, 1, 0, 1), "center"):
        with pytest.raises(NoFaceError, match="no face was found.*32x32"):
            completer(np.full((*shape, 3), 128, dtype=np.uint8), mask)


def test_pixels_outside_the_photo_are_part_of_the_hole(completer: FaceCompleter, found: Alignment) -> None:
    top = int(np.nonzero(found.footprint(PORTRAIT.shape[:2]))[0].min()) + 45
    cut = np.ascontiguousarray(PORTRAIT[top:])
    moved = Alignment(found.matrix @ np.array([[1, 0, 0], [0, 1, top], [0, 0, 1]]), 32)
    steps, _ = run(completer, cut, draw_named_mask(cut, "bottom", [moved]), [moved])
    beyond, [hole] = round(45 * found.scale), steps[0].holes
    assert hole[: beyond - 1].all() and not hole[beyond + 2 : 14].any()
    assert run(completer, cut, "full", [moved])[1].sources.keys() == {"face 1"}


def test_lowres_of_a_whole_photo_sees_the_colours_under_the_hole(
    completer: FaceCompleter, portrait: Photo, found: Alignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, solve = [], Search.solve
    monkeypatch.setattr(Search, "solve", lambda self, crops, *rest: seen.append(crops[0]) or solve(self, crops, *rest))
    _, completed = run(completer, portrait, "lowres")
    run(completer, portrait, completed.hole, [found])
    assert np.array_equal(seen[0], found.warp(PORTRAIT)) and not np.array_equal(seen[0], seen[1])


def test_photo_hole_and_matrices_are_not_modified(completer: FaceCompleter, portrait: Photo, found: Alignment) -> None:
    hole = draw_named_mask(PORTRAIT, "center", [found])
    before = hole.copy(), found.matrix.copy()
    hole.flags.writeable = False
    completed = run(completer, portrait, hole, [found])[1]
    assert not np.shares_memory(completed.pixels, portrait.pixels)
    for was, now in zip((PORTRAIT, *before), (portrait.pixels, hole, found.matrix), strict=True):
        assert np.array_equal(was, now)


# Hidden faces


def test_a_hidden_face_is_found_in_the_original_photo(
    completer: FaceCompleter, portrait: Photo, found: Alignment
) -> None:
    hole = draw_named_mask(PORTRAIT, "full", [found])
    completed = run(completer, portrait, hole)[1]
    assert completed.hidden == 1 and completed.sources.keys() == {"face 1"}
    expected = run(completer, overwritten(PORTRAIT, hole), hole, [found])[1]
    assert np.array_equal(completed.pixels, np.where(hole[..., None], expected.pixels, PORTRAIT))  # only its position
    with pytest.raises(NoFaceError, match="box or eyes"):
        completer(inpaint(PORTRAIT, hole), hole)


def test_a_hidden_face_is_found_beside_a_visible_one(completer: FaceCompleter, pair: Photo) -> None:
    faces, right = completer.locate(pair), box(pair.pixels.shape, 0, 230, 230, 460)
    full, mouth = (draw_named_mask(pair.pixels, mask, faces) for mask in ("full", "mouth"))
    hole = full & right | mouth & ~right
    completed = run(completer, pair, hole)[1]
    assert completed.hidden == 1 and run(completer, pair, hole & ~right)[1].hidden == 0
    assert np.array_equal(completed.sources["face 1"], hole & ~right)
    assert np.array_equal(completed.sources["face 2"], hole & right)


def test_a_face_that_is_largely_covered_is_aligned_by_its_completion() -> None:
    completer = FaceCompleter.load("faces-64", "cpu")
    [true] = completer.locate(PORTRAIT)
    eyes = transform(true.inverse, np.array(completer.template.targets) * true.size)
    hole = draw_named_mask(PORTRAIT, "left", [true])
    covered = np.where(hole[..., None], np.uint8(255), PORTRAIT)

    def off(found: Alignment) -> float:
        away = transform(found.inverse, np.array(completer.template.targets) * found.size) - eyes
        return float(np.linalg.norm(away, axis=1).max() / np.linalg.norm(eyes[1] - eyes[0]))

    [rough] = locate.locate(inpaint(covered, hole), completer.template, true.size)
    steps, _ = run(completer, covered, hole)
    assert off(steps[0].alignment) < 0.85 * off(rough)


def test_the_faces_of_a_photo_are_found_once(completer: FaceCompleter, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, find_faces = [], locate.find_faces
    monkeypatch.setattr(locate, "find_faces", lambda *a, **k: calls.append(len(a)) or find_faces(*a, **k))
    photo = as_photo(PORTRAIT)
    [first], [second] = completer.locate(photo), completer.locate(photo)
    assert len(calls) == 1 and first is second
    completer(photo, "center")
    assert len(calls) == 1
    completer.locate(photo, every=True)  # also searches for small faces
    searched = len(calls)
    completer(photo, "center", on="all")
    assert searched > 1 and len(calls) == searched
    completer.locate(PORTRAIT)  # not a Photo, which could remember
    assert len(calls) > searched


def test_a_square_is_an_aligned_face_if_its_face_lies_where_the_template_puts_it(
    small_weights: Weights, found: Alignment
) -> None:
    completer = FaceCompleter(of_size(small_weights, 128))
    aligned = found.resized(128).warp(PORTRAIT)
    assert np.array_equal(completer.locate(aligned)[0].matrix, np.eye(2, 3))
    for other in (aligned[:, ::-1], np.ascontiguousarray(cv2.resize(PORTRAIT, (128, 128)))):
        [face] = completer.locate(other)
        assert np.array_equal(face.matrix, np.eye(2, 3)) == (other.base is aligned)
        assert np.array_equal(completer.locate(other, aligned=True)[0].matrix, np.eye(2, 3))
    with pytest.raises(NoFaceError, match="or aligned for a crop of 128x128 pixels"):
        completer.locate(np.full((128, 128, 3), 128, dtype=np.uint8))


@pytest.mark.parametrize("points", [5, 68])
def test_landmarks_place_a_face(completer: FaceCompleter, portrait: Photo, points: int) -> None:
    [landmarks] = find_faces(PORTRAIT, points)
    hole = box(PORTRAIT.shape, 100, 130, 90, 120)
    [face] = completer(portrait, hole, landmarks=landmarks).faces
    [several] = completer(portrait, hole, landmarks=[landmarks.tolist()]).faces
    [expected] = completer(portrait, hole).faces
    assert np.array_equal(face.matrix, several.matrix)
    corners = 32.0 * np.array([(0, 0), (1, 0), (0, 1)])
    assert np.abs(face.apply(transform(expected.inverse, corners)) - corners).max() < 1.5
    wrong: list[Any] = [landmarks[:4], landmarks.T, landmarks * np.nan, landmarks * 0, "a", [1], {}]
    for each in wrong:
        with pytest.raises(InputError, match="the landmarks .*; expected finite"):
            completer(portrait, hole, landmarks=each)


# Options


def test_options_of_a_call_take_precedence_over_those_of_the_completer(small_weights: Weights) -> None:
    short = FaceCompleter(
        small_weights, solver=SHORT, blend="none", seed=7, prior_weight=2.0, candidates=2, aligned=True
    )
    default = FaceCompleter(small_weights, aligned=True)
    given = {"solver": SHORT, "blend": "none", "seed": 7, "prior_weight": 2.0, "candidates": 2}
    expected = short(FACE, CENTER).candidates
    assert np.array_equal(expected, default(FACE, CENTER, **given).candidates) and len(expected) == 2
    for name, value in {"blend": "alpha", "seed": 8, "prior_weight": 0.0, "candidates": 1}.items():
        assert not np.array_equal(expected, short(FACE, CENTER, **{name: value}).candidates), name
    first = next(short.steps(FACE, CENTER, solver="bamos"))
    assert isinstance(first, Step) and first.steps == SOLVERS["bamos"].steps


def test_wrong_options_and_names_get_a_suggestion(completer: FaceCompleter, small_weights: Weights) -> None:
    with pytest.raises(MaskError, match="no mask named 'moth'; did you mean 'mouth'?"):
        completer(FACE, "eyes,moth")
    for options, words in (
        ({"solver": "thorogh"}, "no solver named 'thorogh'; did you mean 'thorough'?"),
        ({"blend": "x"}, "blend is 'x'; expected one of poisson, alpha, none"),
        ({"no_face": "fil"}, "no_face is 'fil'; expected one of fill, fail"),
        ({"candidates": 0}, "candidates is 0; expected an integer from 1 to 64"),
        ({"box": (1, 2, 3, 4), "eyes": (1, 2, 3, 4)}, "both box and eyes are given"),
    ):
        with pytest.raises(ConfigError, match=words):
            completer(FACE, CENTER, **options)
        with pytest.raises(ConfigError, match=words):
            FaceCompleter(small_weights, **options)


def test_weights_that_do_not_serve_are_refused_at_once(small_weights: Weights) -> None:
    G, D = small_weights.generator, small_weights.discriminator
    with pytest.raises(WeightsError, match="aligned as 'mine', expected one of face, "):
        FaceCompleter(Weights.of(G, D, "mine"))
    with pytest.raises(WeightsError, match="no encoder"):
        FaceCompleter(small_weights, solver="encoder")


# Forms of photos and masks, and the result


def test_usual_forms_of_photos_and_masks_give_the_same_completion(completer: FaceCompleter, tmp_path: Path) -> None:
    photo, mask = save(tmp_path / "a.png"), save(tmp_path / "hole.png", np.where(CENTER, 255, 0))
    forms: list[tuple[PhotoLike, MaskLike]] = [
        (photo, mask),
        (str(photo), str(mask)),
        (Image.fromarray(FACE).convert("RGBA"), "center"),
        (FACE.astype(np.uint16) * 257, "center,center:0.3"),
        (as_photo(FACE), CENTER[..., None] * 255),
    ]
    expected = completer(FACE, CENTER).pixels
    for form in forms:
        completed = completer(*form)
        assert np.array_equal(completed.pixels, expected) and np.array_equal(completed.hole, CENTER)


def test_empty_holes_and_holes_of_another_size_are_refused(completer: FaceCompleter) -> None:
    for mask, words in ((CENTER & False, "empty"), (CENTER[1:], "the mask has 32x31 pixels and the photo 32x32")):
        with pytest.raises(MaskError, match=words):
            completer(FACE, mask)


def test_candidates_differ_and_the_best_comes_first(encoder_weights: Weights, portrait: Photo) -> None:
    completer = FaceCompleter(encoder_weights, solver="encoder", prior_weight=1.0)
    steps, several = run(completer, portrait, "center", candidates=4)
    assert steps[-1].total.shape == (1, 64) and steps[-1].best[0] == steps[-1].total[0].argmin()
    assert len(several.candidates) == 4 and several.pixels is several.candidates[0]
    for index, pixels in enumerate(several.candidates):
        assert all((pixels != other)[several.hole].mean() > 0.2 for other in several.candidates[:index])
    assert np.array_equal(completer(portrait, "center", candidates=4).candidates, several.candidates)
    assert len(completer(portrait, "center").candidates) == 1
    [face] = several.faces
    assert locate.is_among(face, completer.locate(portrait))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_the_image_has_the_mode_profile_and_pixels_of_the_photo(completer: FaceCompleter, mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = Image.fromarray(FACE).convert(mode)
    if "A" in mode:
        photo.putalpha(Image.fromarray(FACE[..., 1]))
    photo.info["icc_profile"] = profile
    image = completer(photo, CENTER).image
    assert image.mode == mode and image.size == (32, 32)
    assert image.info.get("icc_profile") == (profile if "RGB" in mode else None)  # an RGB profile does not fit grey
    before, after = np.asarray(photo), np.asarray(image)
    assert np.array_equal(after[~CENTER], before[~CENTER]) and not np.array_equal(after[CENTER], before[CENTER])


def test_notes_shares_and_figures_describe_a_completion() -> None:
    hole, part = box(FACE.shape, 0, 16, 0, 32), box(FACE.shape, 0, 12, 0, 32)
    plain = Completion((FACE[hole],), as_photo(FACE), hole, sources={"face 1": hole}, context=3.0, search_s=0.5)
    assert plain.shares == {"face 1": 1.0} and plain.notes == ()
    assert plain.figures == {
        "hole_share": 0.5, "faces": 1, "outside_share": 0.0, "context_loss": 3.0, "search_seconds": 0.5
    }  # fmt: skip
    mixed = replace(plain, sources={"surroundings": hole & ~part, "face 1": part}, unseen=True, stopped_s=2.0, hidden=1)
    assert mixed.shares == {"surroundings": 0.25, "face 1": 0.75}
    assert (mixed.figures["faces"], mixed.figures["outside_share"]) == (1, 0.25)
    assert mixed.notes == (
        "a face has no visible pixels and was generated at random",
        "the search was stopped after 2 s; the best result so far was used",
        "a face was found only in the original photo; its position was used, not the colours",
        "25% of the hole was filled from the surroundings instead of a generated face",
    )
    words = "2 faces were found only in the original photo; their positions were used, not the colours"
    assert replace(plain, hidden=2).notes == (words,)


# Large photos and holes


def test_only_the_area_around_the_hole_and_its_face_matters(completer: FaceCompleter, found: Alignment) -> None:
    hole, results = box((600, 900), 290, 320, 390, 420), []
    for noise in np.random.default_rng(0).integers(0, 256, (2, 600, 900, 3), dtype=np.uint8):
        noise[200:430, 300:530] = PORTRAIT
        results.append(run(completer, noise, hole, [found.cut((-300, -200))])[1])
    first, second = results
    assert np.array_equal(first.pixels[hole], second.pixels[hole])
    alone = run(completer, PORTRAIT, hole[200:430, 300:530], [found])[1]
    assert np.abs(first.pixels[hole].astype(int) - alone.pixels[alone.hole]).max() <= 1
    assert np.allclose(first.faces[0].matrix, found.cut((-300, -200)).matrix)


@pytest.mark.parametrize("kind", ["box", "noise", "all"])
def test_a_large_hole_is_completed_at_reduced_size(
    completer: FaceCompleter, portrait: Photo, found: Alignment, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hole = box(PORTRAIT.shape, 60, 180, 40, 200)
    if kind == "noise":
        hole = np.random.default_rng(0).random(PORTRAIT.shape[:2]) < 0.5
    elif kind == "all":
        hole[:] = True
    monkeypatch.setattr("completion.regions._LARGEST_HOLE_PX", 2_000)
    solved: list[int] = []

    def spy(hole: NDArray[np.bool_], faces: Any) -> Any:
        solved.append(int(hole.sum()))
        return divide(hole, faces)

    monkeypatch.setattr("completion.completer.divide", spy)
    steps, completed = run(completer, portrait, hole, [found], candidates=2)
    assert solved[0] < 2_500 and sum(int(part.sum()) for part in completed.sources.values()) == hole.sum()
    if kind == "box":
        for face in (completed.faces[0], steps[0].alignment):
            assert np.allclose(face.matrix, found.matrix)
        other = run(completer, np.where(hole[..., None], 255 - PORTRAIT, PORTRAIT), hole, [found], candidates=2)[1]
        assert np.array_equal(other.pixels[hole], completed.pixels[hole])
    elif kind == "noise":  # each missing pixel resembles its visible neighbours
        blurred = cv2.GaussianBlur(PORTRAIT, (0, 0), 4)
        error = np.abs(completed.pixels.astype(int) - blurred)[hole].mean()
        assert error < np.abs(inpaint(PORTRAIT, np.ones_like(hole)).astype(int) - blurred)[hole].mean()


def test_the_pixels_of_all_candidates_are_bounded(completer: FaceCompleter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("completion.completer._CANDIDATES_PX", 3 * 32 * 32)
    assert len(completer(FACE, CENTER, candidates=3).candidates) == 3
    with pytest.raises(InputError, match="candidates is 4; expected at most 3 for a photo of 32x32"):
        completer(FACE, CENTER, candidates=4)


CROPS, HOLES = np.zeros((1, 32, 32, 3), dtype=np.uint8), np.ones((1, 32, 32), dtype=bool)


@pytest.mark.parametrize(
    ("crops", "holes", "words"),
    [
        (CROPS[:, :30], HOLES, "crops is uint8|holes is bool"),
        (CROPS, HOLES[:0], "holes is bool"),
        (CROPS[:0], HOLES[:0], "N from 1"),
        (CROPS.astype(float), HOLES, "crops is float64"),
        (CROPS, HOLES.astype(int), "holes is int64"),
        ("x", HOLES, "crops is of type str"),
        (CROPS, None, "holes is of type NoneType"),
        (CROPS[..., 0], HOLES, "crops is uint8"),
        (np.zeros((1, 48, 48, 3), dtype=np.uint8), np.ones((1, 48, 48), dtype=bool), "S = 32"),
    ],
)
def test_crops_and_holes_of_another_kind_are_named(small_weights: Weights, crops: Any, holes: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        FaceCompleter(small_weights).complete_crops(crops, holes)


@pytest.mark.parametrize("device", [None, 0])
def test_a_device_of_another_type_is_named(device: Any) -> None:
    with pytest.raises(InputError, match=f"device is {device}; expected"):
        FaceCompleter.load(device=device)
