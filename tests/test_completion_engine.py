"""Tests of the engines: ONNX Runtime against torch, and completion on a machine without torch."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from completion.complete import FaceCompleter
from completion.engine import Networks, Step
from completion.solve import Search
from numpy.typing import NDArray
from pictures import files, pixels, save, save_all

import weights
from align.errors import DeviceError
from completion import one_pass
from completion.benchmark.compare import Row, compare
from completion.config import SOLVERS, BenchmarkOptions, Solver
from completion.one_pass import OnePass
from dcgan.export import export_onnx
from dcgan.holes import HOLES, named_hole
from dcgan.sampling import generate, sample_z
from dcgan.weights import Weights, WeightsError

ENCODER = SOLVERS["encoder"]
ABSENT = "torch torchvision tensorboard skimage sklearn matplotlib onnx gradio ray"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, encoder_weights_file: Path, encoder_weights: Weights) -> Path:
    """Weights with an untrained encoder, and their ONNX file beside them."""
    path = tmp_path_factory.mktemp("exported") / "e.safetensors"
    shutil.copy(encoder_weights_file, path)
    export_onnx(encoder_weights, path.with_suffix(".onnx"))
    return path


def last(networks: Networks, solver: Solver, crops: NDArray[np.uint8], holes: NDArray[np.bool_], seed: int = 0) -> Step:
    *_, step = networks.engine(solver).solve(crops, holes, solver, seed)
    return step


def faces_and_holes(name: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Generated faces, with each kind of hole in turn."""
    G = Weights.open(name, "cpu").generator
    faces = generate(G, sample_z(count, G.config, torch.Generator().manual_seed(7)))
    size, kinds = G.config.size, list(HOLES)
    landmarks = size * np.random.default_rng(1).uniform(0.3, 0.7, (68, 2))
    masks = [kinds[index % len(kinds)] for index in range(count)]
    return faces, np.stack([named_hole(mask, size, np.random.default_rng(2), landmarks) for mask in masks])


def noise(count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.random((count, 32, 32)) < 0.3


@pytest.mark.parametrize("name", weights.REGISTRY)
@pytest.mark.parametrize("solver", ["encoder", "thorough"])
def test_onnx_runtime_and_torch_differ_by_one_level_at_most(name: str, solver: str) -> None:
    crops, holes = faces_and_holes(name, 28)
    on_onnx, on_torch = (
        last(Networks(source), SOLVERS[solver], crops, holes) for source in (name, Networks(name, "cpu").torch)
    )
    assert on_onnx.images.shape == on_torch.images.shape == (28, 1, *crops.shape[1:])
    assert np.abs(on_onnx.images.astype(int) - on_torch.images).max() <= 1
    assert on_onnx.context == pytest.approx(on_torch.context, rel=0.02, abs=1)


def test_visible_pixels_stay_byte_identical_on_both_engines() -> None:
    crops, holes = faces_and_holes("faces-64", 14)
    for source in ("faces-64", Networks("faces-64", "cpu").torch):
        filled = FaceCompleter(Networks(source)).complete_crops(crops, holes)
        assert np.array_equal(filled[~holes], crops[~holes])
        assert not np.array_equal(filled[holes], crops[holes])


def test_the_engine_follows_from_the_solver(exported: Path, encoder_weights: Weights) -> None:
    networks = Networks(str(exported), "cpu")
    for name, solver in SOLVERS.items():
        expected = OnePass if name in ("encoder", "thorough") else Search
        assert isinstance(networks.engine(solver), expected)
    assert isinstance(networks.engine(replace(ENCODER, steps=1)), Search)
    assert isinstance(Networks(encoder_weights).engine(ENCODER), Search)


def test_without_the_onnx_file_torch_completes(tmp_path: Path, encoder_weights_file: Path) -> None:
    alone = shutil.copy(encoder_weights_file, tmp_path / "alone.safetensors")
    assert isinstance(Networks(str(alone), "cpu").engine(ENCODER), Search)


def test_damaged_onnx_files_and_those_of_other_weights_are_refused(tmp_path: Path, exported: Path) -> None:
    path = Path(shutil.copy(exported, tmp_path / "e.safetensors"))
    path.with_suffix(".onnx").write_bytes(exported.with_suffix(".onnx").read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="cannot be used.*dcgan export"):
        last(Networks(str(path)), ENCODER, *noise(1))
    shutil.copy(weights.FOLDER / "faces-64.onnx", path.with_suffix(".onnx"))
    with pytest.raises(WeightsError, match="exported from other weights"):
        last(Networks(str(path)), ENCODER, *noise(1))


def test_devices_are_checked(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="tpu"):
        Networks(str(exported), "tpu")
    with pytest.raises(DeviceError, match="cuda:99 is absent"):  # torch says so
        Networks(str(exported), "cuda:99").engine(ENCODER)

    # A CUDA build on a machine without a GPU falls back to the CPU.
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(one_pass, "supports", lambda device: True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: session(path, options))
    assert not Networks(str(exported), "auto").engine(ENCODER).gpu
    with pytest.raises(DeviceError, match="ONNX Runtime cannot use the device cuda:99"):
        Networks(str(exported), "cuda:99").engine(ENCODER)


def test_the_first_candidate_is_the_single_completion_and_the_others_differ(exported: Path) -> None:
    networks, (crops, holes) = Networks(str(exported), "cpu"), noise(3)
    for solver in (ENCODER, SOLVERS["thorough"]):
        many = last(networks, replace(solver, draws=20, restarts=20), crops, holes)
        assert many.images.shape == (3, 20, 32, 32, 3)
        assert np.abs(many.images[:, 0].astype(int) - last(networks, solver, crops, holes).images[:, 0]).max() <= 1
        assert len(np.unique(many.images[0], axis=0)) == 20
        distance = many.total - many.context  # from the encoder's z
        assert not distance[:, 0].any() and (distance[:, 1:] > 0).all()


def test_the_seed_determines_the_candidates_and_faces_do_not_affect_each_other(exported: Path) -> None:
    networks, (crops, holes) = Networks(str(exported), "cpu"), noise(3)
    pool = replace(ENCODER, draws=20, restarts=20)
    one, again, other = (last(networks, pool, crops, holes, seed).images for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    alone = last(networks, pool, crops[1:2], holes[1:2], 1).images
    assert np.abs(alone[0].astype(int) - one[1]).max() <= 1


def test_the_candidates_with_the_lowest_context_loss_are_kept(exported: Path) -> None:
    networks, (crops, holes) = Networks(str(exported), "cpu"), noise(2)
    everything = last(networks, replace(ENCODER, draws=30, restarts=30), crops, holes)
    best = last(networks, replace(ENCODER, draws=30, restarts=4), crops, holes)
    assert np.array_equal(best.context, np.sort(everything.context, axis=1)[:, :4])
    assert best.images.shape == (2, 4, 32, 32, 3)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_context_loss_is_that_of_torch(exported: Path, encoder_weights: Weights, weighted: bool) -> None:
    solver = replace(ENCODER, weighted=weighted, z_weight=0.0)
    on_onnx, on_torch = (last(Networks(source), solver, *noise(4)) for source in (str(exported), encoder_weights))
    assert on_onnx.context == pytest.approx(on_torch.context, rel=1e-3)


def test_the_benchmark_has_a_row_per_engine(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    for engine in (OnePass, Search):
        original = engine.solve

        def noted(self: OnePass | Search, *arguments: Any, original: Any = original) -> Any:
            used.append(type(self))
            return original(self, *arguments)

        monkeypatch.setattr(engine, "solve", noted)
    options = BenchmarkOptions(holes=("center",), methods=("fast", "fast-torch"))
    items = compare(Networks(str(exported), "cpu"), noise(2)[0], None, options)
    assert [item.method for item in items if isinstance(item, Row)] == ["fast", "fast-torch"]
    assert used == [OnePass, Search]


def run_without_extras(*words: object) -> subprocess.CompletedProcess[str]:
    """Run python -m completion where none of the extras is installed."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT.split()!r}))  # importing them raises ModuleNotFoundError
from completion.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[1])


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_all(tmp_path_factory.mktemp("crops") / "raw", faces_and_holes("faces-64", 2)[0])


@pytest.mark.parametrize("words", [[], ["--solver", "thorough"], ["--candidates", "2", "--seed", "3"]])
def test_completion_runs_without_torch(tmp_path: Path, crops: Path, words: list[str]) -> None:
    output = tmp_path / "done"
    done = run_without_extras("--mask", "center", *words, "--report", tmp_path / "r.json", "--output", output, crops)
    assert done.returncode == 0, done.stderr
    completer = FaceCompleter.load("faces-64", "cpu", words[1] if "--solver" in words else "fast")
    count, seed = (2, 3) if "--candidates" in words else (1, 0)
    for name in ("000.png", "001.png"):
        completion = completer(crops / name, "center", candidates=count, seed=seed)
        assert np.array_equal(pixels(output / name), completion.pixels)


@pytest.mark.parametrize("words", [["--solver", "search"], ["--mask", "lowres"]])
def test_without_torch_a_search_says_in_one_line_what_to_install(tmp_path: Path, crops: Path, words: list[str]) -> None:
    done = run_without_extras("--mask", "center", *words, "--output", tmp_path / "done.png", crops / "000.png")
    assert done.returncode == 2
    advice = 'run in the project folder: pip install -e ".[train]"'
    assert done.stderr == f"completion: this needs torch, which is not installed; {advice}\n"
    assert not (tmp_path / "done.png").exists()


def test_a_whole_photo_is_completed_without_torch(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    photo = save(tmp_path / "a.png", astronaut)
    done = run_without_extras("--mask", "center", "--strip", photo, "--output", tmp_path / "done.png")
    assert done.returncode == 0, done.stderr
    changed = (pixels(tmp_path / "done.png") != astronaut).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert 1000 < changed.sum() < 10_000 and np.ptp(ys) < 100 and np.ptp(xs) < 100


def test_completion_sends_no_usage_data(tmp_path: Path, crops: Path) -> None:
    # ONNX Runtime keeps the number of its session in a file if it is about to send something.
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-m", "completion", "--mask", "center", "-o", str(tmp_path / "a.png")]
    for folder in (tmp_path / "home", tmp_path / "temporary"):
        folder.mkdir()
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    subprocess.run([*command, str(crops / "000.png")], check=True, timeout=600, env=environment)
    assert files(tmp_path) == ["a.png"]
