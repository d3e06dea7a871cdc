"""Tests of `python -m completion.benchmark` on aligned faces: holes, methods, figures and reports."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from completion.complete import Completion, FaceCompleter
from numpy.typing import NDArray
from pictures import save_all

from align.cli import Progress
from align.photo import read_photo
from align.warp import Alignment
from completion.benchmark import compare as module
from completion.benchmark.__main__ import main
from completion.benchmark.compare import SHOWN, CompareError, Row, Task, compare, make_task, spread
from completion.benchmark.report import Report
from completion.config import BENCHMARK_HOLES, METHODS, SLOW, SOLVERS, WITH_ENCODER, BenchmarkOptions
from dcgan.holes import needs_landmarks
from dcgan.weights import Weights

PROJECT = Path(__file__).parents[1]
FACES = np.random.default_rng(0).integers(60, 190, (20, 32, 32, 3), dtype=np.uint8)
TRAINING = np.random.default_rng(1).integers(60, 190, (24, 32, 32, 3), dtype=np.uint8)
WITH_DCGAN = ("fast", *WITH_ENCODER, *SLOW)
RIM = ("telea", "ns", "biharmonic")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short searches, no dlib detector, and mean block colours (3 x 4 x 4) as face embeddings."""
    for name, solver in SOLVERS.items():
        monkeypatch.setitem(SOLVERS, name, replace(solver, steps=min(solver.steps, 2), draws=2, restarts=1))

    def embed(crops: NDArray[np.uint8], template: str, device: torch.device) -> NDArray[np.float64]:
        return crops.reshape(len(crops), 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(len(crops), -1) / 255

    monkeypatch.setattr(module, "embed", embed)
    monkeypatch.setattr(module, "found", lambda crops: crops[:, 16, 16, 0] > 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_all(tmp_path / "val", FACES)


@pytest.fixture
def run(encoder_weights_file: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command; later arguments take precedence."""

    def call(*words: object) -> int:
        given = [
            "--weights",
            encoder_weights_file,
            "--device",
            "cpu",
            "--output",
            tmp_path / "out",
            "--holes",
            "center",
        ]
        return main([str(word) for word in [words[0], *given, *words[1:]]])

    return call


def rows_of(
    weights: Weights, faces: NDArray[np.uint8] = FACES, training: NDArray[np.uint8] | None = TRAINING, **given: Any
) -> dict[tuple[str, str], Row]:
    items = list(compare(weights, faces, training, BenchmarkOptions(**given)))
    assert all(0 <= item.done <= item.total for item in items if isinstance(item, Progress))
    return {(item.hole, item.method): item for item in items if isinstance(item, Row)}


def shown(weights: Weights, truth: NDArray[np.uint8], **given: Any) -> dict[tuple[str, str], NDArray[np.uint8]]:
    return {key: row.pictures for key, row in rows_of(weights, truth, **given).items()}


# Figures


def test_a_perfect_method_has_perfect_figures(small_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = np.random.default_rng(2).integers(60, 190, (60, 32, 32, 3), dtype=np.uint8)
    batches = iter(np.split(faces, [50]))
    monkeypatch.setattr(module, "telea", lambda crops, holes: next(batches))
    [row] = rows_of(small_weights, faces, holes=("center",), methods=("telea",)).values()
    assert row.n == 60
    assert row.hole_psnr == row.psnr == row.same_psnr == math.inf
    assert row.ssim == pytest.approx(1)
    assert row.identity == 0
    assert row.frechet == pytest.approx(0, abs=1e-9)
    assert row.found == (faces[:, 16, 16, 0] > 100).mean()
    assert np.array_equal(row.pictures, faces[:SHOWN])


def test_a_constant_error_gives_the_expected_psnr(small_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = FACES[:6]
    off = np.array([4, 8, 16, 4, 8, 16], dtype=np.uint8)[:, None, None, None]

    def wrong(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return np.where(holes[..., None], truth + off, crops)

    monkeypatch.setattr(module, "telea", wrong)
    [row] = rows_of(small_weights, truth, holes=("center",), methods=("telea",), slow_limit=1).values()
    in_hole = [20 * math.log10(255 / int(level)) for level in off[:, 0, 0, 0]]
    assert row.hole_psnr == pytest.approx(np.mean(in_hole))
    assert row.same_psnr == pytest.approx(in_hole[0])
    assert row.psnr == pytest.approx(np.mean(in_hole) + 10 * math.log10(4))  # a quarter of the pixels
    assert 0 < row.ssim < 1
    inner = 4 * 3  # 4 of the 16 blocks lie in the hole
    assert row.identity == pytest.approx(np.mean(off / 255 * math.sqrt(inner)))
    assert row.frechet is None  # too few faces for a covariance


def test_time_and_memory_of_the_method_are_measured(small_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"process_time": 100.0, "perf_counter": 900.0}
    for name in clock:
        monkeypatch.setattr(module.time, name, partial(clock.__getitem__, name))

    def burn(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        clock["process_time"] += 2
        clock["perf_counter"] += 6
        np.ones(25_000_000, dtype=np.uint8)
        return crops

    monkeypatch.setattr(module, "telea", burn)
    monkeypatch.setattr(module, "navier_stokes", burn)  # run twice: freed memory must be counted again
    monkeypatch.setattr(module, "biharmonic", lambda crops, holes: crops)
    rows = rows_of(small_weights, FACES[:4], holes=("center",), methods=RIM)
    busy, again, idle = (rows["center", name] for name in RIM)
    for row in (busy, again):
        assert (row.cpu_s, row.wall_s) == (0.5, 1.5)
    assert (idle.cpu_s, idle.wall_s) == (0, 0)
    if Path("/proc/self/clear_refs").exists():
        assert busy.memory_mb is not None and again.memory_mb is not None and idle.memory_mb is not None
        assert min(busy.memory_mb, again.memory_mb) > 20 > idle.memory_mb >= 0
    else:
        assert busy.memory_mb is None


def test_memory_is_none_where_the_system_does_not_report_it(
    small_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    [row] = rows_of(small_weights, FACES[:2], holes=("center",), methods=("telea",)).values()
    assert row.memory_mb is None


# Faces and holes


def test_faces_are_evenly_spaced_and_shuffled() -> None:
    faces = np.arange(1000)
    chosen = spread(faces, 100, 0)
    assert len(set(chosen)) == 100
    assert np.diff(np.sort(chosen)).max() <= 11 and chosen.min() == 0 and chosen.max() == 999
    assert 300 < chosen[:20].mean() < 700
    assert np.array_equal(chosen, spread(faces, 100, 0)) and not np.array_equal(chosen, spread(faces, 100, 1))
    assert sorted(spread(faces[:7], 100, 0)) == list(range(7))


@pytest.mark.parametrize("hole", [name for name in BENCHMARK_HOLES if not needs_landmarks(BENCHMARK_HOLES[name])])
def test_a_hole_depends_only_on_seed_and_face(hole: str) -> None:
    task = make_task(hole, FACES, 3)
    assert task.left_out == 0 and np.array_equal(task.faces, FACES)
    assert np.array_equal(task.holes, make_task(hole, 255 - FACES, 3).holes)
    assert np.array_equal(task.holes[:5], make_task(hole, FACES[:5], 3).holes)
    if hole in ("pattern", "random80"):
        assert len({each.tobytes() for each in task.holes}) == len(FACES)
        assert not np.array_equal(task.holes, make_task(hole, FACES, 4).holes)
    share = {"center": 0.25, "pattern": 0.25, "random80": 0.8, "half": 0.5}[hole]
    assert task.holes.mean(axis=(1, 2)) == pytest.approx(share, abs=1e-3)


def test_half_cycles_through_the_sides() -> None:
    left, right, top, bottom, again = make_task("half", FACES[:5], 0).holes
    assert left[:, :16].all() and right[:, 16:].all() and top[:16].all() and bottom[16:].all()
    assert np.array_equal(left, again)


def test_eyes_and_mouth_follow_landmarks_and_faces_without_any_are_left_out(
    small_weights: Weights, astronaut: NDArray[np.uint8]
) -> None:
    photo = astronaut[0:230, 110:340]
    [found] = FaceCompleter(small_weights, "search").locate(photo)
    face = Alignment(found.matrix * 2, 64).warp(photo)
    faces = np.stack([np.full_like(face, 90), face, np.full_like(face, 20)])
    eyes, mouth = make_task("eyes", faces, 0), make_task("mouth", faces, 0)
    for task in (eyes, mouth):
        assert task.left_out == 2
        assert np.array_equal(task.faces, faces[1:2]) and task.holes.shape == (1, 64, 64)
    assert 0 < eyes.holes.mean() < 0.3 and 0 < mouth.holes.mean() < 0.3
    assert np.nonzero(eyes.holes[0])[0].max() < np.nonzero(mouth.holes[0])[0].min()


def test_a_hole_that_no_face_has_is_an_error(small_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_landmarks", lambda photo, alignment: None)
    with pytest.raises(CompareError, match="none of 20 faces has landmarks for the hole mouth"):
        rows_of(small_weights, holes=("mouth",), methods=("telea",))


def test_all_methods_get_the_same_faces_with_the_same_black_holes(
    encoder_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[NDArray[np.uint8], NDArray[np.bool_]]] = []

    def watch(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        seen.append((crops, holes))
        return crops

    monkeypatch.setattr(module, "telea", watch)
    monkeypatch.setattr(module, "navier_stokes", watch)
    monkeypatch.setattr(FaceCompleter, "complete_crops", lambda self, crops, holes, seed: watch(crops, holes))
    rows_of(encoder_weights, holes=("pattern",), methods=("fast", "paper", "telea", "ns"), slow_limit=3)
    assert [len(crops) for crops, _ in seen] == [20, 3, 20, 20]
    for crops, holes in seen:
        assert np.array_equal(crops, seen[0][0][: len(crops)]) and np.array_equal(holes, seen[0][1][: len(crops)])
        assert np.array_equal(crops[~holes], FACES[: len(crops)][~holes])
        assert (crops[holes] == 0).all()


@pytest.mark.parametrize("hole", ["center", "pattern"])
def test_no_method_sees_pixels_under_the_hole(encoder_weights: Weights, hole: str) -> None:
    holes = make_task(hole, FACES[:4], 0).holes
    noise = np.random.default_rng(9).integers(0, 256, FACES[:4].shape, dtype=np.uint8)
    poisoned = np.where(holes[..., None], noise, FACES[:4])
    clean, dirty = (shown(encoder_weights, truth, holes=(hole,), slow_limit=2) for truth in (FACES[:4], poisoned))
    assert set(clean) == {(hole, method) for method in METHODS}
    for key, pictures in clean.items():
        assert np.array_equal(pictures, dirty[key]), key


# Methods


def test_every_method_keeps_visible_pixels_and_depends_on_the_seed(encoder_weights: Weights) -> None:
    given: dict[str, Any] = {"holes": ("random80",), "slow_limit": 2}
    first, again = (shown(encoder_weights, FACES[:4], **given) for _ in range(2))
    assert {method for _, method in first} == set(METHODS)
    holes = make_task("random80", FACES[:4], 0).holes
    for (hole, method), pictures in first.items():
        assert len(pictures) == (2 if method in ("paper", "bamos") else 4)
        known = ~holes[: len(pictures)]
        assert np.array_equal(pictures[known], FACES[: len(pictures)][known])
        assert np.array_equal(pictures, again[hole, method])
        assert not np.array_equal(pictures, FACES[: len(pictures)])


def test_dcgan_methods_match_the_completer(encoder_weights: Weights) -> None:
    made = shown(encoder_weights, FACES[:2], holes=("center",), methods=WITH_DCGAN, seed=5)
    holes = make_task("center", FACES[:2], 5).holes
    for solver in WITH_DCGAN:
        *_, completion = FaceCompleter(encoder_weights, solver).steps(FACES[1], holes[1], seed=5)
        assert isinstance(completion, Completion)
        assert np.abs(made["center", solver][1].astype(int) - completion.pixels).max() <= 1


def test_the_mean_uses_only_training_faces(encoder_weights: Weights) -> None:
    training = np.full((40, 32, 32, 3), 70, dtype=np.uint8)
    made = shown(encoder_weights, FACES, training=training, holes=("center",), methods=("mean", "linear"))
    for pictures in made.values():
        assert (pictures[:, 8:24, 8:24] == 70).all()


def test_methods_without_their_requirements_are_skipped(small_weights: Weights) -> None:
    assert small_weights.encoder is None
    rows = rows_of(small_weights, FACES[:2], None, holes=("center",), slow_limit=1)
    assert [method for _, method in rows] == ["fast", "fast-torch", "paper", "bamos", *RIM]
    with pytest.raises(CompareError, match="none of linear, mean can run; give training faces"):
        rows_of(small_weights, FACES[:2], None, methods=("linear", "mean"))
    with pytest.raises(CompareError, match="3 training faces are too few"):
        rows_of(small_weights, FACES[:2], TRAINING[:3], methods=("mean",))


def test_default_names_are_valid() -> None:
    assert set(WITH_DCGAN) <= {"fast", *SOLVERS} & set(METHODS)
    assert BenchmarkOptions().methods == METHODS and BenchmarkOptions().holes == tuple(BENCHMARK_HOLES)


# Reports


def test_the_command_writes_tables_figures_and_pictures(
    folder: Path,
    tmp_path: Path,
    run: Callable[..., int],
    encoder_weights: Weights,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = save_all(tmp_path / "train", TRAINING)
    words = [folder, "--train", train, "--holes", "center", "half", "--slow-limit", 3, "--limit", 16]
    assert run(*words) == 0
    out, err = capsys.readouterr()
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert record["weights"] == {"name": "encoder.safetensors", "sha256": encoder_weights.sha256}
    assert record["settings"]["slow_limit"] == 3 and record["settings"]["seed"] == 0
    assert record["faces"]["count"] == 16 and record["faces"]["training"] == 24
    assert record["machine"] and record["notes"] == []
    markdown = (tmp_path / "out" / "benchmark.md").read_text()
    center, half, same = out.split("\n\n## ")
    for hole, table in (("center", center), ("half", half)):
        assert table.startswith(f"## {hole}: 16 faces" if hole == "center" else f"{hole}: 16 faces")
        assert table.removeprefix("## ") in markdown
        found = record["holes"][hole]
        assert found["faces"] == 16 and found["left_out"] == 0
        assert list(found["methods"]) == list(METHODS)
        for method, figures in found["methods"].items():
            [line] = [line for line in table.splitlines() if line.startswith(f"| `{method}` ")]
            assert f" {figures['hole_psnr']:.2f} " in line
            assert figures["n"] == (3 if method in ("paper", "bamos") else 16)
            assert figures["vs_paper"] == found["methods"]["paper"]["cpu_s"] / figures["cpu_s"]
        assert found["methods"]["paper"]["vs_paper"] == 1
        assert read_photo(tmp_path / "out" / f"{hole}.png").pixels.shape == ((2 + len(METHODS)) * 32, 12 * 32, 3)
        assert f"]({hole}.png)" in markdown
    assert same.startswith("Same faces: hole-PSNR of the first 3\n")
    for method in METHODS:
        [line] = [line for line in same.splitlines() if line.startswith(f"| `{method}` ")]
        same_psnr = [record["holes"][hole]["methods"][method]["same_psnr"] for hole in ("center", "half")]
        assert [cell.strip() for cell in line.split("|")[2:4]] == [f"{value:.2f}" for value in same_psnr]
    assert "{" not in markdown
    assert "center, fast: hole-PSNR" in err
    assert run(*words) == 2
    assert capsys.readouterr().err.endswith("exists; give --overwrite or another folder with --output\n")
    assert run(folder, "--methods", "telea", "--overwrite", "-q") == 0
    out, err = capsys.readouterr()
    assert "`telea`" in out and "`fast`" not in out and "Same faces" not in out and err == ""
    assert list(json.loads((tmp_path / "out" / "benchmark.json").read_text())["holes"]["center"]["methods"]) == [
        "telea"
    ]


def test_the_picture_has_a_row_for_truth_hole_and_each_method(small_weights: Weights, tmp_path: Path) -> None:
    report = Report(
        {
            "settings": {"seed": 0, "slow_limit": 2},
            "weights": {"name": "w", "sha256": "0"},
            "faces": {"count": 20, "training": 0},
            "machine": "m",
            "notes": [],
        }
    )
    options = BenchmarkOptions(holes=("center",), methods=("telea", "paper"), slow_limit=2)
    made = [item for item in compare(small_weights, FACES, None, options) if isinstance(item, Task | Row)]
    for item in made:
        report.add(item)
    report.write(tmp_path)
    truth, hole, telea, paper = np.split(read_photo(tmp_path / "center.png").pixels, 4)
    task, first, second = made
    assert isinstance(task, Task) and isinstance(first, Row) and isinstance(second, Row)
    assert np.array_equal(truth, np.hstack(list(FACES[:SHOWN])))
    assert np.array_equal(telea, np.hstack(list(first.pictures)))
    assert np.array_equal(paper[:, :64], np.hstack(list(second.pictures))) and (paper[:, 64:] == 128).all()
    assert (hole[16, 16] == (255, 0, 255)).all() and np.array_equal(hole[:8], truth[:8])


def test_infinite_figures_are_strings_in_json(
    folder: Path, tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = spread(FACES, 20, 0)
    monkeypatch.setattr(module, "telea", lambda crops, holes: faces)
    assert run(folder, "--methods", "telea", "-q") == 0
    figures = json.loads((tmp_path / "out" / "benchmark.json").read_text())["holes"]["center"]["methods"]["telea"]
    assert figures["hole_psnr"] == "inf" and float(figures["hole_psnr"]) == math.inf
    assert figures["frechet"] is None and figures["vs_paper"] is None and figures["identity"] == 0
    assert "|       inf |" in (tmp_path / "out" / "benchmark.md").read_text()


def test_results_before_an_interrupt_are_kept(
    folder: Path,
    tmp_path: Path,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(crops: NDArray[np.uint8], holes: NDArray[np.bool_]) -> NDArray[np.uint8]:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "biharmonic", stop)
    assert run(folder, "--methods", *RIM) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("benchmark: stopped; results so far are in ")
    out = tmp_path / "out"
    assert list(json.loads((out / "benchmark.json").read_text())["holes"]["center"]["methods"]) == ["telea", "ns"]
    assert "`ns`" in (out / "benchmark.md").read_text()
    assert read_photo(out / "center.png").pixels.shape[0] == 4 * 32


def test_notes_list_skipped_methods(
    folder: Path, run: Callable[..., int], small_weights_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--weights", small_weights_file, "--methods", "fast", "linear", "telea"]
    assert run(folder, *words) == 0
    notes = [
        "linear is skipped because it needs training faces",
        "fast uses the solver search because the weights have no encoder",
    ]
    assert capsys.readouterr().err.splitlines()[:2] == notes
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["notes"] == notes
    markdown = (tmp_path / "out" / "benchmark.md").read_text()
    assert all(f"{note}." in markdown for note in notes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent"], "absent is not a folder"),
        (["val", "--train", "absent"], "absent is not a folder"),
        (["val", "--weights", "absent.safetensors"], "absent.safetensors"),
        (["val", "--output", "val"], "choose a folder outside it"),
        (["val", "--methods", "mean"], "give training faces"),
        (["small"], "is 16x16; expected 32x32"),
    ],
)
def test_wrong_usage_ends_with_one_line_and_exit_2(
    folder: Path,
    tmp_path: Path,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_all(tmp_path / "small", FACES[:1, :16, :16])
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert said in err and err.splitlines()[-1].startswith("benchmark: ")
    assert not (tmp_path / "out" / "benchmark.json").exists()


@pytest.mark.parametrize("words", [["--holes", "nose"], ["--methods", "magic"], ["--limit", "0"], ["--seed", "-1"]])
def test_unknown_names_and_numbers_end_with_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["faces", *words])
    assert stopped.value.code == 2
    assert words[1] in capsys.readouterr().err


def test_help_needs_no_torch_and_shows_defaults_and_an_example() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['cv2'] = None\n"
        "from completion.benchmark.__main__ import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "(default: 500)" in " ".join(done.stdout.split())
        and "python -m completion.benchmark aligned_val/" in done.stdout
    )
    assert all(name in done.stdout for name in (*BENCHMARK_HOLES, *METHODS))
