"""Tests of `python -m completion.benchmark`: holes, methods, figures against known values, and reports."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import NO_FACE, PORTRAIT, save, save_all

from align.cli import Progress
from align.errors import NoFaceError
from align.photo import digest, read_photo
from align.warp import Alignment
from completion.benchmark import measure
from completion.benchmark.__main__ import main
from completion.benchmark.config import HOLES, LEARNING, METHODS, SLOW, TONES, WHOLE_HOLES, BenchmarkOptions
from completion.benchmark.damage import CLEAN, FINDERS, KINDS, MIXED
from completion.benchmark.measure import Row, compare
from completion.benchmark.methods import BenchmarkError, InPhoto, Method, create_methods
from completion.benchmark.samples import Sample, draw_hole, draw_whole_hole, find_sample, subsample
from completion.benchmark.tones import COLOUR, ONE_TONE, stray, toned
from completion.completer import FaceCompleter
from completion.config import SOLVERS
from completion.networks import open_weights
from dcgan.holes import needs_landmarks
from dcgan.weights import Weights

FACES = np.random.default_rng(0).integers(60, 190, (20, 32, 32, 3), dtype=np.uint8)
TRAINING = np.random.default_rng(1).integers(60, 190, (24, 32, 32, 3), dtype=np.uint8)
EYES, MOUTH, NOSE, BRIDGE, JAW = (slice(36, 42), slice(42, 48)), slice(48, 68), slice(27, 36), slice(27, 31), slice(17)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short searches, no dlib detector, and mean block colours (3 x 4 x 4) as face embeddings."""
    for name in ("search", *SLOW):
        monkeypatch.setitem(SOLVERS, name, replace(SOLVERS[name], steps=2, samples=2, candidates=1))

    def embed(crops: NDArray[np.uint8], template: str, device: torch.device | str) -> NDArray[np.float64]:
        return crops.reshape(len(crops), 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(len(crops), -1) / 255

    monkeypatch.setattr(measure, "embed", embed)
    monkeypatch.setattr(measure, "find_landmarks", lambda photo, *_, **__: photo if photo[16, 16, 0] > 100 else None)


def samples_of(faces: NDArray[np.uint8]) -> list[Sample]:
    whole = Alignment.identity(faces.shape[1])
    return [Sample(index, str(index), face, whole) for index, face in enumerate(faces)]


def rows_of(faces: NDArray[np.uint8], methods: dict[str, Method], **options: Any) -> dict[tuple[str, str], Row]:
    items = list(compare(samples_of(faces), methods, BenchmarkOptions(methods=tuple(methods), **options)))
    assert all(0 <= item.done <= item.total for item in items if isinstance(item, Progress))
    return {(item.hole, item.method): item for item in items if isinstance(item, Row)}


def completed_by(
    weights: Weights, faces: NDArray[np.uint8], training: NDArray[np.uint8] | None = TRAINING, **options: Any
) -> dict[str, NDArray[np.uint8]]:
    """What each method makes of faces with one kind of hole."""
    made: dict[str, NDArray[np.uint8]] = {}
    chosen = BenchmarkOptions(slow_limit=2, **options)
    methods, _ = create_methods([weights], training, chosen)

    def kept(name: str, method: Method, crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        made[name] = method(crops, holes)
        return made[name]

    watched = {name: lambda crops, holes, name=name: kept(name, methods[name], crops, holes) for name in methods}
    list(compare(samples_of(faces), watched, chosen))
    return made


# Figures of aligned faces


@pytest.mark.usefixtures("quick")
def test_a_perfect_method_has_perfect_figures() -> None:
    faces = np.random.default_rng(2).integers(60, 190, (60, 32, 32, 3), dtype=np.uint8)
    batches = iter(np.split(faces, [50]))
    [row] = rows_of(faces, {"telea": lambda crops, holes: next(batches)}, holes=("center",)).values()
    figures = row.figures
    assert (figures["hole_psnr"] == math.inf).all() and (figures["psnr"] == math.inf).all()
    assert figures["ssim"] == pytest.approx(np.ones(60)) and (figures["identity"] == 0).all()
    assert row.frechet == pytest.approx(0, abs=1e-9)
    assert np.array_equal(figures["found"], faces[:, 16, 16, 0] > 100)
    assert np.array_equal(row.pictures[0], samples_of(faces)[0].view(faces[0]))


@pytest.mark.usefixtures("quick")
def test_a_constant_error_gives_the_expected_psnr() -> None:
    truth = FACES[:6]
    off = np.array([4, 8, 16, 4, 8, 16], dtype=np.uint8)[:, None, None, None]

    def wrong(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return np.where(holes[..., None], truth + off, crops)

    [row] = rows_of(truth, {"telea": wrong}, holes=("center",)).values()
    in_hole = 20 * np.log10(255 / off[:, 0, 0, 0])
    assert row.figures["hole_psnr"] == pytest.approx(in_hole)
    assert row.figures["psnr"] == pytest.approx(in_hole + 10 * math.log10(4))  # a quarter of the pixels
    assert ((row.figures["ssim"] > 0) & (row.figures["ssim"] < 1)).all()
    inner = 4 * 3  # 4 of the 16 blocks lie in the hole
    assert row.figures["identity"] == pytest.approx(off[:, 0, 0, 0] / 255 * math.sqrt(inner))
    assert row.frechet is None  # too few faces for a covariance


@pytest.mark.usefixtures("quick")
def test_time_of_the_method_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"process_time": 100.0, "perf_counter": 900.0}
    for name in clock:
        monkeypatch.setattr(measure.time, name, lambda name=name: clock[name])

    def burn(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        clock["process_time"] += 2
        clock["perf_counter"] += 6
        return crops

    [row] = rows_of(FACES[:4], {"telea": burn}, holes=("center",)).values()
    assert row.figures["cpu_s"].tolist() == [0.5] * 4 and row.figures["wall_s"].tolist() == [1.5] * 4


# Aligned faces and their holes


def test_faces_are_evenly_spaced_and_shuffled() -> None:
    def chosen(count: int, seed: int = 0) -> list[int]:
        return subsample(count, BenchmarkOptions(limit=100, seed=seed))

    positions = chosen(1000)
    assert len({*positions}) == 100
    assert np.diff(sorted(positions)).max() <= 11 and min(positions) == 0 and max(positions) == 999
    assert 300 < np.mean(positions[:20]) < 700
    assert positions == chosen(1000) and positions != chosen(1000, 1)
    assert sorted(chosen(7)) == list(range(7))


@pytest.mark.parametrize("name", [name for name in HOLES if not needs_landmarks(HOLES[name])])
def test_a_hole_depends_only_on_seed_and_face(name: str) -> None:
    samples = samples_of(FACES)
    holes = np.stack([draw_hole(name, sample, 3) for sample in samples])
    assert np.array_equal(holes, [draw_hole(name, sample, 3) for sample in samples_of(255 - FACES)])
    if name in ("pattern", "random80"):
        assert len({hole.tobytes() for hole in holes}) == len(FACES)
        assert not np.array_equal(holes, [draw_hole(name, sample, 4) for sample in samples])
    if name == "half":
        left, right, top, bottom, again = holes[:5]
        assert left[:, :16].all() and right[:, 16:].all() and top[:16].all() and bottom[16:].all()
        assert np.array_equal(left, again)
    share = {"center": 0.25, "pattern": 0.25, "random80": 0.8, "half": 0.5}[name]
    assert holes.mean(axis=(1, 2)) == pytest.approx(share, abs=1e-3)


def test_eyes_and_mouth_follow_landmarks_and_faces_without_any_are_left_out(
    small_weights: Weights, astronaut: NDArray[np.uint8]
) -> None:
    photo = astronaut[0:230, 110:340]
    [found] = FaceCompleter(small_weights, solver="search").locate(photo)
    face = Alignment(found.matrix * 2, 64).warp(photo)
    samples = samples_of(np.stack([np.full_like(face, 90), face, np.full_like(face, 20)]))
    eyes, mouth = (measure.make_task(name, samples, BenchmarkOptions()) for name in ("eyes", "mouth"))
    for task in (eyes, mouth):
        assert task.left_out == 2 and task.samples == samples[1:2]
    assert 0 < eyes.holes[0].mean() < 0.3 and 0 < mouth.holes[0].mean() < 0.3
    assert np.nonzero(eyes.holes[0])[0].max() < np.nonzero(mouth.holes[0])[0].min()
    with pytest.raises(BenchmarkError, match="none of 1 faces has landmarks for the hole mouth"):
        measure.make_task("mouth", samples[:1], BenchmarkOptions())


@pytest.mark.usefixtures("quick")
def test_all_methods_get_the_same_faces_with_the_same_black_holes() -> None:
    seen: list[tuple[NDArray[np.uint8], NDArray[np.bool_]]] = []

    def watch(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        seen.append((crops, holes))
        return crops

    rows_of(FACES, dict.fromkeys(("fast", "paper", "telea"), watch), holes=("pattern",), slow_limit=3)
    assert [len(crops) for crops, _ in seen] == [20, 3, 20]
    for crops, holes in seen:
        assert np.array_equal(crops, seen[0][0][: len(crops)]) and np.array_equal(holes, seen[0][1][: len(crops)])
        assert np.array_equal(crops[~holes], FACES[: len(crops)][~holes])
        assert (crops[holes] == 0).all()


# Methods


@pytest.mark.usefixtures("quick")
def test_every_method_keeps_visible_pixels_and_repeats_itself(encoder_weights: Weights) -> None:
    first, again = (completed_by(encoder_weights, FACES[:4], holes=("random80",)) for _ in range(2))
    assert set(first) == set(METHODS)
    holes = np.stack([draw_hole("random80", sample) for sample in samples_of(FACES[:4])])
    for name, made in first.items():
        assert len(made) == (2 if name in SLOW else 4)
        visible = ~holes[: len(made)]
        assert np.array_equal(made[visible], FACES[: len(made)][visible])
        assert np.array_equal(made, again[name]) and not np.array_equal(made, FACES[: len(made)])


@pytest.mark.usefixtures("quick")
def test_dcgan_methods_match_the_completer(encoder_weights: Weights) -> None:
    names = ("fast", "fast+alpha", "thorough", *SLOW)
    made = completed_by(encoder_weights, FACES[:2], holes=("center",), methods=names, seed=5)
    hole = draw_hole("center", samples_of(FACES[:2])[1], 5)
    for name in names:
        solver, _, blend = name.partition("+")
        completer = FaceCompleter(encoder_weights, solver=solver, blend=blend or "poisson", aligned=True)
        alone = completer(FACES[1], hole, seed=5)
        assert np.abs(made[name][1].astype(int) - alone.pixels).max() <= 1


@pytest.mark.usefixtures("quick")
def test_mean_and_linear_use_only_training_faces(encoder_weights: Weights) -> None:
    training = np.full((40, 32, 32, 3), 70, dtype=np.uint8)
    made = completed_by(encoder_weights, FACES, training, holes=("center",), methods=LEARNING)
    assert all((pixels[:, 8:24, 8:24] == 70).all() for pixels in made.values())


def test_methods_without_their_requirements_are_skipped(small_weights: Weights) -> None:
    methods, notes = create_methods([small_weights], None, BenchmarkOptions())
    assert [*methods] == ["fast", "fast-torch", "paper", "bamos", "telea", "ns", "biharmonic"]
    assert "linear is skipped because it needs training faces" in notes
    assert "fast uses the solver search because the weights have no encoder" in notes
    only = BenchmarkOptions(methods=LEARNING)
    with pytest.raises(BenchmarkError, match="none of linear, mean can run; give training faces"):
        create_methods([small_weights], None, only)
    with pytest.raises(BenchmarkError, match="3 training faces are too few"):
        create_methods([small_weights], TRAINING[:3], only)


# Whole photos


@pytest.fixture(scope="module")
def sample(astronaut: NDArray[np.uint8]) -> Sample:
    found = find_sample(0, "astronaut.png", astronaut)
    assert found is not None
    return found


def measured(sample: Sample, hole: str, complete: Callable[[NDArray[np.bool_]], NDArray[np.uint8]]) -> dict[str, float]:
    """The figures of a method for whole photos that knows the hole."""

    def method(photos: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        assert not photos[holes].any() and np.array_equal(photos[0][~holes[0]], sample.pixels[~holes[0]])
        return complete(holes[0])[None]

    items = compare([sample], {"fast": method}, BenchmarkOptions(whole=True, holes=(hole,)))
    [row] = [item for item in items if isinstance(item, Row)]
    return {name: float(value) for name, [value] in row.figures.items()}


def covered(hole: NDArray[np.bool_], points: NDArray[np.float64]) -> float:
    x, y = points.round().astype(int).T
    return float(hole[y, x].mean())


def test_holes_in_photos_cover_the_parts_they_are_named_after(sample: Sample) -> None:
    holes = {name: draw_whole_hole(name, sample) for name in WHOLE_HOLES}
    points = sample.landmarks
    assert points is not None
    assert covered(holes["middle"], points[NOSE]) == 1 and covered(holes["middle"], points[JAW]) == 0
    assert sorted(covered(holes["eye"], points[eye]) for eye in EYES) == [0, 1]
    assert covered(holes["mouth"], points[MOUTH]) == 1 and covered(holes["mouth"], points[BRIDGE]) == 0
    crop = sample.face.footprint(sample.pixels.shape[:2])
    assert holes["half"].sum() / crop.sum() == pytest.approx(0.5, abs=0.03)
    assert 0.03 < (holes["scratches"] & crop).sum() / crop.sum() < 0.15
    assert np.array_equal(holes["scratches"], draw_whole_hole("scratches", sample))
    assert not np.array_equal(holes["scratches"], draw_whole_hole("scratches", sample, 1))


def test_the_original_photo_has_perfect_figures(sample: Sample) -> None:
    figures = measured(sample, "middle", lambda hole: sample.pixels)
    assert figures["hole_psnr"] == math.inf and figures["colour"] == figures["identity"] == 0
    assert all(figures[name] == 1 for name in ("detail", "rim", "found", "located"))


def test_a_brightness_shift_affects_colour_and_rim(sample: Sample) -> None:
    shifted = np.where(sample.pixels > 205, sample.pixels - np.uint8(50), sample.pixels + np.uint8(50))
    figures = measured(sample, "mouth", lambda hole: np.where(hole[..., None], shifted, sample.pixels))
    assert figures["hole_psnr"] == pytest.approx(20 * math.log10(255 / 50))
    assert figures["colour"] > 30 and figures["rim"] > 3


def test_a_flat_fill_has_no_detail(sample: Sample) -> None:
    def flat(hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return np.where(hole[..., None], sample.pixels[hole].mean(axis=0).round().astype(np.uint8), sample.pixels)

    figures = measured(sample, "middle", flat)
    assert figures["detail"] < 0.4 and figures["colour"] < 3


def test_a_method_may_find_no_face(sample: Sample) -> None:
    def blind(hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
        raise NoFaceError("no face was found")

    figures = measured(sample, "half", blind)
    assert figures["located"] == 0 and 5 < figures["hole_psnr"] < 30


def test_only_colours_that_luminance_does_not_explain_are_stray(sample: Sample) -> None:
    photos = {tone: toned(sample.pixels, tone) for tone in (COLOUR, *TONES)}
    assert photos[COLOUR] is sample.pixels and len({photo.tobytes() for photo in photos.values()}) == 7
    hole = draw_whole_hole("middle", sample)
    strays = {tone: stray(photos[tone], photos[tone], hole) for tone in ONE_TONE}
    assert strays["grey"] < 1e-3 and max(strays["sepia"], strays["blue"]) < 0.5
    shifted = np.clip(photos["grey"] + np.array([0, 10, 0]), 0, 255).astype(np.uint8)
    lab = cv2.cvtColor(np.array([[[0.5, 0.54, 0.5]]], dtype=np.float32), cv2.COLOR_RGB2LAB)[0, 0]
    assert stray(shifted, photos["grey"], hole) == pytest.approx(np.linalg.norm(lab[1:]), rel=0.2)
    assert np.std(photos["dark"]) < np.std(photos["faded"]) < 0.6 * np.std(sample.pixels)


def test_no_photo_is_its_own_reference(sample: Sample, tmp_path: Path) -> None:
    file = save(tmp_path / "album" / "astronaut.png", sample.pixels)
    options = BenchmarkOptions(whole=True, methods=("fast", "fast+reference"), reference=(file.parent,))
    methods, _ = create_methods(open_weights("auto", "cpu"), None, options)
    hole = draw_whole_hole("eye", sample)[None]
    seen = np.where(hole[..., None], np.uint8(0), sample.pixels)
    plain, referred = methods["fast"](seen, hole), methods["fast+reference"]
    assert isinstance(referred, InPhoto)
    assert np.array_equal(replace(referred, sha256=digest(file))(seen, hole), plain)
    assert not np.array_equal(referred(seen, hole), plain)  # that of another file


# The command


@pytest.fixture
def run(encoder_weights_file: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command on aligned faces; later arguments take precedence."""
    save_all(tmp_path / "val", FACES)
    given = ["--weights", encoder_weights_file, "--device", "cpu", "--output", tmp_path / "out"]

    def call(*words: object, faces: Path = tmp_path / "val") -> int:
        return main([str(word) for word in [faces, *given, *words]])

    return call


@pytest.mark.usefixtures("quick")
def test_the_command_writes_tables_figures_and_pictures(
    tmp_path: Path, run: Callable[..., int], encoder_weights: Weights, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--holes", "center", "half", "--methods", "paper", "telea", "--slow-limit", 3, "--limit", 16]
    assert run(*words) == 0
    out, out_folder = capsys.readouterr().out, tmp_path / "out"
    record = json.loads((out_folder / "benchmark.json").read_text())
    assert record["weights"] == {"name": "encoder.safetensors", "sha256": [encoder_weights.sha256]}
    assert record["settings"]["slow_limit"] == 3 and record["faces"] == {"count": 16, "training": 0}
    assert [(row["hole"], row["method"], row["means"]["n"]) for row in record["rows"]] == [
        (hole, method, n) for hole in ("center", "half") for method, n in (("paper", 3), ("telea", 16))
    ]
    markdown = (out_folder / "benchmark.md").read_text()
    center, half, same = out.split("\n\n## ")
    for hole, table in (("center", center), ("half", half)):
        assert table.removeprefix("## ").startswith(f"{hole}: 16 faces") and table in markdown
        assert f"![{hole}]({hole}.jpg)" in markdown
        rows = {row["method"]: row for row in record["rows"] if row["hole"] == hole}
        for method, row in rows.items():
            [line] = [line for line in table.splitlines() if line.startswith(f"| `{method}` ")]
            psnr = [float(value) for value in row["faces"]["hole_psnr"]]
            assert row["means"]["hole_psnr"] == pytest.approx(np.mean(psnr)) and f" {np.mean(psnr):.2f} " in line
            ratio = rows["paper"]["means"]["cpu_s"] / row["means"]["cpu_s"]
            assert line.split("|")[-3].strip() == f"{ratio:.3g}"
            assert f" {np.mean(psnr[:3]):.2f} " in next(
                line for line in same.splitlines() if line.startswith(f"| `{method}` ")
            )
        # A row per face: the face, its hole, and what the methods made of it, as far as they ran.
        sheet = read_photo(out_folder / f"{hole}.jpg").pixels.reshape(16, 192, 4, 192, 3).transpose(0, 2, 1, 3, 4)
        assert (sheet[3:, 2] == 255).all() and not (sheet[:3, 2] == 255).all()
        assert np.abs(sheet[0, 1, 96, 96].astype(int) - (255, 0, 255)).max() < 40 or hole == "half"
    assert run(*words) == 2  # existing results are not replaced
    assert "benchmark.json exists; pass --overwrite" in capsys.readouterr().err
    assert run("--holes", "center", "--methods", "telea", "--overwrite", "-q") == 0
    out, err = capsys.readouterr()
    assert "`telea`" in out and "`paper`" not in out and "Same faces" not in out and err == ""


def test_the_command_measures_whole_photos(
    astronaut: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, empty, out = tmp_path / "photos", tmp_path / "empty", tmp_path / "out"
    save(photos / "a.png", astronaut)
    save(empty / "no-face.png", NO_FACE)
    words = "--whole --holes eye mouth --methods telea fast+network --tones grey -q --output".split()
    assert main([str(word) for word in [photos, empty, *words, out]]) == 0
    parts = [line[3:] for line in capsys.readouterr().out.splitlines() if line.startswith("## ")]
    assert parts[1:] == ["eye: 2 faces", "mouth: 2 faces", "all", "grey"] and parts[0].endswith(" px")
    rows = json.loads((out / "benchmark.json").read_text())["rows"]
    assert [(row["hole"], row["method"]) for row in rows] == [
        (hole, method) for hole in ("eye", "mouth") for method in ("telea", "fast+network")
    ]
    assert rows[0]["faces"]["name"] == ["a.png"] * 2 and rows[0]["faces"]["tone"] == ["colour", "grey"]
    assert [row["faces"]["stray"] for row in rows] == [["nan", pytest.approx(0, abs=1e-3)]] * 4
    assert read_photo(out / "eye.jpg").pixels.shape == (2 * 384, 384 * 4, 3)
    assert main([str(word) for word in [empty, *words, tmp_path / "other"]]) == 2
    assert "found no face in" in capsys.readouterr().err


def test_the_command_measures_how_damage_is_found_and_restored(
    onnx_weights_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "photos" / "a.png", PORTRAIT[::2, ::2])
    words = ["--damage", "--weights", str(onnx_weights_file), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main([str(tmp_path / "photos"), *words]) == 0
    rows = json.loads((tmp_path / "out" / "damage.json").read_text())
    found = [(row["kind"], row["method"]) for row in rows if "iou" in row["figures"]]
    assert found == [(kind, method) for kind in (*KINDS, MIXED, CLEAN) for method in FINDERS]
    restored = {row["method"]: row["figures"]["hole_psnr"] for row in rows if "hole_psnr" in row["figures"]}
    assert restored["true mask, ours"] > restored["network, ours"] > restored["as it is"] and len(restored) == 7
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "damage.md").read_text() and "## Restored" in printed
    assert read_photo(tmp_path / "out" / "damage.jpg").pixels.shape == (400, 1200, 3)
    assert main([str(tmp_path / "photos"), *words]) == 2  # existing results are not replaced


@pytest.mark.usefixtures("quick")
def test_infinite_figures_are_strings_in_json(
    tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "psnr", lambda *_: math.inf)
    assert run("--holes", "center", "--methods", "telea", "-q") == 0
    [row] = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert row["means"]["hole_psnr"] == "inf" and row["faces"]["psnr"] == ["inf"] * 20
    assert "|       inf |" in (tmp_path / "out" / "benchmark.md").read_text()


@pytest.mark.usefixtures("quick")
def test_results_before_an_interrupt_are_kept(
    tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(photos: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        raise KeyboardInterrupt

    monkeypatch.setattr("completion.benchmark.methods.biharmonic", stop)
    assert run("--holes", "center", "--methods", "telea", "ns", "biharmonic") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "benchmark: stopped; results so far are in the output folder"
    rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["telea", "ns"]


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (["--train", "absent"], "absent is not a folder"),
        (["--weights", "absent.safetensors"], "absent.safetensors"),
        (["--output", "val"], "choose a folder outside it"),
        (["--methods", "mean"], "give training faces"),
        (["--methods", "magic"], "there is no method 'magic'"),
        (["--methods", "fast+magic"], "there is no method 'fast+magic'"),
        (["--holes", "nose"], "there is no hole 'nose'"),
        (["--whole", "--methods", "linear"], "complete aligned faces only"),
        (["--whole", "--methods", "fast+reference"], "no photos were given"),
        (["--whole", "--tones", "gray"], "there is no tone 'gray'"),
        (["--tones", "grey"], "are for whole photos"),
        (["--weights", "faces-64"], "has no 64x64 faces"),
    ],
)
def test_wrong_usage_ends_with_one_line_and_exit_2(
    tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], stderr: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert stderr in line and line.startswith("benchmark: ")
    assert not (tmp_path / "out" / "benchmark.json").exists()
