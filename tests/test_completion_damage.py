"""Damage is found, filled and reported; photos without damage stay as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import PORTRAIT, box, pixels, save

from align.errors import MaskError
from completion import FaceCompleter, damage, find_damage, runtime
from completion.__main__ import main
from completion.benchmark.damage import CLEAN, KINDS, MIXED, damage_photo
from completion.damage import damage_likelihood
from completion.masks import parse_mask
from dcgan.damage import score


class Reds:
    """A finder for which the red of a pixel says how likely it is damaged."""

    def run(self, outputs: None, feed: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        tiles = feed["tiles"]
        assert tiles.ndim == 4 and not any(side % 16 for side in tiles.shape[1:3])
        return [tiles[..., 0]]


@pytest.fixture
def reds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "bundled_session", lambda name: Reds())


def red(likely: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([likely, np.zeros_like(likely), np.zeros_like(likely)])


@pytest.mark.parametrize("shape", [(1, 1), (31, 100), (64, 130), (129, 64)])
def test_tiles_cover_the_photo(shape: tuple[int, int], reds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "_TILE_PX", 64)
    likely = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(damage_likelihood(red(likely)), likely)


def test_marks_are_likely_areas_with_a_very_likely_pixel_and_no_specks(reds: None) -> None:
    likely = np.zeros((60, 60), dtype=np.uint8)
    likely[10:14, 10:14] = 255
    likely[10:14, 14:18] = likely[10:14, 40:44] = 190  # likely, beside what is very likely and far from it
    likely[40, 10] = 255  # a speck
    assert np.array_equal(find_damage(red(likely)), box((60, 60), 9, 15, 9, 19))
    assert np.array_equal(find_damage(red(likely), 0.2), box((60, 60), 9, 15, 9, 15))  # which needs 219
    assert find_damage(red(likely), 0.9)[11, 41]  # where 119 is very likely


def seen_at(monkeypatch: pytest.MonkeyPatch, side_px: int) -> None:
    """Let the finder see only tiles of this side."""

    class Some(Reds):
        def run(self, outputs: None, feed: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
            [found] = super().run(outputs, feed)
            return [found * (found.shape[1] == side_px)]

    monkeypatch.setattr(runtime, "bundled_session", lambda name: Some())


def test_torn_edges_are_also_found_in_an_overview(monkeypatch: pytest.MonkeyPatch) -> None:
    likely = np.zeros((600, 600), dtype=np.uint8)
    likely[:120, :120] = 255  # a torn corner
    likely[300:330, :30] = likely[300:500, 300:500] = 255  # too small to count, and not at the border
    seen_at(monkeypatch, 288)
    found = find_damage(red(likely))
    assert found[:110, :110].all() and not found[130:].any() and not found[:, 130:].any()


def test_wide_cracks_of_large_scans_are_also_found_in_a_smaller_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    likely = np.zeros((1600, 1600), dtype=np.uint8)
    likely[800:840, 100:1500] = 255
    seen_at(monkeypatch, 1008)
    found = find_damage(red(likely))
    assert found[802:838, 102:1498].all() and found.sum() < 1.3 * 40 * 1400


@pytest.mark.parametrize("sensitivity", [0.01, 0.5, 0.99])
def test_at_most_half_of_a_photo_is_marked(sensitivity: float, reds: None) -> None:
    likely = np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)
    for photo in (red(likely), red(np.full((50, 50), 255, dtype=np.uint8))):
        assert find_damage(photo, sensitivity).mean() <= 0.5


def test_a_sensitivity_lies_between_0_and_1() -> None:
    assert parse_mask("damage").damage == 0.5 and parse_mask("Damage:0.7, eyes").damage == 0.7
    assert parse_mask("eyes").damage is None
    for text in ("damage:0", "damage:1", "damage:", "damage:much", "damage:nan"):
        with pytest.raises(MaskError, match="a number above 0 and below 1"):
            parse_mask(text)
    with pytest.raises(MaskError, match="the sensitivity is 2"):
        find_damage(PORTRAIT, 2)
    with pytest.raises(MaskError, match="damage"):
        parse_mask("damaged")


@pytest.mark.parametrize("kind", ["cracks", "scratches", "writing"])
def test_the_bundled_finder_finds_damage_that_it_was_not_trained_on(kind: str) -> None:
    drawn = [damage_photo(PORTRAIT, kind, number, 0) for number in range(3)]
    found = score((find_damage(each.pixels), each.hole) for each in drawn)
    assert found["recall"] > 0.6 and found["precision"] > 0.6


def test_clean_photos_are_hardly_marked() -> None:
    marks = [
        (find_damage(damage_photo(PORTRAIT, CLEAN, number, 0).pixels), np.zeros(PORTRAIT.shape[:2], dtype=bool))
        for number in range(3)
    ]
    assert score(marks)["clean"] < 0.004


def test_drawn_damage_is_where_the_mask_says() -> None:
    for kind in (*KINDS, MIXED):
        drawn = damage_photo(PORTRAIT, kind, 1, 0)
        same = drawn.pixels[drawn.hole] == drawn.truth[drawn.hole]
        assert drawn.hole.any() and same.all(axis=1).mean() < 0.1
        assert np.abs(drawn.pixels.astype(int) - drawn.truth)[~drawn.hole].mean() < 2
    clean = damage_photo(PORTRAIT, CLEAN, 1, 0)
    assert not clean.hole.any() and np.array_equal(clean.pixels, clean.truth)


def run(*words: Any) -> int:
    return main([str(word) for word in words])


@pytest.mark.slow
def test_a_folder_is_restored_and_its_masks_can_be_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = damage_photo(PORTRAIT, "cracks", 0, 0)
    save(tmp_path / "scans/cracked.png", drawn.pixels)
    flat = np.full((60, 80, 3), 128, dtype=np.uint8)
    save(tmp_path / "scans/flat.png", flat)
    out = tmp_path / "restored"
    words = ["--mask", "damage", tmp_path / "scans", "--output", out, "--save-mask", "--strip"]
    assert run(*words) == 0
    said = capsys.readouterr().err
    assert "flat.png: no damage was found" in said and "cracked.png: damage was found in" in said
    assert np.array_equal(pixels(out / "flat.png"), flat) and not pixels(out / "flat.mask.png").any()
    hole = pixels(out / "cracked.mask.png") > 127
    assert np.array_equal(hole, find_damage(drawn.pixels))
    restored = pixels(out / "cracked.png")
    assert np.array_equal(restored[~hole], drawn.pixels[~hole])
    before, after = (np.abs(each.astype(int) - drawn.truth)[drawn.hole].mean() for each in (drawn.pixels, restored))
    assert after < 0.5 * before
    again = tmp_path / "again.png"
    scan = tmp_path / "scans/cracked.png"
    assert run("--mask", out / "cracked.mask.png", scan, "--output", again) == 0
    assert np.array_equal(pixels(again), restored)
    # The sensitivity belongs to the settings of a result.
    assert run("--mask", "damage:0.9", *words[2:]) == 0
    assert (pixels(out / "cracked.mask.png") > 127).sum() > hole.sum()


def test_damage_that_touches_no_face_is_filled(tmp_path: Path) -> None:
    drawn = damage_photo(np.full((200, 200, 3), 110, dtype=np.uint8), "cracks", 0, 0)
    done = tmp_path / "done.png"
    assert run("--mask", "damage", save(tmp_path / "cracked.png", drawn.pixels), "--output", done) == 0
    before, after = (np.abs(each[drawn.hole].astype(int) - 110).mean() for each in (drawn.pixels, pixels(done)))
    assert after < 0.3 * before
    assert np.array_equal(FaceCompleter.load(device="cpu")(drawn.pixels, "damage").pixels, pixels(done))


def test_damage_is_united_with_other_masks(encoder_weights_file: Path) -> None:
    completer = FaceCompleter.load(str(encoder_weights_file), device="cpu")
    drawn = damage_photo(PORTRAIT, "flakes", 0, 0).pixels
    found, mouth = find_damage(drawn), completer(drawn, "mouth").hole
    assert np.array_equal(completer(drawn, "damage,mouth", no_face="fill").hole, found | mouth)
    flat = np.full((60, 80, 3), 128, dtype=np.uint8)
    untouched = completer(flat, "damage")
    assert np.array_equal(untouched.pixels, flat) and untouched.notes == ("no damage was found",)
    assert untouched.figures["hole_share"] == 0 and not untouched.sources
