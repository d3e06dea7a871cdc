"""Tests of holes by name, and of training holes."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import box

from align.errors import MaskError
from dcgan.holes import HOLES, TRAINING_KINDS, draw_holes, named_hole, needs_landmarks, split_names


def hole_of(mask: str, size: int = 64, seed: int = 0) -> NDArray[np.bool_]:
    return named_hole(mask, size, np.random.default_rng(seed))


@pytest.fixture
def landmarks() -> NDArray[np.float64]:
    """68 landmarks in a 64x64 crop: rings for eyes, nose and mouth; all others in a corner."""
    points = np.zeros((68, 2))
    for first, last, x, y in ((36, 42, 22, 26), (42, 48, 42, 26), (27, 36, 32, 34), (48, 68, 32, 48)):
        turns = np.linspace(0, 2 * np.pi, last - first, endpoint=False)
        points[first:last] = np.stack([x + 5 * np.cos(turns), y + 3 * np.sin(turns)], axis=1)
    return points


# Names


def test_center_covers_the_middle_half_and_its_number_is_the_margin() -> None:
    expected = box((64, 64), 16, 48, 16, 48)
    assert np.array_equal(hole_of("center"), expected)
    ys, xs = np.nonzero(hole_of("center:0.4"))
    assert (ys.min(), ys.max(), xs.min(), xs.max(), len(ys)) == (25, 38, 25, 38, 14 * 14)


@pytest.mark.parametrize(
    ("side", "rows", "columns"),
    [
        ("left", slice(None), slice(0, 32)),
        ("right", slice(None), slice(32, 64)),
        ("top", slice(0, 32), slice(None)),
        ("bottom", slice(32, 64), slice(None)),
        ("full", slice(None), slice(None)),
        ("lowres", slice(None), slice(None)),
    ],
)
def test_sides_and_full_cover_the_named_area(side: str, rows: slice, columns: slice) -> None:
    expected = np.zeros((64, 64), dtype=bool)
    expected[rows, columns] = True
    assert np.array_equal(hole_of(side), expected)


def test_half_is_a_random_side() -> None:
    sides = {side: hole_of(side).tobytes() for side in ("left", "right", "top", "bottom")}
    assert {hole_of("half", seed=seed).tobytes() for seed in range(20)} == set(sides.values())


@pytest.mark.parametrize(("mask", "share"), [("random", 0.2), ("random:0.8", 0.8), ("random:1", 1.0)])
def test_random_covers_exactly_its_share(mask: str, share: float) -> None:
    hole = hole_of(mask)
    assert hole.sum() == round(64 * 64 * share)
    assert abs(hole[:32].mean() - share) < 0.05 and abs(hole[:, :32].mean() - share) < 0.05


def test_grid_keeps_every_fourth_row_and_column() -> None:
    ys, xs = np.nonzero(~hole_of("grid"))
    assert len(ys) == 16 * 16 and not (ys % 4).any() and not (xs % 4).any()


def test_pattern_is_a_quarter_in_blobs() -> None:
    hole = hole_of("pattern")
    assert hole.mean() == pytest.approx(0.25, abs=1 / 64**2)
    alike = (hole[1:] == hole[:-1]).mean()
    assert alike > 0.9  # 0.62 for independent pixels


@pytest.mark.parametrize("mask", ["random", "half", "pattern"])
def test_the_seed_determines_the_hole(mask: str) -> None:
    assert np.array_equal(hole_of(mask, seed=3), hole_of(mask, seed=3))
    assert len({hole_of(mask, seed=seed).tobytes() for seed in range(20)}) > 1


@pytest.mark.parametrize(("mask", "parts"), [("eyes", [(36, 48)]), ("nose", [(27, 36)]), ("mouth", [(48, 68)])])
def test_features_cover_only_their_landmarks(
    mask: str, parts: list[tuple[int, int]], landmarks: NDArray[np.float64]
) -> None:
    hole = named_hole(mask, 64, np.random.default_rng(0), landmarks)
    own = np.zeros(68, dtype=bool)
    for first, last in parts:
        own[first:last] = True
    xs, ys = landmarks.round().astype(int).T
    assert np.array_equal(hole[ys, xs], own)
    assert (
        hole[np.clip(ys[own] + 2, 0, 63), xs[own]].all() and hole[ys[own] - 2, xs[own]].all()
    )  # includes a margin of skin
    assert hole.mean() < 0.15
    assert not hole[26, 32]  # the eyes are separate


def test_features_at_the_border_stay_in_the_crop(landmarks: NDArray[np.float64]) -> None:
    hole = named_hole("mouth", 64, np.random.default_rng(0), landmarks + [0, 18])
    assert hole.shape == (64, 64) and hole[-1].any()


def test_every_name_makes_a_hole_and_only_features_need_landmarks(landmarks: NDArray[np.float64]) -> None:
    for name in HOLES:
        hole = named_hole(name, 64, np.random.default_rng(0), landmarks if needs_landmarks(name) else None)
        assert hole.shape == (64, 64) and hole.dtype == bool and hole.any()
    assert [name for name in HOLES if needs_landmarks(name)] == ["eyes", "nose", "mouth"]


def test_features_without_landmarks_are_refused() -> None:
    with pytest.raises(MaskError, match="68 landmarks"):
        hole_of("eyes")


@pytest.mark.parametrize(
    "mask",
    ["center:", "center:x", "center:0", "center:0.5", "center:nan", "random:-1", "random:1.1", "left:1", "lowres:4"],
)
def test_invalid_numbers_are_reported(mask: str) -> None:
    with pytest.raises(MaskError, match=f"the mask is '{mask}'"):
        split_names(mask)


def test_other_text_is_not_a_name() -> None:
    assert split_names("holes/center") is None and split_names("Center") is None and split_names("alpha") is None
    with pytest.raises(MaskError, match="no mask named 'centre'"):
        hole_of("centre")


def test_names_separated_by_commas_give_the_union(landmarks: NDArray[np.float64]) -> None:
    holes = [named_hole(mask, 64, np.random.default_rng(0), landmarks) for mask in ("eyes", "mouth", "eyes,mouth")]
    assert np.array_equal(holes[0] | holes[1], holes[2]) and (holes[2] != holes[0]).any()
    assert needs_landmarks("left,mouth") and not needs_landmarks("left,top")
    assert split_names("eyes,center:0.3") == [("eyes", None), ("center", 0.3)]
    assert split_names("eyes,hole.png") is None


def test_lowres_cannot_be_combined() -> None:
    with pytest.raises(MaskError, match="'eyes,lowres', but lowres cannot be combined"):
        split_names("eyes,lowres")


# Training holes


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(kind: str, count: int) -> NDArray[np.bool_]:
    generator = rng()
    return np.stack([TRAINING_KINDS[kind](64, generator) for _ in range(count)])


@pytest.mark.parametrize("size", [16, 64])
def test_training_holes_are_never_empty_and_vary_in_extent(size: int) -> None:
    holes = draw_holes(2000, size, rng())
    assert holes.shape == (2000, size, size) and holes.dtype == bool
    shares = holes.mean(axis=(1, 2))
    assert shares.min() > 0
    assert shares.min() < 0.1 and shares.max() > 0.9
    assert 0.2 < shares.mean() < 0.5
    frequency = holes.mean(axis=0)
    assert frequency.min() > 0.15  # no pixel is always visible


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("center", 0.03, 0.67),
        ("rectangle", 0.01, 0.5),
        ("half", 0.38, 0.62),
        ("random", 0.17, 0.98),
        ("grid", 1 - 1 / 16, 1 - 1 / 16),
        ("pattern", 0.09, 0.5),
        ("oval", 0.04, 0.29),
        ("stroke", 0.003, 0.5),
        ("features", 0.0, 0.4),
    ],
)
def test_each_kind_covers_a_share_within_its_bounds(kind: str, low: float, high: float) -> None:
    shares = drawn(kind, 500).mean(axis=(1, 2))
    assert low <= shares.min() and shares.max() <= high
    assert kind == "grid" or shares.std() > 0.03


def test_every_kind_of_training_hole_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(TRAINING_KINDS, 0)
    for kind, draw in list(TRAINING_KINDS.items()):

        def count(size: int, rng: np.random.Generator, kind: str = kind, draw: Any = draw) -> Any:
            counts[kind] += 1
            return draw(size, rng)

        monkeypatch.setitem(TRAINING_KINDS, kind, count)
    draw_holes(2000, 16, rng())
    assert all(counts[kind] > (100 if kind in ("random", "grid") else 200) for kind in counts)
    assert max(counts["random"], counts["grid"]) < 0.7 * min(counts["center"], counts["oval"])
    assert 2200 < sum(counts.values()) < 2500  # some holes combine two kinds


def test_a_kind_that_draws_nothing_gives_the_center(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in TRAINING_KINDS:
        monkeypatch.setitem(TRAINING_KINDS, kind, lambda size, rng: np.zeros((size, size), dtype=bool))
    assert (draw_holes(3, 32, rng()) == named_hole("center", 32, rng())).all()


def test_training_holes_lie_where_their_kind_says() -> None:
    halves = drawn("half", 200)
    corners = halves[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert {tuple(corner) for corner in corners.astype(int).tolist()} == {
        (1, 0, 1, 0),
        (0, 1, 0, 1),
        (1, 1, 0, 0),
        (0, 0, 1, 1),
    }
    rectangles = drawn("rectangle", 300)
    assert (
        rectangles[:, 0].any() and rectangles[:, -1].any() and rectangles[:, :, 0].any() and rectangles[:, :, -1].any()
    )
    ovals = drawn("oval", 400)
    assert 0.6 < ovals[:, 32, 32].mean() < 1 and 0.5 < ovals[:, 48, 32].mean() < 1 and not ovals[:, :8].any()
    features = drawn("features", 400).mean(axis=0)
    for x, y in ((0.345, 0.41), (0.655, 0.41), (0.5, 0.75)):
        assert 0.4 < features[round(64 * y), round(64 * x)] < 0.65
    assert features[:12].max() == features[:, :8].max() == 0
