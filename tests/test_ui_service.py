"""What the page can do, without the page."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import CENTER, FACE, pixels, save
from PIL import Image

from align.errors import PhotoError
from completion import complete as complete_module
from completion.__main__ import main
from completion.complete import FaceCompleter
from completion.config import SOLVERS
from completion.holes import MaskError
from completion.solve import Step
from dcgan.checkpoint import Weights
from dcgan.dataset import DatasetError
from dcgan.explore.arithmetic import LABELS, directions
from ui import service as service_module
from ui.service import Filled, Limits, Service, ServiceError, Settings

Command = Callable[..., None]


@pytest.fixture
def service(encoder_weights: Weights) -> Service:
    return Service(encoder_weights, Limits(max_pixels=3_000_000, photos=3))


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
    """What a brush leaves: a square on a transparent ground, whose colours mean nothing."""
    drawn = np.full((*shape[:2], 4), 255, dtype=np.uint8)
    drawn[..., 3] = 0
    drawn[rows, columns, 3] = 128
    return drawn


def filled(items: Iterator[NDArray[np.uint8] | Filled]) -> Filled:
    *_, last = items
    assert isinstance(last, Filled)
    return last


def finished(items: Iterator[str | Path]) -> tuple[list[str], dict[str, bytes], dict[str, Any]]:
    """What a batch told, the files of its ZIP, and the report among them."""
    *told, archive = items
    assert isinstance(archive, Path)
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    return [str(line) for line in told], files, json.loads(files.pop("report.json"))


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"solver": "magic"},
        {"solver": None},
        {"solver": ["fast"]},
        {"blend": ""},
        {"blend": {}},
        {"candidates": 0},
        {"candidates": 9},
        {"candidates": 2.0},
        {"candidates": True},
        {"seed": -1},
        {"seed": 2**53 + 1},
        {"seed": "1"},
        {"seed": None},
        {"prior_weight": -0.1},
        {"prior_weight": float("nan")},
        {"prior_weight": float("inf")},
        {"prior_weight": "1"},
    ],
    ids=str,
)
def test_a_setting_of_a_wrong_value_or_type_is_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="choose one of|give a"):
        Settings(**wrong)


def test_every_setting_that_the_page_offers_is_taken() -> None:
    for solver in ("fast", *SOLVERS):
        assert Settings(solver, 8, "none", 2**53, 0.5).solver == solver


# Loading


def test_faces_are_outlined_and_the_rest_is_left(
    service: Service, astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    shown, faces = service.load(save(tmp_path / "a.png", astronaut))
    changed = (shown != astronaut).any(axis=2)
    assert faces == 1 and 0 < changed.mean() < 0.03
    y, x = np.nonzero(changed)
    assert x.min() < 224 < x.max() and y.min() < 110 < y.max()  # around the nose


def test_a_photo_without_a_face_is_shown_as_it_is(service: Service, tmp_path: Path) -> None:
    grey = np.full((512, 520, 3), 128, dtype=np.uint8)
    shown, faces = service.load(save(tmp_path / "a.png", grey))
    assert faces == 0 and np.array_equal(shown, grey)


def test_a_photo_over_the_cap_is_refused(encoder_weights: Weights, tmp_path: Path) -> None:
    service = Service(encoder_weights, Limits(max_pixels=100 * 100))
    service.load(save(tmp_path / "a.png", np.zeros((100, 100, 3), dtype=np.uint8)))
    larger = save(tmp_path / "b.png", np.zeros((100, 101, 3), dtype=np.uint8))
    for use in (service.load, service.hole):
        with pytest.raises(PhotoError, match="pixels"):
            use(larger)
    with pytest.raises(PhotoError, match="pixels"):
        service.hole(save(tmp_path / "c.png"), mask=larger)
    with pytest.raises(PhotoError, match="pixels"):
        service.hole(save(tmp_path / "c.png"), drawn=[larger])


# Holes


@pytest.mark.parametrize("shape", [(64, 64), (1600, 3200), (600, 800)], ids=["enlarged", "reduced", "as it is"])
def test_what_is_drawn_in_the_size_of_the_page_is_the_hole_in_that_of_the_photo(
    encoder_weights: Weights, tmp_path: Path, shape: tuple[int, int]
) -> None:
    service = Service(encoder_weights, Limits())
    photo = save(tmp_path / "a.png", np.full((*shape, 3), 128, dtype=np.uint8))
    height, width = service.drawing(np.zeros(shape, dtype=bool)).shape[:2]
    layers = [
        save(tmp_path / "1.png", layer((height, width), slice(0, height // 4), slice(0, width // 2))),
        save(tmp_path / "2.png", layer((height, width), slice(height // 2, height), slice(width // 2, width))),
    ]
    expected = np.zeros(shape, dtype=bool)
    expected[: shape[0] // 4, : shape[1] // 2] = expected[shape[0] // 2 :, shape[1] // 2 :] = True
    hole = service.hole(photo, layers)
    assert np.array_equal(hole, expected)
    again = service.hole(photo, [save(tmp_path / "3.png", service.drawing(hole))])
    assert np.array_equal(again, expected)  # what is shown of a hole means the same hole


def test_nothing_drawn_is_no_hole_and_a_picture_without_transparency_draws_nothing(
    service: Service, tmp_path: Path
) -> None:
    photo = save(tmp_path / "a.png")
    assert not service.hole(photo).any()
    assert not service.hole(photo, [save(tmp_path / "b.png", white(CENTER))]).any()


def test_so_many_layers_that_they_would_keep_the_page_busy_are_refused(service: Service, tmp_path: Path) -> None:
    drawn = save(tmp_path / "b.png", layer(FACE.shape, slice(4), slice(4)))
    with pytest.raises(ServiceError, match="layers"):
        service.hole(save(tmp_path / "a.png"), [drawn] * 1000)


@pytest.mark.parametrize("faces", ["largest", "all"])
@pytest.mark.parametrize("name", ["center", "random", "mouth"])
def test_a_hole_by_name_is_that_of_the_command_line(
    service: Service,
    command: Command,
    astronaut: NDArray[np.uint8],
    tmp_path: Path,
    name: str,
    faces: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holes = []
    complete = FaceCompleter.complete

    def noted(self: FaceCompleter, pixels: Any, hole: NDArray[np.bool_], *rest: Any) -> Iterator[Any]:
        holes.append(hole)
        return complete(self, pixels, hole, *rest)

    monkeypatch.setattr(FaceCompleter, "complete", noted)
    face = astronaut[0:230, 110:340]
    photo = save(tmp_path / "a.png", np.hstack([face, face]))
    command("--mask", name, "--faces", faces, "--output", tmp_path / "b.png", photo)
    hole = service.hole(photo, named=name, every=faces == "all")
    assert np.array_equal(hole, holes[0])
    assert sorted([hole[:, :230].any(), hole[:, 230:].any()]) == [faces == "all", True]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "alpha", "lower", "."])
def test_a_name_that_is_none_is_never_taken_for_a_file_of_the_server(
    service: Service, tmp_path: Path, folder: Path, name: str
) -> None:
    photo = save(tmp_path / "a.png")
    for use in (
        lambda: service.hole(photo, named=name),
        lambda: list(service.complete(photo, name, Settings(), folder)),
        lambda: list(service.batch([photo], name, [], Settings(), folder)),
    ):
        with pytest.raises(ServiceError, match="no hole named"):
            use()
    assert not list(folder.iterdir())


def test_a_file_beside_the_photo_is_no_name_either(service: Service, tmp_path: Path, folder: Path) -> None:
    mask = save(tmp_path / "mask.png", white(CENTER))
    with pytest.raises(ServiceError, match="no hole named"):
        list(service.complete(save(tmp_path / "a.png"), str(mask), Settings(), folder))


def test_a_number_that_a_name_does_not_take_is_told(service: Service, tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="center takes"):
        service.hole(save(tmp_path / "a.png"), named="center:2")


@pytest.mark.parametrize("size", [(32, 32), (64, 96)], ids=["its size", "another"])
def test_a_mask_is_white_where_the_hole_is(service: Service, tmp_path: Path, size: tuple[int, int]) -> None:
    mask = np.asarray(Image.fromarray(CENTER).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(service.hole(save(tmp_path / "a.png"), mask=save(tmp_path / "b.png", white(mask))), CENTER)


# Completing


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings("search", 3, "alpha", 5), Settings("paper", 2, "none", 1, 0.1)],
    ids=lambda settings: settings.solver,
)
def test_the_files_are_those_of_the_command_line_byte_for_byte(
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
    photo, mask = save(tmp_path / f"a{suffix}"), save(tmp_path / "mask.png", white(CENTER))
    result = filled(service.complete(photo, service.hole(photo, mask=mask), settings, folder))
    words = ["--solver", settings.solver, "--candidates", settings.candidates, "--blend", settings.blend]
    words += [] if settings.prior_weight is None else ["--prior-weight", settings.prior_weight]
    output = tmp_path / f"b{suffix}"
    command("--mask", mask, "--seed", settings.seed, *words, "--output", output, photo)
    others = [output.with_suffix(f".{number}{suffix}") for number in range(2, settings.candidates + 1)]
    assert [path.read_bytes() for path in result.completions] == [path.read_bytes() for path in [output, *others]]


def test_the_same_on_a_face_in_a_photo(
    service: Service, command: Command, astronaut: NDArray[np.uint8], tmp_path: Path, folder: Path
) -> None:
    hole = np.zeros((230, 230), dtype=bool)
    hole[120:160, 90:150] = True
    photo, mask = save(tmp_path / "a.png", astronaut[0:230, 110:340]), save(tmp_path / "mask.png", white(hole))
    result = filled(service.complete(photo, hole, Settings(), folder))
    command("--mask", mask, "--output", tmp_path / "b.png", photo)
    assert result.completions[0].read_bytes() == (tmp_path / "b.png").read_bytes()
    changed = (pixels(result.completions[0]) != pixels(photo)).any(axis=2)
    assert changed.any() and not changed[~hole].any()


def test_what_is_shown_grows_inside_the_hole_and_nowhere_else(service: Service, tmp_path: Path, folder: Path) -> None:
    items = list(service.complete(save(tmp_path / "a.png"), CENTER, Settings("search"), folder))
    result = filled(iter(items))
    assert len(items) > 1
    outside = np.repeat(np.repeat(~CENTER, 16, axis=0), 16, axis=1)
    inside = (slice(160, 352), slice(160, 352))  # a pixel of the photo from the rim, which is soft when enlarged
    assert (result.before[inside] == (255, 0, 255)).all()
    for picture in items[:-1]:
        assert isinstance(picture, np.ndarray) and np.array_equal(picture[outside], result.before[outside])
        assert (picture[inside] != (255, 0, 255)).any(axis=2).all()


def test_every_file_has_the_name_of_its_photo(service: Service, tmp_path: Path, folder: Path) -> None:
    result = filled(service.complete(save(tmp_path / "a.png"), CENTER, Settings(candidates=2), folder, "anna"))
    assert [path.name for path in result.completions] == ["anna-completed.png", "anna-completed.2.png"]
    assert [path.name for path in result.files] == ["anna-completed.candidates.png", "anna-hole.png"]
    assert np.array_equal(pixels(folder / "anna-hole.png")[..., 0] > 0, CENTER)
    assert len(result.cuts) == 2 and (result.cuts[0] != result.cuts[1]).any()


def test_as_png_a_jpeg_keeps_every_known_pixel(service: Service, tmp_path: Path, folder: Path) -> None:
    photo = save(tmp_path / "a.jpg")
    [path] = filled(service.complete(photo, CENTER, Settings(as_png=True), folder)).completions
    assert path.suffix == ".png" and np.array_equal(pixels(path)[~CENTER], pixels(photo)[~CENTER])


def test_a_photo_without_a_face_is_told(service: Service, tmp_path: Path, folder: Path) -> None:
    photo = save(tmp_path / "a.png", np.full((100, 100, 3), 128, dtype=np.uint8))
    with pytest.raises(ServiceError, match="no face"):
        list(service.complete(photo, np.eye(100) > 0, Settings(), folder))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the steps that searches take."""
    taken = []
    solve = complete_module.solve

    def counted(*arguments: Any) -> Iterator[Step]:
        for step in solve(*arguments):
            taken.append(step.number)
            yield step

    monkeypatch.setattr(complete_module, "solve", counted)
    return taken


def test_fault_59_a_search_past_its_deadline_ends_with_the_best_so_far_and_says_so(
    encoder_weights: Weights, tmp_path: Path, folder: Path, steps: list[int]
) -> None:
    service, photo = Service(encoder_weights, Limits(seconds=1e-9)), save(tmp_path / "a.png")
    result = filled(service.complete(photo, CENTER, Settings("paper"), folder))
    assert steps == [0] and SOLVERS["paper"].steps > 1000
    assert any("the search was stopped after" in note for note in result.notes)
    assert np.array_equal(pixels(result.completions[0])[~CENTER], FACE[~CENTER])


def test_fault_59_holds_for_each_photo_of_a_batch(
    encoder_weights: Weights, tmp_path: Path, folder: Path, steps: list[int]
) -> None:
    service = Service(encoder_weights, Limits(seconds=1e-9))
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png", 255 - FACE)]
    told, _, _ = finished(service.batch(photos, "center", [], Settings("paper"), folder))
    assert steps == [0, 0] and all("the search was stopped after" in line for line in told)


# Batches


def test_a_batch_by_name_holds_a_completion_of_each_photo(service: Service, tmp_path: Path, folder: Path) -> None:
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png", 255 - FACE)]
    told, files, report = finished(service.batch(photos, "center", [], Settings(), folder))
    assert told == ["a.png: completed", "b.png: completed"]
    assert [record["photo"] for record in report["photos"]] == ["a.png", "b.png"]
    for photo, data in zip(photos, files.values(), strict=True):
        assert same_outside(photo, data, CENTER)


@pytest.mark.parametrize("each", [False, True], ids=["one for all", "one each"])
def test_a_batch_by_masks(service: Service, tmp_path: Path, folder: Path, each: bool) -> None:
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png", 255 - FACE)]
    holes = [CENTER, np.roll(CENTER, 8, axis=0)] if each else [CENTER]
    masks = [save(tmp_path / "m" / f"{name}.png", white(hole)) for name, hole in zip("ab", holes, strict=False)]
    _, files, _ = finished(service.batch(photos, "", masks, Settings(), folder))
    for photo, data, hole in zip(photos, files.values(), holes if each else holes * 2, strict=True):
        assert same_outside(photo, data, hole)


def test_a_broken_photo_among_others_is_told_and_nothing_says_where_files_lie(
    service: Service, tmp_path: Path, folder: Path
) -> None:
    text = tmp_path / "b.png"
    text.write_text("text")
    photos = [save(tmp_path / "a.png"), text, save(tmp_path / "c.png", np.full((100, 100, 3), 9, dtype=np.uint8))]
    told, files, report = finished(service.batch(photos, "center", [], Settings(), folder))
    assert list(files) == ["a.png"] and same_outside(photos[0], files["a.png"], CENTER)
    statuses = {record["photo"]: (record["status"], record["reason"]) for record in report["photos"]}
    assert {name: status for name, (status, _) in statuses.items()} == {
        "a.png": "completed",
        "b.png": "failed",
        "c.png": "failed",
    }
    assert "not an image" in statuses["b.png"][1] and "no face" in statuses["c.png"][1]
    assert len(told) == 3 and str(tmp_path) not in json.dumps([told, report])


def test_a_photo_without_its_mask_is_told_without_where_masks_lie(
    service: Service, tmp_path: Path, folder: Path
) -> None:
    photos = [save(tmp_path / "a.png"), save(tmp_path / "b.png")]
    masks = [save(tmp_path / "m" / f"{name}.png", white(CENTER)) for name in "ac"]
    told, files, report = finished(service.batch(photos, "", masks, Settings(), folder))
    assert list(files) == ["a.png"] and "no mask" in told[1]
    assert str(tmp_path) not in json.dumps([told, report])


@pytest.mark.parametrize("names", [["a.png"] * 3, ["a-3.png", "a.png", "a.png"]], ids=" ".join)
def test_photos_of_one_name_all_come_out(service: Service, tmp_path: Path, folder: Path, names: list[str]) -> None:
    photos = [save(tmp_path / str(number) / name, FACE + number) for number, name in enumerate(names)]
    _, files, _ = finished(service.batch(photos, "center", [], Settings(), folder))
    assert len(files) == 3 and all(
        any(same_outside(photo, data, CENTER) for data in files.values()) for photo in photos
    )


def test_broken_photos_of_one_name_are_both_told(service: Service, tmp_path: Path, folder: Path) -> None:
    broken = [tmp_path / name / "b.png" for name in ("1", "2")]
    for path in broken:
        path.parent.mkdir()
        path.write_text("text")
    told, _, report = finished(service.batch([save(tmp_path / "a.png"), *broken], "center", [], Settings(), folder))
    assert sum("b.png" in line for line in told) == 2
    assert [record["status"] for record in report["photos"]].count("failed") == 2


def test_more_photos_or_masks_than_allowed_are_refused_before_any_is_copied(
    service: Service, tmp_path: Path, folder: Path
) -> None:
    photo = save(tmp_path / "a.png")
    for photos, masks in (([photo] * 4, []), ([], []), ([photo], [photo] * 4)):
        with pytest.raises(ServiceError, match="give from 1 to 3|at most 3"):
            list(service.batch(photos, "center", masks, Settings(), folder))
    assert not list(folder.iterdir())


def test_a_batch_of_which_nothing_comes_out_is_told(service: Service, tmp_path: Path, folder: Path) -> None:
    text = tmp_path / "b.png"
    text.write_text("text")
    with pytest.raises(ServiceError, match="none of the photos"):
        list(service.batch([text], "center", [], Settings(), folder))


def same_outside(photo: Path, data: bytes, hole: NDArray[np.bool_]) -> bool:
    """Whether a completion is that of a photo: known pixels are its own, and something in the hole is not."""
    completed, before = np.asarray(Image.open(io.BytesIO(data))), pixels(photo)
    return np.array_equal(completed[~hole], before[~hole]) and bool((completed[hole] != before[hole]).any())


# Exploring


def test_a_seed_repeats_its_faces_and_another_has_others(service: Service) -> None:
    first, again, other = service.sample(1, 2), service.sample(1, 2), service.sample(2, 2)
    assert [face.shape for face in first] == [(96, 96, 3)] * 2
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_a_face_has_its_number_however_many_are_drawn(service: Service) -> None:
    sixteen = service.sample(1, 16)
    for count in (1, 3, 15):
        assert np.array_equal(service.sample(1, count), sixteen[:count])


def test_a_walk_goes_from_the_one_face_of_the_sheet_to_the_other(service: Service, folder: Path) -> None:
    faces = service.sample(1, 16)
    steps, film = service.walk(1, 4, 2, folder)
    first, *between, last = np.split(steps, steps.shape[1] // 96, axis=1)
    for end, number in ((first, 4), (last, 2)):
        assert np.abs(end.astype(int) - faces[number]).max() <= 1  # the arc ends within rounding
    assert all((face != first).any() and (face != last).any() for face in between)
    with Image.open(film) as animation:
        assert animation.format == "GIF" and animation.size[0] == animation.size[1]
        assert getattr(animation, "n_frames", 1) > 2 * len(between)  # there and back


def test_a_walk_to_the_face_itself_stands_still(service: Service, folder: Path) -> None:
    steps, _ = service.walk(1, 2, 2, folder)
    face = service.sample(1, 3)[2]
    for step in np.split(steps, steps.shape[1] // 96, axis=1):
        assert np.abs(step.astype(int) - face).max() <= 1


def test_a_move_has_the_face_of_the_sheet_in_its_middle(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def learnt(weights: Weights) -> dict[str, torch.Tensor]:
        asked.append(weights)
        return {label: torch.eye(8)[number] for number, label in enumerate(LABELS)}

    monkeypatch.setattr(service_module, "directions", learnt)
    rows = [np.split(service.move(1, 4, label), 7, axis=1) for label in LABELS]
    assert len(asked) == 1  # learnt once
    face = service.sample(1, 5)[4]
    for row in rows:
        assert np.abs(row[3].astype(int) - face).max() <= 1
        assert (row[0] != row[6]).any()
    assert any((rows[0][0] != row[0]).any() for row in rows[1:])


def test_a_direction_that_is_none_is_told(service: Service) -> None:
    with pytest.raises(ServiceError, match="choose one of"):
        service.move(0, 0, "up")


def test_networks_that_make_no_faces_have_no_directions(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "directions", partial(directions, count=20))
    with pytest.raises(DatasetError):
        service.move(0, 0, next(iter(LABELS)))


def test_an_example_is_a_photo_to_complete(service: Service, tmp_path: Path) -> None:
    example = service.example(0)
    assert example.shape == (192, 192, 3) and np.array_equal(example, service.example(0))
    assert not np.array_equal(example, service.example(1))
