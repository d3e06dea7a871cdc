"""Tests of the command line `python -m completion`."""

import errno
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from completion.complete import FaceCompleter
from completion.engine import Networks
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, differences, files, pixels, save
from PIL import ExifTags, Image, ImageCms

from align import locate
from align.errors import LandmarkModelError, NoFaceError, PhotoError
from align.files import list_photos, lock_folder, read_json_lines
from align.photo import read_photo
from completion import batch, config, plan
from completion import complete as complete_module
from completion.__main__ import build_parser, main
from completion.config import SOLVERS
from dcgan import holes
from dcgan.holes import HOLES
from dcgan.weights import Weights
from weights import VERSION

PROJECT = Path(__file__).parents[1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

Complete = Callable[..., int]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, solver in SOLVERS.items():
        monkeypatch.setitem(SOLVERS, name, replace(solver, steps=2, draws=4, restarts=2))


@pytest.fixture
def done(tmp_path: Path) -> Path:
    return tmp_path / "done"


@pytest.fixture
def complete(small_weights_file: Path, done: Path) -> Complete:
    def run(*arguments: object, mask: object = "center", output: object = done) -> int:
        options = ["--weights", small_weights_file, "--device", "cpu", "--output", output, "--mask", mask]
        return main([str(argument) for argument in [*options, *arguments]])

    return run


# Outputs


def test_success_returns_0_and_prints_only_the_path(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(save(tmp_path / "a.png")) == 0
    assert capsys.readouterr() == (f"{done / 'a.png'}\n", "")  # no progress bar without a terminal
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[~CENTER], FACE[~CENTER])
    assert (completed[CENTER] != FACE[CENTER]).any()


@pytest.mark.parametrize("mask", [*HOLES, "center:0.3", "random:0.5"])
def test_every_mask_name_works(
    complete: Complete, tmp_path: Path, done: Path, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = np.stack([np.arange(68) % 8 + 12, np.arange(68) // 8 + 12], axis=1).astype(float)
    monkeypatch.setattr(complete_module, "find_landmarks", lambda *_: around)
    assert complete(save(tmp_path / "a.png"), mask=mask) == 0
    seed = int(hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()[:15], 16) if mask == "half" else 0
    hole = holes.named_hole(mask, 32, np.random.default_rng(seed), around)
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[~hole], FACE[~hole]) and (completed[hole] != FACE[hole]).any()


def test_half_hides_another_side_in_other_photos_and_the_same_again(
    complete: Complete, tmp_path: Path, done: Path
) -> None:
    raw = tmp_path / "raw"
    for number in range(12):
        save(raw / f"{number}.png", FACE + number)
    assert complete(raw, mask="half") == 0
    before = contents(done)
    changed = [(pixels(done / name) != pixels(raw / name)).any(axis=2) for name in before]
    assert len({hole.tobytes() for hole in changed}) > 2
    assert complete(raw, "--overwrite", mask="half") == 0 and contents(done) == before


@pytest.mark.parametrize("mask", ["file", "scratch"])
def test_a_mask_that_touches_no_face_is_filled_from_its_surroundings(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str], mask: str
) -> None:
    ramp = np.linspace(40, 200, 100).astype(np.uint8)[None, :, None].repeat(100, axis=0).repeat(3, axis=2)
    raw = save(tmp_path / "raw" / "a.png", ramp).parent
    hole = np.zeros((100, 100), dtype=bool)
    hole[(slice(30, 70), slice(20, 60)) if mask == "file" else (slice(50, 53), slice(10, 90))] = True
    file = save(tmp_path / "mask.png", np.where(hole, 255, 0))
    report = tmp_path / "report.json"
    assert complete(raw, "--history", "--strip", "--candidates", 2, "--report", report, mask=file) == 0
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[~hole], ramp[~hole])
    error, of_mean = (np.abs(fill - ramp[hole]).mean() for fill in (completed[hole].astype(float), ramp[~hole].mean()))
    assert error < of_mean  # nearer than the mean colour of the surroundings
    [record] = strict(report.read_text())["photos"]
    assert record["sources"] == {"surroundings": 1.0} and record["figures"]["faces"] == 0
    assert sorted(record["outputs"]) == [str(done / name) for name in files(done)]
    for words in ([raw, "--no-face", "fail"], [raw / "a.png"]):
        assert complete(*words, mask=file, output=tmp_path / "none") == (3 if "fail" in words else 2)
        assert "no face was found under the hole" in capsys.readouterr().err
    assert complete(raw / "a.png", "--no-face", "fill", mask=file, output=tmp_path / "one.png") == 0
    assert np.array_equal(pixels(tmp_path / "one.png"), completed)


def test_a_mask_that_hides_everything_cannot_be_filled_from_surroundings(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png", NO_FACE).parent
    assert complete(raw, mask=save(tmp_path / "mask.png", np.full((100, 100), 255))) == 3
    assert "no face was found under the hole" in capsys.readouterr().err


def test_lowres_keeps_the_means_of_the_blocks(complete: Complete, tmp_path: Path, done: Path) -> None:
    assert complete(save(tmp_path / "a.png"), mask="lowres") == 0
    found, wanted = (image.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)) for image in (pixels(done / "a.png"), FACE))
    assert np.abs(found - wanted).max() <= 1


def test_a_whole_photo_changes_only_in_the_hole(
    complete: Complete, astronaut: NDArray[np.uint8], tmp_path: Path, done: Path
) -> None:
    photo = astronaut[0:230, 100:340]
    assert complete(save(tmp_path / "a.png", photo), mask="mouth") == 0
    changed = (pixels(done / "a.png") != photo).any(axis=2)
    assert 0 < changed.mean() < 0.05


def test_faces_all_places_a_named_hole_on_every_face(
    complete: Complete, astronaut: NDArray[np.uint8], tmp_path: Path, done: Path
) -> None:
    face = astronaut[0:230, 110:340]
    photo = save(tmp_path / "a.png", np.hstack([face, face]))
    halves = {}
    for faces in ("largest", "all"):
        assert complete(photo, "--faces", faces, "--overwrite") == 0
        changed = (pixels(done / "a.png") != pixels(photo)).any(axis=(2))
        halves[faces] = sorted([bool(changed[:, :230].any()), bool(changed[:, 230:].any())])
    assert halves == {"largest": [False, True], "all": [True, True]}


@pytest.mark.parametrize("blend", ["poisson", "alpha", "none"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_blend_works_with_every_solver(
    complete: Complete, encoder_weights_file: Path, tmp_path: Path, done: Path, blend: str, solver: str
) -> None:
    words = ["--blend", blend, "--solver", solver, "--weights", encoder_weights_file]
    assert complete(save(tmp_path / "a.png"), *words) == 0
    assert np.array_equal(pixels(done / "a.png")[~CENTER], FACE[~CENTER])


def test_the_encoder_solver_needs_an_encoder(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(save(tmp_path / "a.png"), "--solver", "encoder") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "no encoder" in line and "python -m dcgan encode" in line
    assert not list(done.iterdir())


def test_every_solver_can_be_chosen() -> None:
    [action] = [item for item in build_parser()._actions if item.dest == "solver"]
    assert set(action.choices or ()) == {"fast", *SOLVERS}


def test_the_seed_repeats_a_completion(complete: Complete, tmp_path: Path) -> None:
    photo = save(tmp_path / "a.png")
    data = []
    for number, seed in enumerate((1, 1, 2)):
        output = tmp_path / f"{number}.png"
        assert complete(photo, "--seed", seed, output=output) == 0
        data.append(output.read_bytes())
    assert data[0] == data[1] != data[2]


def test_strip_and_history_are_written_beside_the_photo(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(save(tmp_path / "a.png"), "--strip", "--history") == 0
    written = ["a.png", "a.strip.png", "a.history.gif", "a.history.jsonl"]
    assert capsys.readouterr().out.splitlines() == [str(done / name) for name in written]
    assert files(done) == sorted(written)
    strip = pixels(done / "a.strip.png")
    assert strip.shape == (256, 3 * 256, 3)
    assert np.array_equal(strip[::8, :256:8], FACE) and np.array_equal(strip[::8, 512::8], pixels(done / "a.png"))
    middle = strip[::8, 256:512:8]
    assert np.array_equal(middle[~CENTER], FACE[~CENTER]) and (middle[CENTER] == (255, 0, 255)).all()
    with Image.open(done / "a.history.gif") as animation:
        assert animation.format == "GIF" and animation.n_frames == 4 and animation.size == (256, 256)
    lines = [json.loads(line) for line in (done / "a.history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert line["face"] == 0 and len(line["context"]) == len(line["prior"]) == 2 and line["best"] in (0, 1)


def strict(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_report_has_settings_means_and_a_record_per_photo(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png", 255 - FACE)
    (raw / "c.png").write_text("text")
    report = tmp_path / "reports" / "done.json"
    assert complete(raw, "--report", report, "--seed", 5) == 3
    found = strict(report.read_text())
    assert found["settings"] | {"mask": "center", "seed": 5, "blend": "poisson"} == found["settings"]
    first, second, third = found["photos"]
    assert (first["status"], first["outputs"], first["reason"]) == ("completed", [str(done / "a.png")], "")
    assert (third["status"], third["outputs"], third["figures"]) == ("failed", [], {})
    assert "not an image" in third["reason"]
    figures = first["figures"]
    assert (figures["hole_share"], figures["faces"], figures["outside_share"]) == (0.25, 1, 0)
    difference = pixels(done / "a.png")[CENTER].astype(float) - FACE[CENTER]
    assert figures["hole_psnr"] == pytest.approx(10 * np.log10(255**2 / (difference**2).mean()))
    assert figures["psnr"] == pytest.approx(figures["hole_psnr"] + 10 * np.log10(4))
    for name, mean in found["summary"].items():
        assert mean == pytest.approx((first["figures"][name] + second["figures"][name]) / 2)
    assert re.search(r"^2 completed, 1 failed in \d+\.\d s$", capsys.readouterr().err, re.MULTILINE)


def test_a_perfect_completion_has_null_for_its_infinite_psnr(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaceCompleter, "named_hole", lambda *_: np.ones((32, 32), dtype=bool))
    first = tmp_path / "first.png"
    assert complete(save(tmp_path / "a.png"), output=first) == 0
    assert (
        complete(first, "--report", tmp_path / "r.json", output=tmp_path / "second.png") == 0
    )  # completing it again changes nothing
    report = strict((tmp_path / "r.json").read_text())
    assert report["photos"][0]["figures"]["psnr"] is None and report["photos"][0]["figures"]["ssim"] == 1
    assert "psnr" not in report["summary"] and "ssim" in report["summary"]


def test_no_psnr_is_reported_for_mask_files(complete: Complete, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.png", np.where(CENTER, 255, 0).astype(np.uint8))
    assert complete(save(tmp_path / "a.png"), "--report", tmp_path / "r.json", mask=mask) == 0
    assert "psnr" not in strict((tmp_path / "r.json").read_text())["photos"][0]["figures"]


def test_verbose_prints_figures_and_quiet_nothing(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png", 255 - FACE)
    assert complete(raw, "-v") == 0
    told = capsys.readouterr().err
    assert f"{raw / 'a.png'}: hole share 0.25, faces 1" in told and "psnr" not in told
    assert re.search(r"^2 completed, 0 failed in \d+\.\d s; means: hole share 0.25, faces 1", told, re.MULTILINE)
    assert complete(raw, "-q", "--overwrite", mask="full") == 0
    assert capsys.readouterr() == ("", "")


def test_a_fully_hidden_face_gets_a_note_except_with_lowres(
    complete: Complete, astronaut: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aligned, whole = save(tmp_path / "a.png"), save(tmp_path / "b.png", astronaut[0:230, 110:340])
    for mask, expected in (("full", 1), ("lowres", 0), ("center", 0)):
        for photo in (aligned, whole):
            assert complete(photo, "--overwrite", mask=mask) == 0
            assert capsys.readouterr().err.count("was generated at random") == expected


# Mask files


def test_one_mask_file_serves_all_photos_and_is_resized_with_a_note(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png", 255 - FACE)
    mask = save(tmp_path / "mask.png", np.where(CENTER, 255, 0).astype(np.uint8)[::2, ::2])
    assert complete(raw, mask=mask) == 0
    for name, photo in (("a.png", FACE), ("b.png", 255 - FACE)):
        completed = pixels(done / name)
        assert np.array_equal(completed[~CENTER], photo[~CENTER]) and (completed[CENTER] != photo[CENTER]).any()
    assert capsys.readouterr().err.count("the mask was resized from 16x16 to the photo's 32x32") == 2


def test_a_folder_of_masks_can_be_inverted(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, holes = tmp_path / "raw", tmp_path / "holes"
    for name in ("a.png", "sub/a.png", "sub/alone.png"):
        save(raw / name)
    save(holes / "a.bmp", np.where(CENTER, 255, 0).astype(np.uint8))
    save(holes / "sub" / "a.png", np.where(CENTER.T[::-1] & (np.arange(32) < 16), 0, 255).astype(np.uint8))
    assert complete(raw, mask=holes) == 3
    assert "no mask for this photo; expected one image named sub/alone.*" in capsys.readouterr().err
    assert np.array_equal(pixels(done / "a.png")[~CENTER], FACE[~CENTER])
    assert complete(raw / "sub" / "a.png", "--invert-mask", mask=holes / "sub", output=tmp_path / "i.png") == 0
    changed = (pixels(tmp_path / "i.png") != FACE).any(axis=2)
    assert changed.any() and not changed[:, 16:].any() and not changed[:8].any()


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "not an image"), (b"text", "not an image"), (None, "not a regular file")]
)
def test_an_unreadable_mask_is_reported(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    mask = tmp_path / "mask.png"
    os.mkfifo(mask) if content is None else mask.write_bytes(content)
    assert complete(save(tmp_path / "a.png"), mask=mask) == 2
    told = capsys.readouterr().err
    assert f"the mask {mask}: {words}" in told and len(told.splitlines()) == 1


def test_an_empty_mask_is_reported(complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = save(tmp_path / "mask.png", np.zeros((32, 32), dtype=np.uint8))
    assert complete(save(tmp_path / "a.png"), mask=mask) == 2
    assert "the hole is empty" in capsys.readouterr().err


def test_photos_that_differ_only_under_the_mask_give_identical_files(
    complete: Complete, astronaut: NDArray[np.uint8], tmp_path: Path, done: Path
) -> None:
    face = astronaut[0:230, 110:340]
    hole = np.zeros((230, 230), dtype=bool)
    hole[140:165, 95:135] = True
    mask = save(tmp_path / "mask.png", np.where(hole, 255, 0).astype(np.uint8))
    raw = save(tmp_path / "raw" / "a.png", face).parent
    save(raw / "b.png", np.where(hole[..., None], 255 - face, face))
    assert complete(raw, mask=mask) == 0
    assert not differences(done / "a.png", done / "b.png")


# Alpha, colour modes and metadata


def test_with_alpha_only_the_hole_becomes_opaque(complete: Complete, tmp_path: Path, done: Path) -> None:
    rgba = np.dstack([FACE, np.where(CENTER, 0, 255).astype(np.uint8)])
    raw = save(tmp_path / "raw" / "a.png", rgba).parent
    save(
        raw / "b.png", np.where(CENTER[..., None], np.uint8([9, 8, 7, 0]), rgba)
    )  # other colours under full transparency
    assert complete(raw, mask="alpha") == 0
    with Image.open(done / "a.png") as completed:
        assert completed.mode == "RGBA"
    found = pixels(done / "a.png")
    assert np.array_equal(found[~CENTER], rgba[~CENTER]) and (found[..., 3] == 255).all()
    assert not differences(done / "a.png", done / "b.png")
    assert complete(raw / "a.png", "--invert-mask", "--overwrite", mask="alpha") == 0
    found = pixels(done / "a.png")
    assert (found[~CENTER] != rgba[~CENTER]).any() and np.array_equal(found[CENTER], rgba[CENTER])


def test_alpha_and_colours_outside_the_hole_do_not_change(complete: Complete, tmp_path: Path, done: Path) -> None:
    rgba = np.dstack([FACE, np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)])
    assert complete(save(tmp_path / "a.png", rgba)) == 0
    assert np.array_equal(pixels(done / "a.png")[~CENTER], rgba[~CENTER])


def test_grey_photos_stay_grey(complete: Complete, tmp_path: Path, done: Path) -> None:
    assert complete(save(tmp_path / "a.png", FACE[..., 0])) == 0
    found = pixels(done / "a.png")
    assert found.shape == (32, 32) and np.array_equal(found[~CENTER], FACE[~CENTER][:, 0])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_and_colour_profile_are_kept_without_orientation_and_position(
    complete: Complete, tmp_path: Path, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    photo = save(tmp_path / "a.jpg", FACE, exif=exif, icc_profile=SRGB)
    assert b"N\x00" in exif.tobytes()
    output = tmp_path / f"done{suffix}"
    assert complete(photo, output=output) == 0
    with Image.open(output) as completed:
        found = completed.getexif()
        assert completed.info["icc_profile"] == SRGB and found[ExifTags.Base.Make] == "Maker"
        assert ExifTags.Base.Orientation not in found and ExifTags.Base.GPSInfo not in found
        if suffix != ".jpg":
            assert np.array_equal(np.asarray(completed)[~CENTER], read_photo(photo).pixels[~CENTER])


# Files


def test_subfolders_and_photos_with_the_same_stem_are_kept(complete: Complete, tmp_path: Path, done: Path) -> None:
    raw = tmp_path / "raw"
    for name in ("a.png", "a.bmp", "sub/a.png", "sub/deep/b.jpg"):
        save(raw / name)
    assert complete(raw) == 0
    assert files(done) == ["a.bmp.png", "a.png.png", "sub/a.png", "sub/deep/b.png"]


def test_outputs_of_photos_in_a_parent_folder_stay_in_the_output_folder(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "above.png")
    save(tmp_path / "here" / "b.png")
    monkeypatch.chdir(tmp_path / "here")
    before = files(tmp_path)
    assert complete("../above.png", "b.png", output="done") == 0
    assert files(tmp_path / "here" / "done") == ["above.png", "here/b.png"]
    assert [name for name in files(tmp_path) if "done" not in name] == before


def test_existing_outputs_are_replaced_only_with_overwrite(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save(tmp_path / "a.png")
    save(done / "a.strip.png", NO_FACE)
    assert complete(photo, "--strip") == 2
    assert f"{done / 'a.strip.png'} exists; overwrite it" in capsys.readouterr().err
    assert files(done) == ["a.strip.png"] and np.array_equal(pixels(done / "a.strip.png"), NO_FACE)
    assert complete(photo, "--strip", "--overwrite") == 0
    assert not np.array_equal(pixels(done / "a.strip.png"), NO_FACE)


def no_work(*_: object, **__: object) -> NoReturn:
    raise AssertionError("work has started")


def test_an_output_that_is_the_input_is_refused(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete_module, "load_fitting", no_work)
    photo = save(tmp_path / "raw" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    data = photo.read_bytes()
    for inputs, output in (
        ([tmp_path / "raw"], tmp_path / "raw"),
        ([photo], tmp_path / "raw"),
        ([photo], photo),
        ([photo], tmp_path / "link" / "a.png"),
        ([tmp_path / "link"], tmp_path / "raw"),
        ([tmp_path / "raw"], tmp_path / "raw" / "done"),
        ([tmp_path / "raw" / "a.png", tmp_path / "raw"], tmp_path / "raw"),
    ):
        assert complete(*inputs, "--overwrite", output=output) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert photo.read_bytes() == data and files(tmp_path) == ["raw/a.png"]


def test_photos_in_two_folders_are_not_replaced_by_outputs_in_their_parent(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete_module, "load_fitting", no_work)
    folders = [save(tmp_path / "p" / name / "x.png").parent for name in "ab"]
    for overwrite in ([], ["--overwrite"]):
        assert complete(*folders, *overwrite, output=tmp_path / "p") == 2
        assert "is in the input folder" in capsys.readouterr().err
    assert all(np.array_equal(pixels(folder / "x.png"), FACE) for folder in folders)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_masks_and_landmarks_are_not_replaced(
    complete: Complete,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    done: Path,
    overwrite: list[str],
) -> None:
    monkeypatch.setattr(complete_module, "load_fitting", no_work)
    photos = save(tmp_path / "photos" / "a.png").parent
    masks = save(tmp_path / "holes" / "a.png", np.where(CENTER, 255, 0)).parent
    (tmp_path / "faces.jsonl").write_text("{}")
    for words, mask, output in (
        ([photos], masks, masks),
        ([photos], masks / "a.png", masks),
        ([photos / "a.png"], masks / "a.png", masks / "a.png"),
        ([photos, "--report", masks / "a.png"], masks, tmp_path / "done"),
        ([photos, "--report", photos / "a.png"], "center", tmp_path / "done"),
        (
            [photos, "--landmarks", tmp_path / "faces.jsonl", "--report", tmp_path / "faces.jsonl"],
            masks,
            done,
        ),
    ):
        before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
        assert complete(*words, *overwrite, mask=mask, output=output) == 2
        told = capsys.readouterr().err
        assert ("is also an input" in told or "is in the input folder" in told) and len(told.splitlines()) == 1
        assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_side_outputs_do_not_replace_an_input(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, other = save(tmp_path / "x.png"), save(tmp_path / "x.strip.png", 255 - FACE)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "x.2.png").symlink_to(other)
    for words, output in ((["--strip"], tmp_path / "done.png"), (["--candidates", 2], tmp_path / "done" / "x.png")):
        output = output.with_name("x.png") if "--strip" in words else output
        assert complete(other, *words, "--overwrite", output=output) == 2
        assert "is also an input" in capsys.readouterr().err
    assert np.array_equal(pixels(photo), FACE) and np.array_equal(pixels(other), 255 - FACE)


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "long"])
def test_a_batch_reports_an_output_that_cannot_be_replaced_and_continues(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    raw = save(tmp_path / "raw" / "b.png").parent
    name = "a" * 250 + ".png" if kind == "long" else "a.png"
    save(raw / name)
    done.mkdir()
    if kind == "folder":
        (done / name).mkdir()
    elif kind == "link":
        (done / name).symlink_to(save(tmp_path / "mine.png", NO_FACE))
    elif kind == "pipe":
        os.mkfifo(done / name)
    assert complete(raw, "--strip") == 3
    told = capsys.readouterr().err
    assert f"{raw / name}: the output {done}" in told or f"{raw / name}: {done}" in told and "too long" in told
    assert {"b.png", "b.strip.png"} <= set(files(done)) and "1 completed, 1 failed" in told
    assert kind != "link" or np.array_equal(pixels(tmp_path / "mine.png"), NO_FACE)


@pytest.mark.parametrize("report", ["/dev/null", "link.json", "done/a.png"])
def test_a_report_replaces_only_json_files(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str], report: str
) -> None:
    photos = save(tmp_path / "raw" / "a.png").parent
    (tmp_path / "notes.json").write_text('{"photos": []}')
    (tmp_path / "link.json").symlink_to(tmp_path / "notes.json")
    assert complete(photos, "--report", tmp_path / report) == 2
    assert "report" in capsys.readouterr().err or Path(report).is_absolute()
    assert (tmp_path / "notes.json").read_text() == '{"photos": []}' and files(done) == []
    assert Path("/dev/null").is_char_device()


def test_a_batch_locks_its_folder_and_removes_temporary_files_of_a_killed_run(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "sub" / "a.png").parents[1]
    part = save(done / "sub" / "x.png").rename(done / "sub" / ".0123456789abcdef.part")
    with lock_folder(done):
        assert complete(raw) == 2
    assert "another run is writing to" in capsys.readouterr().err and part.exists()
    assert complete(raw) == 0
    assert files(done) == ["sub/a.png"]


def test_unwritable_outputs_are_reported_before_any_work(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete_module, "load_fitting", no_work)
    photo = save(tmp_path / "a.png")
    for output in (photo / "done", photo / "done.png"):
        assert complete(photo, output=output) == 2
        assert "cannot be written to" in capsys.readouterr().err
    assert complete(photo, "--report", photo / "report.json") == 2
    assert complete(photo, "--report", tmp_path) == 2

    def read_only(**_: object) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert complete(photo) == 2
    assert "Read-only file system" in capsys.readouterr().err


@pytest.mark.parametrize("full_at", [0, 1, 2, 3])
def test_a_full_disk_keeps_the_old_files_and_the_batch_continues(
    complete: Complete,
    tmp_path: Path,
    done: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    full_at: int,
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png")
    outputs = ["a.strip.png", "a.history.gif", "a.history.jsonl", "a.png"]  # in the order of writing
    for name in outputs:
        save(done / "old.png").rename(done / name)
    old = (done / "a.png").read_bytes()
    writes = iter(range(100))

    def fsync(_: int) -> None:
        if next(writes) == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert complete(raw, "--overwrite", "--strip", "--history") == 3
    assert f"{raw / 'a.png'}: cannot be written: No space left on device" in capsys.readouterr().err
    assert [(done / name).read_bytes() == old for name in outputs] == [index >= full_at for index in range(4)]
    assert files(done) == sorted(outputs + [name.replace("a", "b", 1) for name in outputs])  # no temporary files


def test_a_photo_that_vanishes_during_the_run_is_reported(
    complete: Complete,
    tmp_path: Path,
    done: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    gone = save(raw / "b.png")
    save(raw / "c.png")

    def read_and_remove(path: Path) -> object:
        gone.unlink(missing_ok=True)
        return read_photo(path)

    monkeypatch.setattr(batch, "read_photo", read_and_remove)
    assert complete(raw) == 3
    assert f"{gone}: cannot be read: No such file" in capsys.readouterr().err
    assert files(done) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    "name", ["grüße 脸.png", "with space.png", "line\nbreak.png", "-v.png", "--mask.png", "a'\".png"]
)
def test_any_file_name_works(
    complete: Complete, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(save(tmp_path / "raw" / name).parent)
    assert complete("--", name) == 0
    assert files(done) == [name]


def test_file_names_with_line_breaks_give_single_line_messages(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "line\nbreak.png").write_text("text")
    assert complete(tmp_path / "line\nbreak.png") == 2
    told = capsys.readouterr().err
    assert "line\\nbreak.png': not an image" in told and len(told.splitlines()) == 1


def test_file_names_that_are_not_utf_8_reach_stdout_unchanged(small_weights_file: Path, tmp_path: Path) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    os.rename(raw / "a.png", os.fsencode(raw) + b"/\xff.png")
    command = [sys.executable, "-W", "error", "-m", "completion", "--mask", "center", "--weights", small_weights_file]
    command += ["--device", "cpu", "--output", tmp_path / "done", "--solver", "fast", raw]
    told = subprocess.run(
        command,
        cwd=PROJECT,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict", "OMP_NUM_THREADS": "1"},
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == os.fsencode(tmp_path / "done") + b"/\xff.png\n"
    assert told.stderr.startswith(b"1 completed, 0 failed in ")
    assert files(tmp_path / "done") == [os.fsdecode(b"\xff.png")]


def encoded(kind: str, pixels: NDArray[np.uint8] = FACE, **settings: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **settings)
    return stream.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")
FRAMES = [Image.fromarray(FACE), Image.fromarray(255 - FACE)]
BROKEN = {
    "01-empty.png": (b"", "not an image"),
    "02-text.png": (b"<html>no photo</html>", "not an image"),
    "03-cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "03-last-byte.jpg": (JPEG[:-1], "truncated"),
    "04-crc.png": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "damaged"),
    "08-animated.webp": (encoded("WEBP", save_all=True, append_images=FRAMES[1:]), "animation"),
    "08-gif.gif": (encoded("GIF"), "not an image"),
    "09-tiff.tif": (encoded("TIFF"), "not an image"),
    "16-1x1.png": (encoded("PNG", FACE[:1, :1]), "no face"),
    "16-1xn.png": (encoded("PNG", FACE[:, :1]), "no face"),
    "16-wide.png": (encoded("PNG", np.zeros((1, 65500, 3), dtype=np.uint8)), "no face"),
    "30-no-face.png": (encoded("PNG", NO_FACE), "no face"),
}


def test_each_unusable_file_is_reported_and_the_batch_continues(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "00-sound.png").parent
    for name, (data, _) in BROKEN.items():
        (raw / name).write_bytes(data)
    (raw / "18-a-png-really.jpg").write_bytes(PNG)
    (raw / "36-dangling.png").symlink_to("nowhere.png")
    (raw / "36-loop").symlink_to(raw)
    os.mkfifo(raw / "42-fifo.png")
    save(raw / "99-sound.png")
    reasons = {name: words for name, (_, words) in BROKEN.items()}
    reasons |= {"36-dangling.png": "cannot be read", "42-fifo.png": "not a regular file"}
    assert complete(raw) == 3
    told = capsys.readouterr()
    *lines, counts = told.err.splitlines()
    assert len(lines) == len(reasons)
    for line, (name, words) in zip(lines, sorted(reasons.items()), strict=True):
        assert line.startswith(f"{raw / name}: ") and words in line
    assert counts.startswith(f"3 completed, {len(reasons)} failed")
    assert files(done) == ["00-sound.png", "18-a-png-really.png", "99-sound.png"]
    assert told.out.splitlines() == [str(done / name) for name in files(done)]


def test_a_fifo_is_refused_without_blocking(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert complete(tmp_path / "a.png") == 2
    assert "not a regular file" in capsys.readouterr().err


# Many photos


def test_a_second_run_completes_only_missing_outputs(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    for number in range(3):
        save(raw / f"{number}.png", FACE + number)
    assert complete(raw, "--strip") == 0
    first = {name: (done / name).read_bytes() for name in files(done)}
    (done / "1.png").unlink()
    (done / "2.strip.png").unlink()
    capsys.readouterr()
    assert complete(raw, "--strip", "-v", "--report", tmp_path / "r.json") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(done / "1.png"), str(done / "1.strip.png")]
    assert f"{raw / '0.png'}: already completed" in told.err and "1 completed, 0 failed, 2 skipped in " in told.err
    assert {name: (done / name).read_bytes() for name in files(done)} == {
        name: data for name, data in first.items() if name != "2.strip.png"
    }
    records = strict((tmp_path / "r.json").read_text())["photos"]
    assert [record["status"] for record in records] == ["skipped", "skipped", "completed"]
    assert complete(raw) == 0 and capsys.readouterr().err.startswith("0 completed, 0 failed, 3 skipped in ")
    assert complete(raw / "1.png") == 2  # a single photo is not skipped
    assert "exists; overwrite it" in capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


@pytest.mark.parametrize(
    "change",
    [["--seed", 7], ["--blend", "none"], ["--mask", "full"], ["--solver", "paper"], ["--candidates", 2], ["--strip"]],
)
def test_a_request_with_another_setting_redoes_earlier_results(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str], change: list[object]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png", 255 - FACE)
    for words in ([], change, [], change):
        fresh = tmp_path / f"fresh{len(words)}"
        assert complete(raw, *words, output=fresh) == 0 and complete(raw, *words) == 0
        assert contents(fresh).items() <= contents(done).items()
        capsys.readouterr()
        assert complete(raw, *words) == 0
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("0 completed, 0 failed, 2 skipped")


def test_other_weights_redo_earlier_results(
    complete: Complete, tmp_path: Path, done: Path, encoder_weights_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    assert complete(raw) == 0
    before = contents(done)
    assert complete(raw, "--weights", encoder_weights_file) == 0
    assert contents(done) != before


def test_a_changed_mask_redoes_a_result_and_a_changed_photo_keeps_it(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, masks = save(tmp_path / "raw" / "a.png").parent, tmp_path / "masks"
    for left in (4, 8):
        hole = (np.arange(32) >= left) & (np.arange(32) < left + 8) & CENTER
        save(masks / "a.png", np.where(hole, 255, 0))
        assert complete(raw, mask=masks) == 0
        changed = (pixels(done / "a.png") != FACE).any(axis=2)
        assert changed.any() and not changed[~hole].any()
    before = contents(done)
    save(raw / "a.png", 255 - FACE)
    assert complete(raw, mask=masks) == 3
    assert "was made from another photo" in capsys.readouterr().err and contents(done) == before
    assert complete(raw, "--overwrite", mask=masks) == 0 and contents(done) != before


def test_files_of_others_and_edited_results_are_replaced_only_with_overwrite(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    for number, name in enumerate(("edited.png", "foreign.png", "side.png", "sound.png")):
        save(raw / name, FACE + number)
    save(done / "foreign.png", NO_FACE)
    save(done / "side.strip.png", NO_FACE)
    before = contents(done)
    assert complete(raw, "--strip") == 3
    told = capsys.readouterr().err
    for name, file in (("foreign", "foreign.png"), ("side", "side.strip.png")):
        assert f"{raw / name}.png: {done / file} was not made by this program" in told
    assert before.items() <= contents(done).items() and (done / "sound.png").exists()
    save(done / "edited.png", NO_FACE)
    before = contents(done)
    assert complete(raw, "--strip") == 3  # the edited result is skipped, the two others still fail
    assert contents(done) == before
    assert complete(raw, "--strip", "--seed", 1) == 3
    assert f"{done / 'edited.png'} was not made by this program, or was changed" in capsys.readouterr().err
    assert np.array_equal(pixels(done / "edited.png"), NO_FACE)
    assert complete(raw, "--strip", "--seed", 1, "--overwrite") == 0
    assert not any(np.array_equal(pixels(done / name), NO_FACE) for name in files(done))


def test_a_result_is_recorded_with_its_settings_weights_and_version(
    complete: Complete, tmp_path: Path, done: Path, small_weights_file: Path
) -> None:
    photo = save(tmp_path / "raw" / "a.png")
    mask = save(tmp_path / "mask.png", np.where(CENTER, 255, 0))
    assert complete(photo, "--seed", 3, "--strip", mask=mask) == 0
    *_, line = map(json.loads, (done / ".completions.jsonl").read_text().splitlines())
    sha256 = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (photo, mask)}
    made = {name: hashlib.sha256(data).hexdigest() for name, data in contents(done).items()}
    assert line["output"] == "a.png" and line["files"] == made
    expected = {"photo": sha256[photo], "mask": sha256[mask], "seed": 3, "solver": "fast", "version": VERSION}
    assert line["request"] | expected == line["request"]
    assert line["request"]["weights_sha256"] == [Weights.open(small_weights_file, "cpu").sha256]


def test_broken_records_are_ignored_and_a_cut_last_line_is_closed(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    assert complete(raw) == 0
    with (done / ".completions.jsonl").open("a") as file:
        file.write('[]\n{"output": 3}\n{"output": "a.png", "files": 7}\n\ufeff\n{"output": "b.png", "fil')
    save(raw / "b.png", 255 - FACE)
    assert complete(raw) == 0
    assert "1 completed, 0 failed, 1 skipped" in capsys.readouterr().err
    assert complete(raw) == 0
    assert "0 completed, 0 failed, 2 skipped" in capsys.readouterr().err


def test_photos_of_one_stem_do_not_share_a_mask(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, masks = save(tmp_path / "raw" / "a.png").parent, tmp_path / "masks"
    save(raw / "a.bmp", 255 - FACE)
    save(masks / "a.png", np.where(CENTER, 255, 0))
    assert complete(raw, mask=masks) == 3
    assert "no mask for this photo; expected one image named a.bmp.*" in capsys.readouterr().err
    for name in ("a.png.png", "a.bmp.png"):
        save(masks / name, np.where(CENTER, 255, 0))
    assert complete(raw, mask=masks) == 0 and files(done) == ["a.bmp.png", "a.png.png"]


def test_masks_are_listed_and_landmarks_read_once_for_all_photos(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, masks = tmp_path / "raw", tmp_path / "masks"
    lines = []
    for number in range(6):
        save(raw / f"{number}.png", NO_FACE)
        save(masks / f"{number}.png", np.where(np.pad(CENTER, 34), 255, 0))
        points = [[60, 40], [56, 40], [36, 40], [40, 40], [48, 50]]
        lines.append(json.dumps({"source": f"{number}.png", "landmarks": points}))
    (tmp_path / "faces.jsonl").write_text("\n".join(lines))
    listed: list[Path] = []
    read: list[Path] = []
    monkeypatch.setattr(masks, "list_photos", lambda folder: listed.append(folder) or list_photos(folder))
    monkeypatch.setattr(locate, "read_json_lines", lambda path: read.append(path) or read_json_lines(path))
    assert complete(raw, "--landmarks", tmp_path / "faces.jsonl", mask=masks) == 0
    assert listed == [masks] and read == [tmp_path / "faces.jsonl"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("first line\nsecond line"), "unexpected RuntimeError: first line; please report it"),
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError"),
        (RecursionError("too deep"), "unexpected RecursionError"),
        (NoFaceError("no face"), "no face"),
    ],
)
def test_whatever_goes_wrong_with_a_photo_is_reported_and_the_batch_continues(
    complete: Complete,
    tmp_path: Path,
    done: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    words: str,
) -> None:
    raw = save(tmp_path / "raw" / "a.png", NO_FACE[:40, :40]).parent
    save(raw / "b.png")
    place = FaceCompleter.place

    def fail(completer: FaceCompleter, photo: NDArray[np.uint8], *words: Any) -> object:
        if photo.shape[0] == 40:
            raise error
        return place(completer, photo, *words)

    monkeypatch.setattr(FaceCompleter, "place", fail)
    assert complete(raw) == 3
    line, counts = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{raw / 'a.png'}: {words}") and "1 completed, 1 failed" in counts
    assert files(done) == ["b.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--eyes", "38,40,38.001,40"], "the given face has a side of"),
        (["--eyes=-1e6,40,1e6,40"], "not both inside"),
        (["--landmarks", "far.jsonl"], "the given face has a side of"),
    ],
)
def test_an_absurd_face_fails_its_photo_without_allocating_it(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    raw = save(tmp_path / "raw" / "a.png", NO_FACE).parent
    save(raw / "b.png", NO_FACE)
    points = [[200_060, 40], [200_056, 40], [36, 40], [40, 40], [48, 50]]
    lines = [json.dumps({"source": name, "landmarks": points}) for name in ("a.png", "b.png")]
    (tmp_path / "far.jsonl").write_text("\n".join(lines))
    words = [str(tmp_path / word) if word == "far.jsonl" else word for word in words]
    assert complete(raw, *words) == 3
    *lines, _ = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(told in line for line in lines)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"source": "a.png", "landmarks": [[1e308, -1e308]]}', None])
def test_unusable_landmarks_end_the_command_before_any_work(
    complete: Complete,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
) -> None:
    monkeypatch.setattr(complete_module, "load_fitting", no_work)
    path = tmp_path / "faces.jsonl"
    os.mkfifo(path) if text is None else path.write_text(text)
    assert complete(save(tmp_path / "raw" / "a.png").parent, "--landmarks", path) == 2
    told = capsys.readouterr().err
    assert f"the landmarks file {path}" in told and len(told.splitlines()) == 1


def test_no_output_overwrites_another_photos_completion(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "a.strip.png", 255 - FACE)
    assert complete(raw, "--strip", "--overwrite") == 3
    assert f"{raw / 'a.png'}: {done / 'a.strip.png'} is the output of another photo" in capsys.readouterr().err
    assert files(done) == ["a.strip.png", "a.strip.strip.png"]


@pytest.mark.parametrize("full_at", range(4))
def test_the_completion_is_written_last(
    complete: Complete, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    writes = iter(range(100))

    def fsync(_: int) -> None:
        if next(writes) == full_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    raw = save(tmp_path / "raw" / "a.png").parent
    assert complete(raw, "--strip", "--history") == 130
    assert not (done / "a.png").exists() and len(files(done)) == full_at
    assert complete(raw, "--strip", "--history") == 0
    assert len(files(done)) == 4


def test_two_workers_give_the_same_files_as_one(
    complete: Complete, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.undo()  # workers do not see patched solvers
    raw = tmp_path / "raw"
    for number in range(5):
        save(raw / f"{number}.png", FACE + number)
    (raw / "5.png").write_text("text")
    records = []
    for folder, words in ((done, ["--jobs", 2, "--backend", backend]), (tmp_path / "one", [])):
        assert complete(raw, "--history", "--report", tmp_path / "r.json", *words, output=folder) == 3
        found = strict((tmp_path / "r.json").read_text())["photos"]
        records.append([(record["photo"], record["status"], record["figures"].get("psnr")) for record in found])
    assert records[0] == records[1] and len(files(done)) == 15
    assert {name: (done / name).read_bytes() for name in files(done)} == {
        name: (tmp_path / "one" / name).read_bytes() for name in files(tmp_path / "one")
    }


def test_weights_that_a_worker_cannot_load_exit_with_2(
    complete: Complete, tmp_path: Path, small_weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights file is removed after the command has loaded it."""
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png")
    file = tmp_path / "once.safetensors"
    file.write_bytes(small_weights_file.read_bytes())
    load = complete_module.load_fitting

    def load_and_remove(name: str, device: str) -> list[Networks]:
        [networks] = load(name, device)
        assert networks.torch
        file.unlink()
        return [networks]

    monkeypatch.setattr(complete_module, "load_fitting", load_and_remove)
    assert complete(raw, "--jobs", 2, "--weights", file) == 2


def test_sigterm_ends_all_processes_and_leaves_no_partial_file(
    small_weights_file: Path, tmp_path: Path, done: Path
) -> None:
    first = save(tmp_path / "raw" / "0.png")
    for number in range(1, 2000):
        os.link(first, first.with_name(f"{number}.png"))
    command = [sys.executable, "-W", "error", "-m", "completion", "--mask", "center", "--weights", small_weights_file]
    command += ["--device", "cpu", "--output", done, "--strip", "--jobs", "2", first.parent]
    process = subprocess.Popen(
        command, cwd=PROJECT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not list(done.glob("*.png")) and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 143
        assert err == "completion: stopped; completed photos are kept; repeat the command to resume\n"
        with pytest.raises(ProcessLookupError):
            for _ in range(400):
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    finally:
        process.kill()
    assert 0 < len(files(done)) < 3000
    assert [name for name in files(done) if not name.endswith(".png")] == []
    for name in files(done):
        assert pixels(done / name).shape[0] in (32, 256)
    assert set(out.splitlines()) <= {str(done / name) for name in files(done)}


# Usage


def test_unusable_input_exits_with_2_and_one_line(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("text")
    for arguments, mask, words in (
        ([tmp_path / "gone.png"], "center", "does not exist"),
        ([tmp_path / "empty"], "center", "found no photos in"),
        ([photo], "centre", "no mask named 'centre'; did you mean 'center'?"),
        ([photo], "center:2", "center takes a number above 0 and below 0.5"),
        ([photo], "alpha", "without alpha"),
        ([photo, "--device", "cuda:99"], "center", "the device cuda:99 is absent"),
        ([photo, "--weights", tmp_path / "gone.safetensors"], "center", "gone.safetensors is not a file"),
        ([photo, "--weights", tmp_path / "text.safetensors"], "center", "not a readable safetensors file"),
    ):
        assert complete(*arguments, mask=mask) == 2
        told = capsys.readouterr()
        assert told.out == "" and words in told.err and len(told.err.splitlines()) == 1
    assert files(tmp_path) == ["a.png", "text.safetensors"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.png"],
        ["--mask", "center"],
        ["a.png", "--mask", "center", "--solver", "none"],
        ["a.png", "--mask", "center", "--blend", "none such"],
        ["a.png", "--mask", "center", "--faces", "some"],
        ["a.png", "--mask", "center", "--seed", "-1"],
        ["a.png", "--mask", "center", "--seed", str(2**63)],
        ["a.png", "--mask", "center", "--seed", "x"],
        ["a.png", "--mask", "center", "-q", "-v"],
        ["a.png", "--mask", "center", "--device", "tpu"],
        ["a.png", "--mask", "center", "--weights", "face-64"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m completion: ") and line.endswith(" (see --help)")


def test_wrong_names_are_reported_before_torch_is_imported(tmp_path: Path) -> None:
    photo = str(save(tmp_path / "a.png"))
    for words, said in (
        (["--mask", "centre"], "there is no mask named 'centre'; did you mean 'center'?"),
        (["--mask", "center", "--weights", "face-64"], "there are no weights 'face-64'; did you mean 'faces-64'?"),
        (["--mask", "center", "--device", "tpu"], "there is no device 'tpu'; did you mean 'cpu'?"),
    ):
        code = f"""
import sys
from completion.__main__ import main
try:
    code = main({[photo, *words]})
except SystemExit as ended:
    code = ended.code
print(code, "torch" in sys.modules)"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "2 False\n"
        [line] = done.stderr.splitlines()
        assert said in line


class Stream(io.TextIOWrapper):
    """Text stream in memory."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content))


def test_a_photo_comes_from_stdin_and_goes_to_stdout(
    complete: Complete, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = save(tmp_path / "a.png")
    assert complete(photo) == 0
    for given, output in (("-", "-"), (photo, "-"), ("-", tmp_path / "file.png"), ("-", tmp_path / "folder")):
        monkeypatch.setattr(sys, "stdin", Stream(photo.read_bytes()))
        monkeypatch.setattr(sys, "stdout", Stream())
        assert complete(given, output=output) == 0
        written = {"-": None, tmp_path / "folder": tmp_path / "folder" / "stdin.png"}.get(output, output)
        sys.stdout.flush()
        told = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
        assert (told if written is None else written.read_bytes()) == (done / "a.png").read_bytes()
        assert written is None or told == f"{written}\n".encode()


def test_stdin_goes_to_stdout_by_default_and_errors_name_it(
    small_weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--weights", str(small_weights_file), "--device", "cpu", "--mask", "center", "-"]
    monkeypatch.setattr(sys, "stdin", Stream(b"text"))
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("stdin: not an image") and not list(tmp_path.iterdir())
    for extra in (["--strip"], ["--candidates", "2"], ["a.png"]):
        assert main([*words, *extra]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "several" in line


def test_the_largest_seed_works(complete: Complete, tmp_path: Path) -> None:
    assert complete(save(tmp_path / "a.png"), "--seed", 2**63 - 1, mask="random") == 0


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (LandmarkModelError("dlib is not installed; run: pip install dlib-bin"), 1, "pip install dlib-bin"),
        (KeyboardInterrupt(), 130, "photos are kept"),
    ],
)
def test_an_aborted_run_gives_one_line_its_exit_code_and_a_partial_report(
    complete: Complete,
    tmp_path: Path,
    done: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    words: str,
) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    save(raw / "b.png")

    def read_or_end(path: Path) -> object:
        if path.name == "b.png":
            raise error
        return read_photo(path)

    monkeypatch.setattr(batch, "read_photo", read_or_end)
    assert complete(raw, "--report", tmp_path / "report.json") == code
    told = capsys.readouterr()
    assert words in told.err and len(told.err.splitlines()) == 1
    assert files(done) == ["a.png"]
    assert len(strict((tmp_path / "report.json").read_text())["photos"]) == 1


def test_a_search_at_its_time_limit_gives_the_best_result_so_far(
    complete: Complete, tmp_path: Path, done: Path
) -> None:
    report = tmp_path / "report.json"
    assert complete(save(tmp_path / "a.png"), "--solver", "paper", "--seconds", 0, "--history", "--report", report) == 0
    assert len((done / "a.history.jsonl").read_text().splitlines()) == 1  # instead of three
    [record] = strict(report.read_text())["photos"]
    assert any("stopped after 0 s" in note for note in record["notes"])
    assert (
        complete(save(tmp_path / "b.png"), "--solver", "paper", "--seconds", 1000, "--history", "--report", report) == 0
    )
    assert len((done / "b.history.jsonl").read_text().splitlines()) == 3
    [record] = strict(report.read_text())["photos"]
    assert not any("stopped" in note for note in record["notes"])


def test_the_prior_weight_defaults_to_the_solvers(complete: Complete, tmp_path: Path, done: Path) -> None:
    found = []
    for name, *given in (("a",), ("b", "--prior-weight", SOLVERS["search"].prior_weight), ("c", "--prior-weight", 1e6)):
        assert complete(save(tmp_path / f"{name}.png"), "--solver", "search", *given) == 0
        found.append(pixels(done / f"{name}.png"))
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_the_help_names_every_mask_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    told = capsys.readouterr().out
    assert (
        ended.value.code == 0 and all(name in told for name in HOLES) and "(default: poisson)" in " ".join(told.split())
    )
    defaults = vars(build_parser().parse_args(["a.png", "--mask", "center"]))
    for name, value in vars(config.BatchOptions("center")).items():
        assert name == "measure" or defaults[name] == value


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("python -m completion ")


def test_an_output_with_an_unsupported_suffix_is_refused(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(save(tmp_path / "a.png"), output=tmp_path / "a.tiff") == 2
    assert ".tiff has an unsupported suffix" in capsys.readouterr().err


def test_a_plan_has_one_output_for_each_photo(tmp_path: Path) -> None:
    one, two = save(tmp_path / "raw" / "a.png"), save(tmp_path / "raw" / "b.png")
    options = config.BatchOptions("center")
    planned = plan.plan_outputs([tmp_path / "raw", one], tmp_path / "done", options)
    assert (planned.root, planned.folder) == (tmp_path / "raw", tmp_path / "done")
    assert planned.outputs == {one: tmp_path / "done" / "a.png", two: tmp_path / "done" / "b.png"}
    with pytest.raises(PhotoError, match="gone does not exist"):
        plan.plan_outputs([tmp_path / "gone"], tmp_path / "done", options)


def test_a_named_mask_cannot_be_inverted(
    complete: Complete, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(save(tmp_path / "a.png"), "--invert-mask") == 2
    assert "inverted" in capsys.readouterr().err


# Given face positions, and candidates


def test_candidates_are_written_with_a_contact_sheet(complete: Complete, tmp_path: Path, done: Path) -> None:
    photo = save(tmp_path / "a.png")
    assert complete(photo, "--candidates", 3) == 0
    assert files(done) == ["a.2.png", "a.3.png", "a.candidates.png", "a.png"]
    found = [pixels(done / name) for name in ("a.png", "a.2.png", "a.3.png")]
    for index, candidate in enumerate(found):
        assert np.array_equal(candidate[~CENTER], FACE[~CENTER])
        assert not any(np.array_equal(candidate, other) for other in found[:index])
    sheet = pixels(done / "a.candidates.png")
    cells = sheet.reshape(2, sheet.shape[0] // 2, 2, sheet.shape[1] // 2, 3).swapaxes(1, 2).reshape(4, -1, 3)
    times = sheet.shape[0] // 64
    for cell, candidate in zip(cells[1:], found, strict=True):
        assert np.array_equal(cell, candidate.repeat(times, axis=0).repeat(times, axis=1).reshape(-1, 3))


@pytest.mark.parametrize("how", ["--eyes", "--box", "--landmarks"])
def test_an_undetected_face_is_completed_at_a_given_position(
    complete: Complete, tmp_path: Path, done: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, mask = save(tmp_path / "raw" / "a.png", NO_FACE), np.zeros((100, 100), dtype=np.uint8)
    mask[50:60, 45:55] = 255
    hole = save(tmp_path / "hole.png", Image.fromarray(mask))
    assert complete(photo, mask=hole) == 2
    assert all(word in capsys.readouterr().err for word in [how])
    line = {"source": "a.png", "landmarks": [[60, 40], [56, 40], [36, 40], [40, 40], [48, 50]]}
    (tmp_path / "faces.jsonl").write_text(json.dumps(line))
    where = {"--eyes": "38,40,58,40", "--box": "24,26,48,48", "--landmarks": tmp_path / "faces.jsonl"}[how]
    assert complete(photo, how, where, "--report", tmp_path / "r.json", mask=hole) == 0
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[mask == 0], NO_FACE[mask == 0])
    [record] = json.loads((tmp_path / "r.json").read_text())["photos"]
    assert record["sources"] == {"face 1": 1.0}


@pytest.mark.parametrize(
    "words", [["--box", "1,2,3"], ["--box", "1,2,3,4", "--eyes", "1,2,3,4"], ["--candidates", "0"]]
)
def test_two_positions_or_zero_candidates_are_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["a.png", "--mask", "center", *words])
    assert stopped.value.code == 2
