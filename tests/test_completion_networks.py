"""Tests of the runtimes: ONNX Runtime against torch, which of them runs, and completion without torch."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from pictures import PORTRAIT, files, pixels, save, save_all

import weights
from align.errors import DeviceError
from completion import runtime
from completion.completer import FaceCompleter
from completion.config import SOLVERS
from completion.networks import by_size, open_weights, resolve, runner
from completion.one_pass import OnePass
from completion.runtime import OnnxGenerate
from completion.search import Search, TorchGenerate
from completion.step import Step
from dcgan.holes import HOLES, named_hole
from dcgan.sampling import generate, sample_z
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights, WeightsError, sealed

ENCODER = SOLVERS["encoder"]
ABSENT = "torch torchvision tensorboard skimage sklearn matplotlib onnx gradio ray"


def in_memory(name: str | Path) -> Weights:
    """Weights without a file, which torch runs."""
    found = Weights.open(name, "cpu")
    return Weights.of(found.generator, found.discriminator, encoder=found.encoder, completer=found.completer)


def faces_and_holes(name: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Generated faces, with each kind of hole in turn."""
    G = Weights.open(name, "cpu").generator
    faces = generate(G, sample_z(count, G.config, torch.Generator().manual_seed(7)))
    size, kinds = G.config.size, list(HOLES)
    landmarks = size * np.random.default_rng(1).uniform(0.3, 0.7, (68, 2))
    masks = [kinds[index % len(kinds)] for index in range(count)]
    return faces, np.stack([named_hole(mask, size, np.random.default_rng(2), landmarks) for mask in masks])


@pytest.mark.parametrize("name", weights.REGISTRY)
def test_onnx_runtime_and_torch_differ_by_one_level_and_keep_visible_pixels(name: str) -> None:
    crops, holes = faces_and_holes(name, len(HOLES))
    sources = Weights.open(name, "cpu"), in_memory(name)
    # Averaging both orientations rounds once more.
    for flip_sigma_px, levels in ((None, 1), (ENCODER.flip_sigma_px, 2)):
        solver = replace(ENCODER, flip_sigma_px=flip_sigma_px)
        steps: list[Step] = [next(iter(runner(source, solver).solve(crops, holes, solver))) for source in sources]
        assert steps[0].images.shape == steps[1].images.shape == (len(HOLES), 1, *crops.shape[1:])
        off = np.abs(steps[0].images.astype(int) - steps[1].images)
        assert off.max() <= levels and (off > 1).mean() < 1e-4
        assert steps[0].context == pytest.approx(steps[1].context, rel=0.02, abs=1)
    for source in sources:
        filled = FaceCompleter(source).complete_crops(crops[:4], holes[:4])
        assert np.array_equal(filled[~holes[:4]], crops[:4][~holes[:4]])
        assert not np.array_equal(filled[holes[:4]], crops[:4][holes[:4]])


@pytest.mark.parametrize("name", weights.REGISTRY)
def test_weights_are_kept_after_some_runs_with_the_same_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, open_session = [], runtime.open_session
    monkeypatch.setattr(runtime, "open_session", lambda *words: opened.append(words[-1]) or open_session(*words))
    source = Weights.open(name, "cpu")
    generate_faces = OnnxGenerate(source.onnx_path(), source.sha256, "cpu")
    crops, holes = faces_and_holes(name, 4)
    noise = np.zeros((1, source.network.nz), np.float32)
    first, *others = (generate_faces(crops, holes, noise) for _ in range(7))
    assert all(np.array_equal(first, other) for other in others) and opened == [True, False]


def test_one_pass_is_the_generator_at_the_encoders_z_with_noise(
    onnx_weights_file: Path, encoder_weights: Weights
) -> None:
    rng, E = np.random.default_rng(3), encoder_weights.encoder
    crops, holes = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8), rng.random((2, 32, 32)) < 0.3
    noise = rng.standard_normal((2, 8)).astype(np.float32)
    assert E is not None
    z, skips = E(to_tensor(crops.copy()), torch.from_numpy(holes)[:, None])
    expected = [to_image(encoder_weights.generator(z + torch.from_numpy(each), skips)).astype(int) for each in noise]
    hidden = np.where(holes[..., None], 255 - crops, crops)
    for make in (
        TorchGenerate(encoder_weights),
        OnnxGenerate(onnx_weights_file.with_suffix(".onnx"), encoder_weights.sha256, "cpu"),
    ):
        images = make(crops, holes, noise)
        assert np.abs(images.reshape(2, 2, 32, 32, 3) - np.stack(expected, axis=1)).max() <= 1
        assert np.array_equal(make(hidden, holes, noise), images)  # pixels under the holes have no effect


def test_the_solver_the_weights_and_the_device_choose_the_runtime(
    onnx_weights_file: Path, encoder_weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generates(source: Weights) -> type:
        made = runner(source, ENCODER)
        assert isinstance(made, OnePass) and not made.gpu
        return type(made._generate)

    for name in ("search", "paper", "bamos"):
        assert isinstance(runner(Weights.open(onnx_weights_file, "cpu"), SOLVERS[name]), Search)
    alone = Path(shutil.copy(onnx_weights_file, tmp_path / "alone.safetensors"))
    assert generates(Weights.open(onnx_weights_file, "cpu")) is OnnxGenerate
    assert generates(Weights.open(alone, "cpu")) is generates(encoder_weights) is TorchGenerate
    with pytest.raises(DeviceError, match="tpu"):
        Weights.open(onnx_weights_file, "tpu")
    with pytest.raises(DeviceError, match="cuda:99 is absent"):  # torch says so
        runner(Weights.open(onnx_weights_file, "cuda:99"), ENCODER)

    # A CUDA build on a machine without a GPU falls back to the CPU.
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(runtime, "has_cuda", lambda: True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: session(path, options))
    assert generates(Weights.open(onnx_weights_file, "auto")) is OnnxGenerate
    with pytest.raises(DeviceError, match="ONNX Runtime cannot use the device cuda:99"):
        runner(Weights.open(onnx_weights_file, "cuda:99"), ENCODER)


def test_fast_is_the_encoder_or_else_the_search(small_weights: Weights, encoder_weights: Weights) -> None:
    assert resolve("fast", encoder_weights) is resolve("encoder", encoder_weights) is SOLVERS["encoder"]
    assert resolve("fast", small_weights) is resolve("fast", encoder_weights, block=4) is SOLVERS["search"]
    assert resolve(ENCODER, encoder_weights) is ENCODER
    for name in ("encoder", "thorough"):
        with pytest.raises(WeightsError, match="no encoder; train one .python -m dcgan encode."):
            resolve(name, small_weights)


def test_auto_opens_all_weights_in_the_order_of_their_size() -> None:
    assert [weights.size for weights in open_weights("faces-128", "cpu")] == [128]
    assert list(by_size(open_weights("auto", "cpu")[::-1])) == [64, 128]


def test_damaged_changed_and_other_onnx_files_beside_weights_are_refused(
    tmp_path: Path, onnx_weights_file: Path
) -> None:
    path = Path(shutil.copy(onnx_weights_file, tmp_path / "e.safetensors"))
    crops, holes = np.zeros((1, 32, 32, 3), dtype=np.uint8), np.zeros((1, 32, 32), dtype=bool)
    whole = onnx_weights_file.with_suffix(".onnx").read_bytes()
    model = onnx.load_from_string(whole)
    for tensor in model.graph.initializer:  # other tensors with the same metadata
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values * 0, tensor.name)) if values.ndim > 1 else None
    floats = onnx.load_from_string(whole)
    floats.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    floats.graph.node.append(onnx.helper.make_node("Cast", ["faces"], ["wrong"], to=onnx.TensorProto.FLOAT))
    floats.graph.output[0].name = "wrong"
    other = (weights.FOLDER / "faces-64.onnx").read_bytes()
    for content, words in (
        (whole[:-1000], "damaged or changed.*dcgan export"),
        (model.SerializeToString(), "damaged or changed.*dcgan export"),
        (other, "damaged or changed"),
        (sealed(whole[:-1000]), "cannot be used.*dcgan export"),
        (sealed(other), "exported from other weights"),
        (sealed(floats.SerializeToString()), "gives float32 .2, 32, 32, 3.; expected uint8 .2, 32, 32, 3."),
    ):
        path.with_suffix(".onnx").write_bytes(content)
        with pytest.raises(WeightsError, match=words):
            list(runner(Weights.open(path, "cpu"), ENCODER).solve(crops, holes, ENCODER))


def test_completion_runs_without_torch_and_a_search_says_what_to_install(tmp_path: Path) -> None:
    crops = save_all(tmp_path / "raw", faces_and_holes("faces-64", 2)[0])
    photo = save(tmp_path / "photo.png", PORTRAIT)
    ways: dict[str, dict[str, Any]] = {}
    ways |= {"fast": {}, "thorough": {"solver": "thorough"}, "two": {"candidates": 2, "seed": 3}}
    commands = [
        ["-m=center", *(f"--{name}={value}" for name, value in way.items()), "--output", tmp_path / folder, crops]
        for folder, way in ways.items()
    ]
    commands += [["-m=center", "--output", tmp_path / "photo", photo, "--strip"]]
    torch_needed = (["-m=center", "--solver=search"], ["-m=lowres"])
    commands += [["--output", tmp_path / "none.png", photo, *words] for words in torch_needed]
    code = f"""
import json, sys
sys.modules.update(dict.fromkeys({ABSENT.split()!r}))  # importing them raises ModuleNotFoundError
from completion.__main__ import main
print([main(["--quiet", *words]) for words in json.loads(sys.argv[1])])"""
    words = [sys.executable, "-c", code, json.dumps(commands, default=str)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[1])
    assert done.stdout == "[0, 0, 0, 0, 2, 2]\n", done.stderr
    advice = 'run in the project folder: pip install -e ".[train]"'
    assert done.stderr == f"completion: this needs torch, which is not installed; {advice}\n" * 2
    assert not (tmp_path / "none.png").exists()
    completer = FaceCompleter.load(device="cpu")
    for folder, way in ways.items():
        for name in ("000.png", "001.png"):
            assert np.array_equal(pixels(tmp_path / folder / name), completer(crops / name, "center", **way).pixels)
    assert np.array_equal(pixels(tmp_path / "photo" / "photo.png"), completer(photo, "center").pixels)


def test_completion_sends_no_usage_data(tmp_path: Path) -> None:
    # ONNX Runtime keeps the number of its session in a file if it is about to send something.
    crop = save(tmp_path / "a.png", faces_and_holes("faces-64", 1)[0][0])
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for name in ("HOME", "TMPDIR"):
        (tmp_path / name).mkdir()
        environment[name] = str(tmp_path / name)
    command = [sys.executable, "-m", "completion", "--mask", "center", "-o", str(tmp_path / "done.png"), str(crop)]
    subprocess.run(command, check=True, timeout=600, env=environment)
    assert files(tmp_path) == ["a.png", "done.png"]
