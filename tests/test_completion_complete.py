"""Tests of completing photos in memory: faces, holes, blending, and unchanged pixels elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from completion.complete import Completion, FaceCompleter, SearchStep
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, save
from PIL import Image, ImageCms
from scipy import ndimage

from align import locate
from align.errors import InputError, MaskError, NoFaceError
from align.landmarks import find_faces
from align.photo import PhotoLike
from align.warp import Alignment, transform
from completion import complete as complete_module
from completion import solve as solve_module
from completion.config import SOLVERS
from completion.inpaint import inpaint
from completion.masks import MaskLike
from dcgan.holes import HOLES
from dcgan.networks import Discriminator, Generator
from dcgan.weights import Weights, WeightsError

QUICK = replace(SOLVERS["search"], steps=2, draws=4, restarts=2)


@pytest.fixture(scope="module")
def completer(small_weights: Weights) -> FaceCompleter:
    return FaceCompleter(small_weights, QUICK)


@pytest.fixture(scope="module")
def face(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (230, 230, 3): a photo of one face, read-only."""
    pixels = astronaut[0:230, 110:340].copy()
    pixels.flags.writeable = False
    return pixels


@pytest.fixture(scope="module")
def found(completer: FaceCompleter, face: NDArray[np.uint8]) -> Alignment:
    [alignment] = completer.locate(face)
    return alignment


@pytest.fixture
def aligned() -> NDArray[np.uint8]:
    """An aligned face of the weights' size; untrained networks accept any picture."""
    pixels = np.random.default_rng(0).integers(80, 160, (32, 32, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    return pixels


def run(
    completer: FaceCompleter,
    photo: PhotoLike,
    mask: MaskLike,
    faces: Sequence[Alignment] | None = None,
    **settings: Any,
) -> tuple[list[SearchStep], Completion]:
    *progress, completion = completer.steps(photo, mask, faces=faces, **settings)
    assert isinstance(completion, Completion)
    return [item for item in progress if isinstance(item, SearchStep)], completion


def box(shape: Sequence[int], top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    hole = np.zeros(shape[:2], dtype=bool)
    hole[top:bottom, left:right] = True
    return hole


def overwritten(photo: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The photo with noise under the hole."""
    noise = np.random.default_rng(5).integers(0, 256, photo.shape, dtype=np.uint8)
    return np.where(hole[..., None], noise, photo)


# Aligned faces


def test_an_aligned_face_is_used_unchanged(completer: FaceCompleter, aligned: NDArray[np.uint8]) -> None:
    hole = box(aligned.shape, 8, 24, 8, 24)
    progress, completion = run(completer, aligned, hole)
    assert [item.step.number for item in progress] == [0, 1, 2]
    for item in progress:
        assert np.array_equal(item.crop[~hole], aligned[~hole]) and np.array_equal(item.hole, hole)
        assert (item.face, item.faces, item.steps) == (0, 1, 2)
    assert np.array_equal(completion.pixels[~hole], aligned[~hole])
    assert not np.array_equal(completion.pixels[hole], aligned[hole])
    last = progress[-1].step
    assert completion.context == float(last.context[0, last.best[0]])
    assert np.array_equal(completion.sources["face 1"], hole) and len(completion.sources) == 1


def test_without_blending_the_hole_holds_the_last_preview(small_weights: Weights, aligned: NDArray[np.uint8]) -> None:
    hole = box(aligned.shape, 8, 24, 8, 24)
    progress, completion = run(FaceCompleter(small_weights, QUICK, "none"), aligned, hole)
    assert np.array_equal(completion.pixels[hole], progress[-1].preview[hole])


@pytest.mark.parametrize("lowres", [False, True])
def test_a_full_hole_gives_a_random_face(completer: FaceCompleter, aligned: NDArray[np.uint8], lowres: bool) -> None:
    full = np.ones((32, 32), dtype=bool)
    progress, completion = run(completer, aligned, full, lowres=lowres)
    assert np.array_equal(completion.pixels, progress[-1].preview) != lowres
    means = completion.pixels.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    wanted = aligned.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert (np.abs(means - wanted).max() <= 1) == lowres
    assert not np.array_equal(completion.pixels, aligned)


def test_an_empty_hole_is_refused(completer: FaceCompleter, aligned: NDArray[np.uint8]) -> None:
    with pytest.raises(MaskError, match="empty"):
        run(completer, aligned, np.zeros((32, 32), dtype=bool))


def test_a_hole_of_another_size_is_refused(completer: FaceCompleter, aligned: NDArray[np.uint8]) -> None:
    with pytest.raises(MaskError, match="30x31, but the photo is 32x32"):
        run(completer, aligned, np.ones((31, 30), dtype=bool))


SMALL = {
    "one pixel": (9, 10, 9, 10),
    "one row": (9, 10, 3, 17),
    "one border": (0, 8, 5, 14),
    "two borders": (0, 8, 0, 8),
    "three borders": (8, 32, 0, 32),
}


@pytest.mark.parametrize("hole", SMALL.values(), ids=SMALL.keys())
def test_small_holes_and_holes_at_the_border_are_filled(
    completer: FaceCompleter, aligned: NDArray[np.uint8], hole: tuple[int, int, int, int]
) -> None:
    marked = box(aligned.shape, *hole)
    _, completion = run(completer, aligned, marked)
    assert np.array_equal(completion.pixels[~marked], aligned[~marked])


# Whole photos


def test_a_small_spot_of_a_large_photo_is_a_hole_in_the_crop(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    hole = box(face.shape, 147, 153, 113, 119)
    progress, completion = run(completer, face, hole)
    assert 1 <= progress[0].hole.sum() <= 9  # 6 px of the photo are 1.4 px of the crop
    v, u = np.argwhere(progress[0].hole).mean(axis=0)
    assert np.abs(found.apply(np.array([115.5, 149.5])) - [u, v]).max() < 1
    assert np.array_equal(completion.pixels[~hole], face[~hole])


def test_scratches_are_filled_from_their_surroundings_and_wide_parts_by_the_network(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    scratch, spot = box(face.shape, 110, 112, 60, 170), box(face.shape, 140, 160, 105, 125)
    progress, completion = run(completer, face, scratch)
    assert not progress and completion.sources.keys() == {"surroundings"}
    assert np.array_equal(completion.pixels[~scratch], face[~scratch])
    error, classical = (
        np.abs(filled.astype(float) - face)[scratch].mean() for filled in (completion.pixels, inpaint(face, scratch))
    )
    assert error < 1.2 * classical
    progress, completion = run(completer, face, scratch | spot)
    assert np.array_equal(completion.sources["surroundings"], scratch)
    assert np.array_equal(completion.sources["face 1"], spot) and progress[0].hole.sum() < 40


def test_pixels_missing_everywhere_are_not_scratches(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    hole = completer.named_hole(face, "random:0.8", [found])
    assert run(completer, face, hole, [found])[1].sources.keys() == {"face 1"}


def test_there_is_no_seam_at_the_border_of_the_crop(
    small_weights: Weights, completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    hole = completer.named_hole(face, "full", [found])
    rim = ndimage.binary_dilation(~hole) & hole
    steps = {}
    for blend in ("poisson", "none"):
        completed = run(FaceCompleter(small_weights, QUICK, blend), face, hole, [found])[1].pixels
        steps[blend] = np.abs(completed[rim].astype(float) - inpaint(face, hole)[rim]).mean()
    assert steps["poisson"] < 0.15 * steps["none"]


def test_a_named_hole_lies_on_the_face(completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment) -> None:
    hole = completer.named_hole(face, "center", [found])
    ys, xs = np.nonzero(hole)
    mean = find_faces(face, 68)[0].mean(axis=0)
    assert np.linalg.norm(mean - [xs.mean(), ys.mean()]) < 20
    _, completion = run(completer, face, hole, [found])
    assert completion.pixels.shape == face.shape and completion.sources.keys() == {"face 1"}
    assert np.array_equal(completion.pixels[~hole], face[~hole])
    assert (completion.pixels[hole] != face[hole]).mean() > 0.9


@pytest.mark.parametrize("mask", HOLES)
def test_every_named_hole_lies_inside_the_crop(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment, mask: str
) -> None:
    hole = completer.named_hole(face, mask, [found])
    covered = found.footprint(hole.shape)
    assert hole.any() and not hole[~covered].any()
    shares = {"center": 0.25, "random": 0.2, "grid": 15 / 16, "pattern": 0.25, "full": 1, "lowres": 1}
    share = shares.get(mask, 0.5 if mask in ("left", "right", "top", "bottom", "half") else 0.12)
    assert hole.sum() / covered.sum() == pytest.approx(share, abs=0.08)


def test_a_named_hole_has_the_resolution_of_the_photo(completer: FaceCompleter) -> None:
    turned = Alignment(np.array([[0.1, 0.02, 1], [-0.02, 0.1, 8]]), 32)  # a pixel of the crop is ten of the photo
    hole = completer.named_hole(np.zeros((320, 320, 3), dtype=np.uint8), "center", [turned])
    columns = np.arange(110, 200)
    top = hole[:, columns].argmax(axis=0)
    straight = np.polyval(np.polyfit(columns, top, 1), columns)
    assert np.abs(top - straight).max() < 1 and abs(top[-1] - top[0]) > 10


def test_each_face_gets_the_weights_that_fit_its_size(small_weights: Weights, face: NDArray[np.uint8]) -> None:
    config = replace(small_weights.generator.config, size=64)
    G, D = (network(config).eval().requires_grad_(False) for network in (Generator, Discriminator))
    larger = replace(small_weights, generator=G, discriminator=D)
    both = FaceCompleter([larger, small_weights], QUICK)
    [found] = both.locate(face)
    side = found.size / found.scale
    for times, expected in ((0.25, small_weights), (2.0, larger)):
        photo = cv2.resize(face, None, fx=times, fy=times, interpolation=cv2.INTER_AREA).astype(np.uint8)
        size = expected.generator.config.size
        assert (times * side <= 1.25 * 32) == (size == 32)
        scaled = Alignment(np.hstack([found.matrix[:, :2] / times, found.matrix[:, 2:]]), found.size)
        hole = box(photo.shape, *(round(times * at) for at in (90, 140, 90, 140)))
        _, completion = run(both, photo, hole, [scaled])
        _, alone = run(FaceCompleter(expected, QUICK), photo, hole, [scaled])
        assert np.array_equal(completion.pixels, alone.pixels)
        assert both.locate(np.zeros((size, size, 3), dtype=np.uint8))[0].size == size


def test_features_lie_on_the_landmarks_of_the_photo(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    [landmarks] = find_faces(face, 68)
    for mask, part in (("eyes", slice(36, 48)), ("nose", slice(27, 36)), ("mouth", slice(48, 68))):
        hole = completer.named_hole(face, mask, [found])
        xs, ys = landmarks.round().astype(int).T
        on = hole[ys, xs]
        assert on[part].mean() > 0.9 and on[:17].sum() == 0  # not on the jaw


def test_features_need_a_face(completer: FaceCompleter, aligned: NDArray[np.uint8]) -> None:
    with pytest.raises(MaskError, match="no face was found"):
        completer.named_hole(aligned, "eyes", completer.locate(aligned))


def test_only_faces_under_the_hole_are_completed(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    pair = np.hstack([face, face])
    faces = completer.locate(pair)
    assert len(faces) == 2
    both = completer.named_hole(pair, "center", faces)
    progress, completion = run(completer, pair, both, faces)
    assert [item.face for item in progress] == [0, 0, 0, 1, 1, 1] and completion.sources.keys() == {"face 1", "face 2"}
    assert np.array_equal(completion.pixels[~both], pair[~both])
    for name, left in (("face 1", 0), ("face 2", 230)):
        half = both & box(both.shape, 0, 230, left, left + 230)
        assert any(np.array_equal(pixels, half) for pixels in completion.sources.values()), name
    one = both & box(both.shape, 0, 230, 0, 230)
    progress, completion = run(completer, pair, one, faces)
    assert {item.faces for item in progress} == {1} and completion.sources.keys() == {"face 1"}
    assert np.array_equal(completion.pixels[~one], pair[~one])


def test_holes_on_separate_faces_are_filled_independently(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    pair = np.hstack([face, face])
    faces = completer.locate(pair)
    both = completer.named_hole(pair, "mouth", faces)
    halves = [both & box(both.shape, 0, 230, left, left + 230) for left in (0, 230)]
    together = run(completer, pair, both, faces)[1].pixels
    for half in halves:
        assert half.any()
        assert np.array_equal(together[half], run(completer, pair, half, faces)[1].pixels[half])


def test_where_crops_overlap_the_nearer_face_fills_the_hole(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    faces = completer.locate(face)
    shifted = Alignment(faces[0].matrix + [[0, 0, 10], [0, 0, 0]], 32)
    first, second = (found.footprint(face.shape[:2]) for found in (faces[0], shifted))
    hole = first | second
    _, completion = run(completer, face, hole, [faces[0], shifted])
    sources = completion.sources
    assert sources.keys() == {"face 1", "face 2"}
    assert np.array_equal(sources["face 1"] ^ sources["face 2"], hole)
    assert not (sources["face 1"] & ~first).any() and not (sources["face 2"] & ~second).any()
    assert (sources["face 1"] & second).any() and (sources["face 2"] & first).any()
    x1, x2 = (np.nonzero(sources[name])[1].mean() for name in ("face 1", "face 2"))
    assert x2 < x1 - 20  # the second crop is further left
    assert np.array_equal(completion.pixels[~hole], face[~hole])


def test_a_hole_partly_outside_every_face_is_filled_classically_there(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    far = box(face.shape, 205, 225, 0, 30)
    covered = found.footprint(far.shape)
    assert not (far & covered).any()
    hole = far | completer.named_hole(face, "mouth", [found])
    _, completion = run(completer, face, hole)
    assert np.array_equal(completion.sources["surroundings"], far)
    assert np.array_equal(completion.sources["face 1"], hole & ~far)
    assert np.array_equal(completion.pixels[far], inpaint(face, hole)[far])
    assert np.array_equal(completion.pixels[~hole], face[~hole])


def test_a_hole_outside_every_face_is_refused(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    with pytest.raises(NoFaceError, match="no face was found under the hole.*landmarks, box or eyes"):
        run(completer, face, box(face.shape, 205, 225, 0, 30))


def test_a_photo_without_a_face_is_refused(completer: FaceCompleter) -> None:
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    with pytest.raises(NoFaceError, match="32x32"):
        completer.locate(grey)
    with pytest.raises(NoFaceError):
        run(completer, grey, box(grey.shape, 20, 40, 20, 40))


def test_degenerate_landmarks_are_not_a_face(completer: FaceCompleter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "find_faces", lambda *_, **__: [np.full((5, 2), 50.0)])
    with pytest.raises(NoFaceError):
        completer.locate(np.full((100, 100, 3), 128, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (31, 32), (2, 2)])
def test_tiny_photos_contain_no_face(completer: FaceCompleter, shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 128, dtype=np.uint8)
    with pytest.raises(NoFaceError):
        run(completer, photo, box(shape, 0, 1, 0, 1))


def test_pixels_outside_the_photo_are_part_of_the_hole(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    top = int(np.nonzero(found.footprint(face.shape[:2]))[0].min()) + 45
    cut = np.ascontiguousarray(face[top:])
    moved = Alignment(found.matrix @ np.array([[1, 0, 0], [0, 1, top], [0, 0, 1]]), 32)
    hole = completer.named_hole(cut, "mouth", [found]) | completer.named_hole(cut, "bottom", [moved])
    progress, completion = run(completer, cut, hole, [moved])
    beyond = round(45 * found.scale)
    assert progress[0].hole[: beyond - 1].all() and not progress[0].hole[beyond + 2 : 14].any()
    assert np.array_equal(completion.pixels[~hole], cut[~hole])


def test_a_face_cut_by_the_edge_is_completed(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    cut = np.ascontiguousarray(face[45:])
    faces = completer.locate(cut)
    hole = completer.named_hole(cut, "full", faces)
    assert hole[0].any()
    _, completion = run(completer, cut, hole, faces)
    assert completion.sources.keys() == {"face 1"} and np.array_equal(completion.pixels[~hole], cut[~hole])


def test_pixels_under_the_hole_have_no_effect(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    hole = completer.named_hole(face, "mouth", [found]) | box(face.shape, 205, 225, 0, 30)
    other = overwritten(face, hole)
    (_, one), (_, two) = (run(completer, photo, hole) for photo in (face, other))
    assert np.array_equal(one.pixels, np.where(hole[..., None], two.pixels, face))
    assert one.context == two.context


@pytest.mark.parametrize("blend", ["poisson", "alpha", "none"])
def test_pixels_under_the_hole_of_an_aligned_face_have_no_effect(
    small_weights: Weights, aligned: NDArray[np.uint8], blend: str
) -> None:
    completer = FaceCompleter(small_weights, QUICK, blend)
    hole = box(aligned.shape, 0, 20, 10, 32)
    (_, one), (_, two) = (run(completer, photo, hole) for photo in (aligned, overwritten(aligned, hole)))
    assert np.array_equal(one.pixels, two.pixels) and one.context == two.context


def test_lowres_of_a_whole_photo_keeps_the_block_means_of_the_crop(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = solve_module.solve

    def spy(weights, crops, *args):  # type: ignore[no-untyped-def]
        seen.append(crops[0])
        return original(weights, crops, *args)

    monkeypatch.setattr(solve_module, "solve", spy)
    hole = completer.named_hole(face, "lowres", [found])
    run(completer, face, hole, [found], lowres=True)
    run(completer, face, hole, [found])
    assert not np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], found.warp(face))


def test_seeds_repeat_a_completion_and_others_differ(completer: FaceCompleter, aligned: NDArray[np.uint8]) -> None:
    hole = box(aligned.shape, 8, 24, 8, 24)
    one, again, other = (run(completer, aligned, hole, seed=seed)[1].pixels for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    first, second = (completer.named_hole(aligned, "random", completer.locate(aligned), seed) for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_photo_hole_and_matrices_are_not_modified(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    hole = completer.named_hole(face, "center", [found])
    before = face.copy(), hole.copy(), found.matrix.copy()
    hole.flags.writeable = False
    _, completion = run(completer, face, hole, [found])
    assert not np.shares_memory(completion.pixels, face)
    for was, now in zip(before, (face, hole, found.matrix), strict=True):
        assert np.array_equal(was, now)


def test_weights_with_an_unknown_template_are_refused(small_weights: Weights) -> None:
    with pytest.raises(WeightsError, match="aligned as 'mine', expected one of face, "):
        FaceCompleter(replace(small_weights, template="mine"))


def test_solvers_can_be_given_by_name(small_weights: Weights) -> None:
    crop, hole = np.full((32, 32, 3), 128, dtype=np.uint8), np.eye(32, dtype=bool)
    first = next(FaceCompleter(small_weights, "bamos").steps(crop, hole))
    assert isinstance(first, SearchStep) and first.steps == SOLVERS["bamos"].steps


# Hidden faces, candidates and batches


def test_a_hidden_face_is_found_in_the_original_photo(
    completer: FaceCompleter, face: NDArray[np.uint8], found: Alignment
) -> None:
    hole = completer.named_hole(face, "full", [found])
    with pytest.raises(NoFaceError):
        completer.locate(inpaint(face, hole))
    _, completion = run(completer, face, hole)
    assert completion.hidden == 1 and completion.sources.keys() == {"face 1"}
    assert np.array_equal(completion.pixels[~hole], face[~hole])
    expected = run(completer, overwritten(face, hole), hole, [found])[1]
    assert np.array_equal(completion.pixels, expected.pixels)  # only the position was taken from under the hole
    with pytest.raises(NoFaceError, match="box or eyes"):
        run(completer, inpaint(face, hole), hole)


def test_a_hidden_face_is_found_beside_a_visible_one(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    pair = np.hstack([face, face])
    faces = completer.locate(pair)
    right = box(pair.shape, 0, 230, 230, 460)
    hole = completer.named_hole(pair, "full", faces) & right | completer.named_hole(pair, "mouth", faces) & ~right
    _, completion = run(completer, pair, hole)
    assert completion.hidden == 1
    assert np.array_equal(completion.sources["face 1"], hole & ~right)
    assert np.array_equal(completion.sources["face 2"], hole & right)
    shown = run(completer, pair, hole & ~right)[1]
    assert shown.hidden == 0


def test_candidates_differ_and_the_best_comes_first(encoder_weights: Weights, face: NDArray[np.uint8]) -> None:
    completer = FaceCompleter(encoder_weights, replace(SOLVERS["encoder"], prior_weight=1.0))
    [found] = completer.locate(face)
    hole = completer.named_hole(face, "center", [found])
    progress, several = run(completer, face, hole, candidates=4)
    last = progress[-1].step
    assert last.total.shape == (1, 64) and last.best[0] == last.total[0].argmin()
    found = several.candidates
    assert len(found) == 4
    for index, pixels in enumerate(found):
        assert np.array_equal(pixels[~hole], face[~hole])
        assert all((pixels[hole] != other[hole]).mean() > 0.2 for other in found[:index])
    assert len(run(completer, face, hole)[1].candidates) == 1


def test_a_batch_of_crops_is_completed_like_each_alone(encoder_weights: Weights) -> None:
    generator = np.random.default_rng(0)
    crops = generator.integers(80, 160, (3, 32, 32, 3), dtype=np.uint8)
    holes = np.stack([box((32, 32), 8, 24, left, left + 16) for left in (0, 8, 16)])
    for solver in ("encoder", replace(QUICK, start="encoder")):
        completer = FaceCompleter(encoder_weights, solver)
        together = completer.complete_crops(crops, holes)
        for crop, hole, completed in zip(crops, holes, together, strict=True):
            assert np.array_equal(completed[~hole], crop[~hole])
            alone = run(completer, crop, hole)[1].pixels
            assert np.abs(alone.astype(int) - completed).max() <= 1


def test_a_solver_that_needs_an_encoder_is_refused_at_once(small_weights: Weights, encoder_weights: Weights) -> None:
    with pytest.raises(WeightsError, match="no encoder"):
        FaceCompleter(small_weights, "encoder")
    FaceCompleter(encoder_weights, "encoder")


def test_a_face_that_is_largely_covered_is_aligned_by_its_completion(face: NDArray[np.uint8]) -> None:
    completer = FaceCompleter.load("faces-64", "cpu")
    [true] = completer.locate(face)
    eyes = transform(true.inverse, np.array(completer.template.targets) * true.size)
    hole = completer.named_hole(face, "left", [true])
    covered = np.where(hole[..., None], np.uint8(255), face)

    def off(found: Alignment) -> float:
        away = transform(found.inverse, np.array(completer.template.targets) * found.size) - eyes
        return float(np.linalg.norm(away, axis=1).max() / np.linalg.norm(eyes[1] - eyes[0]))

    [rough] = locate.locate(inpaint(covered, hole), completer.template, true.size)
    progress, _ = run(completer, covered, hole)
    assert off(progress[0].alignment) < 0.85 * off(rough)


# Forms of photos and masks, and the result


@pytest.mark.parametrize(
    "form",
    [
        lambda rgb, folder: save(folder / "a.png", rgb),
        lambda rgb, folder: str(save(folder / "a.png", rgb)),
        lambda rgb, folder: Image.fromarray(rgb),
        lambda rgb, folder: Image.fromarray(rgb).convert("RGBA"),
        lambda rgb, folder: np.dstack([rgb, np.full((32, 32), 255, dtype=np.uint8)]),
        lambda rgb, folder: (rgb / 255).astype(np.float32),
        lambda rgb, folder: rgb.astype(np.uint16) * 257,
    ],
    ids=["path", "text", "image", "RGBA image", "RGBA", "float32", "uint16"],
)
def test_every_form_of_a_photo_gives_the_same_completion(
    completer: FaceCompleter, tmp_path: Path, form: Callable[[NDArray[np.uint8], Path], PhotoLike]
) -> None:
    expected = completer(FACE, CENTER).pixels
    assert np.array_equal(completer(form(FACE, tmp_path), CENTER).pixels, expected)


@pytest.mark.parametrize(
    "form",
    [
        lambda hole, folder: save(folder / "hole.png", Image.fromarray(hole)),
        lambda hole, folder: str(save(folder / "hole.png", hole * 255)),
        lambda hole, folder: Image.fromarray(hole),
        lambda hole, folder: hole.astype(np.uint8),
        lambda hole, folder: hole[..., None] * 255,
        lambda hole, folder: hole.astype(float),
        lambda hole, folder: "center",
        lambda hole, folder: "center,center:0.3",
    ],
    ids=["path", "text", "image", "0 and 1", "H, W, 1", "float", "name", "names"],
)
def test_every_form_of_a_mask_gives_the_same_completion(
    completer: FaceCompleter, tmp_path: Path, form: Callable[[NDArray[np.bool_], Path], MaskLike]
) -> None:
    completion = completer(FACE, form(CENTER, tmp_path))
    assert np.array_equal(completion.pixels, completer(FACE, CENTER).pixels)
    assert np.array_equal(completion.hole, CENTER)


def test_the_completion_is_the_last_of_the_steps(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    completion = completer(face, "mouth", seed=3, candidates=2)
    *_, last = completer.steps(face, "mouth", seed=3, candidates=2)
    assert isinstance(last, Completion)
    assert all(np.array_equal(*pair) for pair in zip(completion.candidates, last.candidates, strict=True))
    assert len(completion.candidates) == 2 and completion.pixels is completion.candidates[0]
    [found] = completion.faces
    assert locate.is_among(found, completer.locate(face))


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


def test_every_places_a_named_mask_on_all_faces(completer: FaceCompleter, face: NDArray[np.uint8]) -> None:
    pair = np.hstack([face, face])
    assert len(completer(pair, "mouth").faces) == 1
    assert len(completer(pair, "mouth", every=True).faces) == 2


def test_a_photo_and_a_mask_of_different_sizes_are_refused(completer: FaceCompleter, tmp_path: Path) -> None:
    for mask in (CENTER[1:], Image.fromarray(CENTER[1:]), save(tmp_path / "hole.png", Image.fromarray(CENTER[1:]))):
        with pytest.raises(MaskError, match="the hole is 32x31, but the photo is 32x32"):
            completer(FACE, mask)


def test_unknown_names_get_a_suggestion(completer: FaceCompleter, small_weights: Weights) -> None:
    with pytest.raises(MaskError, match="no mask named 'moth'; did you mean 'mouth'?"):
        completer(FACE, "eyes,moth")
    with pytest.raises(InputError, match="no solver named 'thorogh'; did you mean 'thorough'?"):
        FaceCompleter(small_weights, "thorogh")
    with pytest.raises(InputError, match="no blend named 'x'; expected one of poisson, alpha, none"):
        FaceCompleter(small_weights, QUICK, "x")


def test_at_least_one_candidate_is_expected(completer: FaceCompleter) -> None:
    with pytest.raises(InputError, match="candidates is 0; expected 1 or more"):
        completer(FACE, CENTER, candidates=0)


def test_a_mask_without_a_face_can_be_filled_from_its_surroundings(completer: FaceCompleter) -> None:
    hole = box(NO_FACE.shape, 40, 50, 40, 50)
    with pytest.raises(NoFaceError):
        completer(NO_FACE, hole)
    completion = completer(NO_FACE, hole, no_face="fill")
    assert np.array_equal(completion.sources["surroundings"], hole) and completion.faces == ()
    assert np.array_equal(completion.pixels, NO_FACE)  # which is uniform
    with pytest.raises(InputError, match="no_face is 'fil'; did you mean 'fill'?"):
        completer(NO_FACE, hole, no_face="fil")  # type: ignore[arg-type]


# Large holes


@pytest.mark.parametrize("kind", ["box", "noise", "all"])
def test_a_large_hole_is_completed_at_reduced_size(
    completer: FaceCompleter,
    face: NDArray[np.uint8],
    found: Alignment,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    hole = box(face.shape, 60, 180, 40, 200)
    if kind == "noise":
        hole = np.random.default_rng(0).random(face.shape[:2]) < 0.5
    elif kind == "all":
        hole[:] = True
    monkeypatch.setattr(complete_module, "_LARGEST_HOLE_PX", 2_000)
    solved: list[int] = []
    original = FaceCompleter._complete

    def spy(self: FaceCompleter, photo: Any, hole: NDArray[np.bool_], *rest: Any) -> Any:
        solved.append(int(hole.sum()))
        return original(self, photo, hole, *rest)

    monkeypatch.setattr(FaceCompleter, "_complete", spy)
    progress, completion = run(completer, face, hole, [found], candidates=2)
    assert all(size < 2_500 for size in solved)
    assert all(np.array_equal(item[~hole], face[~hole]) for item in completion.candidates)
    assert np.array_equal(np.logical_or.reduce(list(completion.sources.values())), hole)
    assert sum(int(part.sum()) for part in completion.sources.values()) == hole.sum()
    if kind == "box":
        assert np.allclose(completion.faces[0].matrix, found.matrix) and np.allclose(
            progress[0].alignment.matrix, found.matrix
        )
        hidden = np.where(hole[..., None], 255 - face, face)
        assert np.array_equal(run(completer, hidden, hole, [found], candidates=2)[1].pixels, completion.pixels)
    elif kind == "noise":  # each missing pixel resembles its visible neighbours
        blurred = cv2.GaussianBlur(face, (0, 0), 4)
        error = np.abs(completion.pixels.astype(int) - blurred)[hole].mean()
        assert error < np.abs(inpaint(face, np.ones_like(hole)).astype(int) - blurred)[hole].mean()


def test_the_pixels_of_all_candidates_are_bounded(
    completer: FaceCompleter, aligned: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete_module, "_CANDIDATES_PX", 3 * 32 * 32)
    assert len(completer(aligned, CENTER, candidates=3).candidates) == 3
    with pytest.raises(InputError, match="candidates is 4; expected at most 3 for a photo of 32x32"):
        completer(aligned, CENTER, candidates=4)
