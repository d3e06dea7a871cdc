"""The service behind the page: holes, completions, batches and generated faces."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from completion.complete import FaceCompleter
from completion.solve import State
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, PORTRAIT, differences, pixels, save
from PIL import Image

from align.errors import MaskError, NoFaceError, PhotoError
from align.files import atomic_write
from completion import solve as solve_module
from completion.__main__ import main
from completion.config import SOLVERS
from dcgan.dataset import DatasetError
from dcgan.explore.arithmetic import LABELS, directions
from dcgan.weights import Weights
from ui import service as service_module
from ui.service import Filled, Limits, Preview, Report, Service, ServiceError, Settings, Upload, explain

Command = Callable[..., None]


@pytest.fixture
def service(encoder_weights: Weights) -> Service:
    return Service(encoder_weights, Limits(max_pixels=3_000_000, photos=3))


@pytest.fixture
def photo(service: Service, tmp_path: Path) -> Upload:
    """FACE, uploaded as a.png."""
    return service.read(save(tmp_path / "a.png"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.fixture
def command(encoder_weights_file: Path) -> Command:
    """The command line with the same weights."""

    def run(*words: object) -> None:
        assert main([str(word) for word in ["--weights", encoder_weights_file, "--device", "cpu", *words]]) == 0

    return run


def white(hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(hole, 255, 0).astype(np.uint8)


def layer(shape: tuple[int, ...], rows: slice, columns: slice) -> NDArray[np.uint8]:
    """A drawing: a square on a transparent ground."""
    drawn = np.full((*shape[:2], 4), 255, dtype=np.uint8)
    drawn[..., 3] = 0
    drawn[rows, columns, 3] = 128
    return drawn


def png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def broken(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("text")
    return path


def filled(items: Iterator[NDArray[np.uint8] | Filled]) -> Filled:
    *_, last = items
    assert isinstance(last, Filled)
    return last


def finished(items: Iterator[Report | Path]) -> tuple[list[str], dict[str, bytes], dict[str, Any]]:
    """The lines of a batch, the completions in its ZIP file, and the report."""
    *lines, archive = items
    assert isinstance(archive, Path)
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    assert all(isinstance(line, Report) and (line.picture is None) == ("completed" not in line.text) for line in lines)
    return [line.text for line in lines if isinstance(line, Report)], files, json.loads(files.pop("report.json"))


# Settings


WRONG = {
    "solver": ("magic", None, ["fast"]),
    "blend": ("", {}),
    "candidates": (0, 9, 2.0, True),
    "seed": (-1, 2**53 + 1, "1", None),
    "prior_weight": (-0.1, float("nan"), float("inf"), "1"),
}


@pytest.mark.parametrize("wrong", [{name: value} for name, values in WRONG.items() for value in values], ids=str)
def test_a_setting_with_a_wrong_value_or_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="choose one of|give a"):
        Settings(**wrong)


def test_every_solver_is_accepted() -> None:
    for solver in ("fast", *SOLVERS):
        assert Settings(solver, 8, "none", 2**53, 0.5).solver == solver


# Loading


def test_the_corners_of_a_face_are_around_it(service: Service, astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    photo = service.read(save(tmp_path / "a.png", astronaut))
    [corners] = service.corners(photo, service.faces(photo))
    (left, top), (right, bottom) = np.min(corners, axis=0) * 512, np.max(corners, axis=0) * 512
    assert left < 224 < right and top < 110 < bottom and (right - left) * (bottom - top) < 0.1 * 512**2


def test_a_marked_face_is_where_its_eyes_are_and_corrects_a_found_one(
    service: Service, astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    grey = service.read(save(tmp_path / "a.png", np.full((400, 200, 3), 128, dtype=np.uint8)))
    assert service.faces(grey) == []
    [face] = service.faces(grey, [(0.4, 0.5, 0.6, 0.5)])
    eyes = face.apply(np.array([[80, 200], [120, 200]]))
    assert eyes[0, 1] == pytest.approx(eyes[1, 1]) and eyes[:, 0].mean() == pytest.approx((face.size - 1) / 2, abs=1)

    photo = service.read(save(tmp_path / "b.png", astronaut))
    [found] = service.faces(photo)
    marks = [(0.40, 0.22, 0.48, 0.22), (0.39, 0.21, 0.49, 0.21)]
    [corrected] = service.faces(photo, marks)
    [last] = service.faces(photo, marks[1:])
    assert np.array_equal(corrected.matrix, last.matrix) and not np.array_equal(corrected.matrix, found.matrix)
    both = service.faces(photo, [(0.8, 0.8, 0.9, 0.8)])
    assert len(both) == 2 and np.array_equal(both[1].matrix, found.matrix)


@pytest.mark.parametrize(
    "eyes", ["eyes", [1], [(1, 2, 3)], [(0, 0, "1", 0)], [(0, 0, 2, 0)], [(0.1, 0.1, 0.2, 0.2)] * 17], ids=str
)
def test_malformed_marks_are_refused(service: Service, photo: Upload, eyes: Any) -> None:
    with pytest.raises(ServiceError, match="mark"):
        service.faces(photo, eyes)


def test_a_hole_is_filled_where_a_face_was_marked(service: Service, tmp_path: Path, folder: Path) -> None:
    photo = service.read(save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)))
    hole = np.zeros((200, 200), dtype=bool)
    hole[90:110, 90:110] = True
    with pytest.raises(NoFaceError):
        list(service.complete(photo, hole, Settings(), folder))
    faces = service.faces(photo, [(0.4, 0.5, 0.6, 0.5)])
    assert filled(service.complete(photo, hole, Settings(), folder, faces)).completions


def test_photos_masks_and_drawings_over_the_limit_are_refused(encoder_weights: Weights, tmp_path: Path) -> None:
    service = Service(encoder_weights, Limits(max_pixels=100 * 100))
    photo = service.read(save(tmp_path / "a.png", np.zeros((100, 100, 3), dtype=np.uint8)))
    larger = save(tmp_path / "b.png", np.zeros((100, 101, 3), dtype=np.uint8))
    for use in (service.read, lambda path: service.hole(photo, mask=path)):
        with pytest.raises(PhotoError, match="pixels"):
            use(larger)
    with pytest.raises(ServiceError, match="drawing"):
        service.hole(photo, png(np.zeros((1601, 8, 4), dtype=np.uint8)))


def test_an_error_becomes_a_sentence_and_a_missing_face_gets_advice_for_the_page() -> None:
    assert explain(ServiceError("there are 4 photos; give 3")) == "There are 4 photos; give 3"
    advice = explain(NoFaceError("no face; give landmarks"))
    assert "No face" in advice and "landmarks" not in advice


# Holes


@pytest.mark.parametrize("shape", [(64, 64), (1600, 3200), (600, 800)], ids=["enlarged", "reduced", "as it is"])
def test_a_drawing_in_page_size_becomes_a_hole_in_the_photos_size_and_back(
    encoder_weights: Weights, tmp_path: Path, shape: tuple[int, int]
) -> None:
    service = Service(encoder_weights, Limits())
    photo = service.read(save(tmp_path / "a.png", np.full((*shape, 3), 128, dtype=np.uint8)))
    height, width = service.drawing(np.zeros(shape, dtype=bool)).shape[:2]
    drawn = layer((height, width), slice(0, height // 4), slice(0, width // 2))
    expected = np.zeros(shape, dtype=bool)
    expected[: shape[0] // 4, : shape[1] // 2] = True
    hole = service.hole(photo, png(drawn))
    assert np.array_equal(hole, expected)
    assert np.array_equal(service.hole(photo, png(service.drawing(hole))), expected)


def test_no_drawing_gives_no_hole(service: Service, photo: Upload) -> None:
    assert not service.hole(photo).any()
    assert not service.hole(photo, png(layer(FACE.shape, slice(0), slice(0)))).any()


@pytest.mark.parametrize("data", [b"text", b"\x89PNG\r\n\x1a\n", b"GIF89a"], ids=str)
def test_a_drawing_that_cannot_be_read_is_refused(service: Service, photo: Upload, data: bytes) -> None:
    with pytest.raises(ServiceError, match="the drawing cannot be read"):
        service.hole(photo, data)


def test_a_mask_of_another_shape_gets_a_note(service: Service, photo: Upload, tmp_path: Path) -> None:
    mask = np.zeros((64, 128), dtype=np.uint8)
    mask[:32] = 255
    hole, note = service.mask(photo, save(tmp_path / "b.png", mask))
    assert "128x64 pixels and the photo 32x32" in note and hole[:16].all() and not hole[16:].any()
    assert service.mask(photo, save(tmp_path / "c.png", mask[:, :64]))[1] == ""


@pytest.mark.parametrize("faces", ["largest", "all"])
@pytest.mark.parametrize("name", ["center", "random", "mouth"])
def test_a_named_hole_is_that_of_the_command_line(
    service: Service, command: Command, tmp_path: Path, name: str, faces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes = []
    steps = FaceCompleter.steps

    def noted(self: FaceCompleter, pixels: Any, hole: NDArray[np.bool_], **rest: Any) -> Iterator[Any]:
        holes.append(hole)
        return steps(self, pixels, hole, **rest)

    monkeypatch.setattr(FaceCompleter, "steps", noted)
    photo = save(tmp_path / "a.png", np.hstack([PORTRAIT, PORTRAIT]))
    command("--mask", name, "--faces", faces, "--output", tmp_path / "b.png", photo)
    hole = service.hole(service.read(photo), named=name, every=faces == "all")
    assert np.array_equal(hole, holes[0])
    assert sorted([hole[:, :230].any(), hole[:, 230:].any()]) == [faces == "all", True]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "alpha", "lower", ".", "{mask}"])
def test_a_name_is_never_a_file_on_the_server(
    service: Service, photo: Upload, tmp_path: Path, folder: Path, name: str
) -> None:
    name = name.format(mask=save(tmp_path / "mask.png", white(CENTER)))
    for use in (
        lambda: service.hole(photo, named=name),
        lambda: list(service.complete(photo, name, Settings(), folder)),
        lambda: list(service.batch([tmp_path / "a.png"], name, [], Settings(), folder)),
    ):
        with pytest.raises(ServiceError, match="no hole named"):
            use()
    assert not list(folder.iterdir())


def test_a_number_that_a_name_does_not_take_is_refused(service: Service, photo: Upload) -> None:
    with pytest.raises(MaskError, match="center takes"):
        service.hole(photo, named="center:2")


@pytest.mark.parametrize("size", [(32, 32), (64, 96)], ids=["same size", "another size"])
def test_the_hole_is_where_a_mask_is_white(
    service: Service, photo: Upload, tmp_path: Path, size: tuple[int, int]
) -> None:
    mask = np.asarray(Image.fromarray(CENTER).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(service.hole(photo, mask=save(tmp_path / "b.png", white(mask))), CENTER)


# Completing


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings("search", 3, "alpha", 5), Settings("paper", 2, "none", 1, 0.1)],
    ids=lambda settings: settings.solver,
)
def test_completions_are_those_of_the_command_line_byte_for_byte(
    service: Service,
    command: Command,
    tmp_path: Path,
    folder: Path,
    suffix: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, solver in SOLVERS.items():
        monkeypatch.setitem(SOLVERS, name, replace(solver, steps=3))
    path, mask = save(tmp_path / f"a{suffix}"), save(tmp_path / "mask.png", white(CENTER))
    photo = service.read(path)
    result = filled(service.complete(photo, service.hole(photo, mask=mask), settings, folder))
    words = ["--solver", settings.solver, "--candidates", settings.candidates, "--blend", settings.blend]
    words += [] if settings.prior_weight is None else ["--prior-weight", settings.prior_weight]
    output = tmp_path / f"b{suffix}"
    command("--mask", mask, "--seed", settings.seed, *words, "--output", output, path)
    others = [output.with_suffix(f".{number}{suffix}") for number in range(2, settings.candidates + 1)]
    for completion, expected in zip(result.completions, [output, *others], strict=True):
        assert not differences(completion, expected)


@pytest.mark.parametrize("named", [False, True], ids=["mask", "name"])
def test_a_face_in_a_photo_is_completed_as_on_the_command_line(
    service: Service, command: Command, tmp_path: Path, folder: Path, named: bool
) -> None:
    hole = np.zeros((230, 230), dtype=bool)
    hole[120:160, 90:150] = True
    path, mask = save(tmp_path / "a.png", PORTRAIT), save(tmp_path / "mask.png", white(hole))
    photo = service.read(path)
    result = filled(service.complete(photo, "center" if named else hole, Settings(), folder))
    command("--mask", "center" if named else mask, "--output", tmp_path / "b.png", path)
    assert not differences(result.completions[0], tmp_path / "b.png")
    hole = service.hole(photo, named="center") if named else hole
    changed = (pixels(result.completions[0]) != PORTRAIT).any(axis=2)
    assert changed.any() and not changed[~hole].any()


def test_a_photo_is_decoded_once_and_each_result_encoded_once(
    service: Service, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def noted(path: Path) -> Any:
        written.append(path.name)
        return atomic_write(path)

    photo = service.read(save(tmp_path / "a.png"), "anna")
    (tmp_path / "a.png").unlink()
    monkeypatch.setattr("align.photo.atomic_write", noted)
    monkeypatch.setattr("ui.service.read_photo", None)
    filled(service.complete(photo, CENTER, Settings(candidates=2), folder))
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    assert sorted(written) == [
        "anna-completed.2.png",
        "anna-completed.candidates.png",
        "anna-completed.png",
        "anna-hole.png",
    ]


def test_previews_change_inside_the_hole_only(
    service: Service, photo: Upload, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_PREVIEWS_PER_S", math.inf)  # one for each step, however fast the machine
    items = list(service.complete(photo, CENTER, Settings("search"), folder))
    result = filled(iter(items))
    assert len(items) > 1
    outside = np.repeat(np.repeat(~CENTER, 16, axis=0), 16, axis=1)
    inside = (slice(160, 352), slice(160, 352))  # a pixel of the photo from the rim, which is soft when enlarged
    assert np.array_equal(result.before, service_module.shown(photo.pixels))
    shares = []
    for preview in items[:-1]:
        assert isinstance(preview, Preview)
        shares.append(preview.share)
        picture = preview.picture
        assert np.array_equal(picture[outside], result.before[outside])
        assert (picture[inside] != (255, 0, 255)).any(axis=2).all()
    assert 0 <= shares[0] < shares[-1] <= 1 and shares == sorted(shares)


def test_results_are_files_named_after_the_photo_and_the_same_pictures_for_the_page(
    service: Service, tmp_path: Path, folder: Path
) -> None:
    photo = service.read(save(tmp_path / "a.png"), "anna")
    result = filled(service.complete(photo, CENTER, Settings(candidates=2), folder))
    assert [path.name for path in result.completions] == ["anna-completed.png", "anna-completed.2.png"]
    assert [path.name for path in result.files] == ["anna-completed.candidates.png", "anna-hole.png"]
    assert np.array_equal(pixels(folder / "anna-hole.png")[..., 0] > 0, CENTER)
    for after, path in zip(result.afters, result.completions, strict=True):
        assert np.array_equal(after, service_module.shown(pixels(path)))
    assert len(result.crops) == 2 and (result.crops[0] != result.crops[1]).any()


def test_a_jpeg_saved_as_png_keeps_every_pixel_outside_the_hole(service: Service, tmp_path: Path, folder: Path) -> None:
    photo = service.read(save(tmp_path / "a.jpg"))
    [path] = filled(service.complete(photo, CENTER, Settings(as_png=True), folder)).completions
    assert path.suffix == ".png" and np.array_equal(pixels(path)[~CENTER], photo.pixels[~CENTER])


def test_a_photo_without_a_face_is_refused(service: Service, tmp_path: Path, folder: Path) -> None:
    photo = service.read(save(tmp_path / "a.png", NO_FACE))
    with pytest.raises(NoFaceError):
        list(service.complete(photo, np.eye(100) > 0, Settings(), folder))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the steps that searches take."""
    taken = []
    solve = solve_module.solve

    def counted(*arguments: Any) -> Iterator[State]:
        for step in solve(*arguments):
            taken.append(step.number)
            yield step

    monkeypatch.setattr(solve_module, "solve", counted)
    return taken


def test_a_search_at_its_time_limit_ends_with_the_best_result_and_a_note(
    encoder_weights: Weights, photo: Upload, tmp_path: Path, folder: Path, steps: list[int]
) -> None:
    service = Service(encoder_weights, Limits(seconds=1e-9))
    result = filled(service.complete(photo, CENTER, Settings("paper"), folder))
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png", 255 - FACE)]
    lines, _, _ = finished(service.batch(photos, "center", [], Settings("paper"), folder))
    assert steps == [0, 0, 0] and SOLVERS["paper"].steps > 1000
    for notes in ("".join(result.notes), *lines):
        assert "the search was stopped after" in notes
    assert np.array_equal(pixels(result.completions[0])[~CENTER], FACE[~CENTER])


def test_at_the_time_limit_no_further_candidate_is_blended(
    encoder_weights: Weights, photo: Upload, folder: Path, command: Command, tmp_path: Path
) -> None:
    service = Service(encoder_weights, Limits(seconds=1e-9))
    result = filled(service.complete(photo, CENTER, Settings(candidates=8), folder))
    assert len(result.completions) == 1 and "the search was stopped after" in "".join(result.notes)
    assert np.array_equal(pixels(result.completions[0])[~CENTER], FACE[~CENTER])


def test_a_large_photo_gets_fewer_candidates_and_a_note(encoder_weights: Weights, photo: Upload, folder: Path) -> None:
    service = Service(encoder_weights, Limits(max_pixels=32 * 32))
    result = filled(service.complete(photo, CENTER, Settings(candidates=8), folder))
    assert len(result.completions) == 2
    assert result.notes == ("a photo of this size gets 2 candidates at most",)


def test_slow_solvers_and_many_pixels_make_a_request_large(service: Service, photo: Upload) -> None:
    big = replace(photo, pixels=np.broadcast_to(photo.pixels[:1, :1], (2000, 2001, 3)))
    assert not service.is_large(photo, Settings(candidates=8))
    assert service.is_large(photo, Settings("paper"))
    assert service.is_large(big, Settings(candidates=2)) and not service.is_large(big, Settings(candidates=1))


# Batches


def test_a_batch_by_name_holds_a_completion_of_each_photo(
    service: Service, command: Command, tmp_path: Path, folder: Path
) -> None:
    photos = [save(tmp_path / "in" / "a.png"), save(tmp_path / "in" / "b.png", 255 - FACE)]
    lines, files, report = finished(service.batch(photos, "center", [], Settings(seed=2), folder))
    assert lines == ["a.png: completed", "b.png: completed"]
    assert [record["photo"] for record in report["photos"]] == ["a.png", "b.png"]
    command("--mask", "center", "--seed", 2, "--output", tmp_path / "out", tmp_path / "in")
    for photo, (name, data) in zip(photos, files.items(), strict=True):
        assert same_outside(photo, data, CENTER) and data == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("each", [False, True], ids=["one for all", "one each"])
def test_a_batch_by_masks(service: Service, tmp_path: Path, folder: Path, each: bool) -> None:
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png", 255 - FACE)]
    holes = [CENTER, np.roll(CENTER, 8, axis=0)] if each else [CENTER]
    masks = [save(tmp_path / "m" / f"{name}.png", white(hole)) for name, hole in zip("ab", holes, strict=False)]
    _, files, _ = finished(service.batch(photos, "", masks, Settings(), folder))
    for photo, data, hole in zip(photos, files.values(), holes if each else holes * 2, strict=True):
        assert same_outside(photo, data, hole)


def test_a_batch_reports_photos_that_failed_without_the_servers_paths(
    service: Service, tmp_path: Path, folder: Path
) -> None:
    photos = [save(tmp_path / "a.png"), broken(tmp_path / "b.png"), save(tmp_path / "c.png", NO_FACE)]
    lines, files, report = finished(service.batch(photos, "center", [], Settings(), folder))
    assert list(files) == ["a.png"] and same_outside(photos[0], files["a.png"], CENTER)
    assert [(record["photo"], record["status"]) for record in report["photos"]] == [
        ("a.png", "completed"),
        ("b.png", "failed"),
        ("c.png", "failed"),
    ]
    reasons = [record["reason"] for record in report["photos"]]
    assert "JPEG" in reasons[1] and "No face" in reasons[2]
    assert len(lines) == 3 and str(tmp_path) not in json.dumps([lines, report])
    assert set(report["photos"][0]["figures"]) >= {"hole_share", "seconds"}


def test_a_photo_without_its_mask_is_reported(service: Service, tmp_path: Path, folder: Path) -> None:
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png")]
    masks = [save(tmp_path / "m" / f"{name}.png", white(CENTER)) for name in "ac"]
    lines, files, report = finished(service.batch(photos, "", masks, Settings(), folder))
    assert list(files) == ["a.png"] and "no masks are named b" in lines[1].lower()
    assert str(tmp_path) not in json.dumps([lines, report])


@pytest.mark.parametrize("names", [["a.png"] * 3, ["a-3.png", "a.png", "a.png"]], ids=" ".join)
@pytest.mark.parametrize("masks", [0, 3], ids=["by name", "by masks"])
def test_photos_with_the_same_name_are_all_completed(
    service: Service, tmp_path: Path, folder: Path, names: list[str], masks: int
) -> None:
    photos = [save(tmp_path / str(number) / name, FACE + number) for number, name in enumerate(names)]
    holes = [np.roll(CENTER, 4 * number, axis=0) if masks else CENTER for number in range(3)]
    files = [save(tmp_path / f"m{n}" / names[n], white(holes[n])) for n in range(masks)]
    _, found, _ = finished(service.batch(photos, "center", files, Settings(), folder))
    assert len(found) == 3
    for photo, hole in zip(photos, holes, strict=True):
        assert any(same_outside(photo, data, hole) for data in found.values())


def test_broken_photos_with_the_same_name_are_both_reported(service: Service, tmp_path: Path, folder: Path) -> None:
    photos = [save(tmp_path / "a.png"), broken(tmp_path / "1" / "b.png"), broken(tmp_path / "2" / "b.png")]
    lines, _, report = finished(service.batch(photos, "center", [], Settings(), folder))
    assert sum("b.png" in line for line in lines) == 2
    assert [record["status"] for record in report["photos"]].count("failed") == 2


def test_too_many_photos_or_masks_are_refused_before_any_work(service: Service, tmp_path: Path, folder: Path) -> None:
    photo = save(tmp_path / "a.png")
    for photos, masks in (([photo] * 4, []), ([], []), ([photo], [photo] * 4)):
        with pytest.raises(ServiceError, match="give from 1 to 3|at most 3"):
            list(service.batch(photos, "center", masks, Settings(), folder))
    assert not list(folder.iterdir())


def test_a_batch_without_any_completion_is_an_error(service: Service, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ServiceError, match="none of the photos"):
        list(service.batch([broken(tmp_path / "b.png")], "center", [], Settings(), folder))


def same_outside(photo: Path, data: bytes, hole: NDArray[np.bool_]) -> bool:
    """Whether a completion equals its photo outside the hole and differs in it."""
    completed, before = np.asarray(Image.open(io.BytesIO(data))), pixels(photo)
    return np.array_equal(completed[~hole], before[~hole]) and bool((completed[hole] != before[hole]).any())


# Exploring


def test_a_seed_determines_its_faces(service: Service) -> None:
    first, again, other = service.sample(1, 2), service.sample(1, 2), service.sample(2, 2)
    assert [face.shape for face in first] == [(96, 96, 3)] * 2
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_a_face_does_not_depend_on_the_number_of_faces(service: Service) -> None:
    sixteen = service.sample(1, 16)
    for count in (1, 3, 15):
        assert np.array_equal(service.sample(1, count), sixteen[:count])


def test_a_walk_leads_from_one_face_of_the_sheet_to_another(service: Service, folder: Path) -> None:
    faces = service.sample(1, 16)
    steps, film = service.walk(1, 4, 2, folder)
    first, *between, last = np.split(steps, steps.shape[1] // 96, axis=1)
    for end, number in ((first, 4), (last, 2)):
        assert np.abs(end.astype(int) - faces[number]).max() <= 1  # the arc ends within rounding
    assert all((face != first).any() and (face != last).any() for face in between)
    with Image.open(film) as animation:
        assert animation.format == "GIF" and animation.size[0] == animation.size[1]
        assert getattr(animation, "n_frames", 1) > 2 * len(between)  # there and back


def test_a_walk_to_the_same_face_stands_still(service: Service, folder: Path) -> None:
    steps, _ = service.walk(1, 2, 2, folder)
    face = service.sample(1, 3)[2]
    for step in np.split(steps, steps.shape[1] // 96, axis=1):
        assert np.abs(step.astype(int) - face).max() <= 1


def test_a_move_has_the_face_of_the_sheet_in_the_middle(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def estimate(weights: Weights) -> dict[str, torch.Tensor]:
        calls.append(weights)
        return {label: torch.eye(8)[number] for number, label in enumerate(LABELS)}

    monkeypatch.setattr(service_module, "directions", estimate)
    rows = [np.split(service.move(1, 4, label), 7, axis=1) for label in LABELS]
    assert len(calls) == 1  # then cached
    face = service.sample(1, 5)[4]
    for row in rows:
        assert np.abs(row[3].astype(int) - face).max() <= 1
        assert (row[0] != row[6]).any()
    assert any((rows[0][0] != row[0]).any() for row in rows[1:])


def test_an_unknown_direction_is_refused(service: Service) -> None:
    with pytest.raises(ServiceError, match="choose one of"):
        service.move(0, 0, "up")


def test_weights_that_generate_no_faces_have_no_directions(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "directions", partial(directions, count=20))
    with pytest.raises(DatasetError):
        service.move(0, 0, next(iter(LABELS)))


def test_an_example_is_an_enlarged_face_of_its_seed(service: Service) -> None:
    example = service.example(0)
    assert example.shape == (192, 192, 3) and np.array_equal(example, service.example(0))
    assert not np.array_equal(example, service.example(1))
