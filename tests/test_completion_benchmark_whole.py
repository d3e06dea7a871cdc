"""Tests of the benchmark on whole photos: positions of holes, and figures against known values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import NO_FACE, pixels, save

from align.errors import NoFaceError
from completion.benchmark.__main__ import main
from completion.benchmark.whole import Subject, draw_hole, find_subject, measure
from completion.config import WHOLE_HOLES

EYES, MOUTH, NOSE, BRIDGE, JAW = (slice(36, 42), slice(42, 48)), slice(48, 68), slice(27, 36), slice(27, 31), slice(17)


@pytest.fixture(scope="module")
def subject(astronaut: NDArray[np.uint8]) -> Subject:
    found = find_subject("astronaut.png", astronaut)
    assert found is not None
    return found


def covered(hole: NDArray[np.bool_], points: NDArray[np.float64]) -> float:
    x, y = points.round().astype(int).T
    return float(hole[y, x].mean())


def test_holes_cover_the_parts_they_are_named_after(subject: Subject) -> None:
    holes = {name: draw_hole(name, subject) for name in WHOLE_HOLES}
    points = subject.landmarks
    assert covered(holes["middle"], points[NOSE]) == 1 and covered(holes["middle"], points[JAW]) == 0
    assert sorted(covered(holes["eye"], points[eye]) for eye in EYES) == [0, 1]
    assert covered(holes["mouth"], points[MOUTH]) == 1 and covered(holes["mouth"], points[BRIDGE]) == 0
    crop = subject.face.footprint(subject.pixels.shape[:2])
    assert holes["half"].sum() / crop.sum() == pytest.approx(0.5, abs=0.03)
    assert 0.03 < (holes["scratches"] & crop).sum() / crop.sum() < 0.15


def test_holes_depend_on_the_seed_and_the_photo(subject: Subject) -> None:
    for name in WHOLE_HOLES:
        assert np.array_equal(draw_hole(name, subject, 3), draw_hole(name, subject, 3))
    assert any(not np.array_equal(draw_hole("scratches", subject), draw_hole("scratches", subject, s)) for s in (1, 2))


def test_the_original_photo_has_perfect_figures(subject: Subject) -> None:
    row = measure(subject, "middle", "truth", lambda pixels, hole: subject.pixels)
    assert row.hole_psnr == math.inf and row.colour == 0 and row.identity == 0
    assert row.detail == 1 and row.rim == 1 and row.found and row.located


def test_a_brightness_shift_affects_colour_and_rim(subject: Subject) -> None:
    def brighter(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        shifted = np.where(subject.pixels > 205, subject.pixels - np.uint8(50), subject.pixels + np.uint8(50))
        return np.where(hole[..., None], shifted, subject.pixels)

    row = measure(subject, "mouth", "brighter", brighter)
    assert row.hole_psnr == pytest.approx(20 * math.log10(255 / 50))
    assert row.colour > 30 and row.rim > 3


def test_a_flat_fill_has_no_detail(subject: Subject) -> None:
    def flat(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        mean = subject.pixels[hole].mean(axis=0).round().astype(np.uint8)
        return np.where(hole[..., None], mean, pixels)

    row = measure(subject, "middle", "flat", flat)
    assert row.detail < 0.4 and row.colour < 3


def test_methods_see_a_black_hole_and_may_find_no_face(subject: Subject) -> None:
    def blind(pixels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        assert not pixels[hole].any() and np.array_equal(pixels[~hole], subject.pixels[~hole])
        raise NoFaceError("no face was found")

    row = measure(subject, "half", "blind", blind)
    assert not row.located and 5 < row.hole_psnr < 30


def test_the_command_writes_a_table_json_and_a_sheet_for_each_hole(
    astronaut: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    save(photos / "a.png", astronaut)
    save(tmp_path / "empty" / "no-face.png", NO_FACE)
    command = [
        "--whole",
        str(photos),
        str(tmp_path / "empty"),
        "--holes",
        "eye",
        "mouth",
        "--methods",
        "telea",
        "fast+none",
        "--output",
        str(out),
    ]
    assert main([*command, "-q"]) == 0
    assert "mouth, `fast+none`" in capsys.readouterr().out
    rows = json.loads((out / "whole.json").read_text())["rows"]
    assert [(row["hole"], row["method"]) for row in rows] == [
        (hole, method) for hole in ("eye", "mouth") for method in ("telea", "fast+none")
    ]
    for hole in ("eye", "mouth"):
        assert pixels(out / f"whole-{hole}.jpg").shape == (192, 192 * 4, 3)  # photo, hole and two methods
    assert "whole-eye.jpg" in (out / "whole.md").read_text()
    assert main([*command, "-q"]) == 2  # existing results are not replaced
    assert main(["--whole", str(photos), "--methods", "magic", "--output", str(tmp_path / "other")]) == 2
    assert main(["--whole", str(tmp_path / "empty"), "--output", str(tmp_path / "other")]) == 2
