"""The training of the octave network: what it sees, learns and exports."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import runs
import torch
from numpy.typing import NDArray
from pictures import save_all

from dcgan import octave
from dcgan.__main__ import main
from dcgan.checkpoint import load_run
from dcgan.config import OctaveConfig
from dcgan.dataset import DatasetError
from dcgan.octave import Octave, seen_by, train_octave
from dcgan.run import read_stats
from dcgan.weights import Weights, WeightsError

Faces = NDArray[np.uint8]
CPU = torch.device("cpu")
CONFIG = OctaveConfig(kimg=0.008, batch=2, tick_kimg=0.002, sample_kimg=0.004, width=3)


@pytest.fixture
def faces() -> Faces:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    return np.stack([cv2.GaussianBlur(each, (0, 0), 1) for each in noise])


def test_the_network_sees_image_hole_mirror_image_and_position() -> None:
    images, holes = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    holes[..., 2:4, 1] = True
    seen = seen_by(images, holes)[0]
    assert torch.equal(seen[:3], images[0]) and torch.equal(seen[3] > 0, holes[0, 0])
    assert torch.equal(seen[4:8], seen[:4].flip(2))
    assert seen[8, 5].tolist() == pytest.approx([-0.875, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625, 0.875])
    assert torch.equal(seen[9], seen[8].T)


def test_visible_pixels_stay(faces: Faces) -> None:
    torch.manual_seed(0)
    crops, holes = torch.from_numpy(faces), torch.rand(4, 64, 64) < 0.5
    with torch.no_grad():
        made = Octave(3)(crops, holes)
    assert torch.equal(made[~holes], crops[~holes]) and not torch.equal(made, crops)


def test_the_colour_at_the_edge_continues_into_a_hole() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane = torch.stack([x, y, torch.full_like(x, 7)])[None]
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 16:48, 20:44] = True
    found = octave._membrane(torch.where(hole, 1e6, plane), hole)  # what is inside is not read
    assert (found - plane)[hole.expand_as(plane)].abs().max() < 6
    assert (found - plane)[:, 2][hole[:, 0]].abs().max() < 1e-3
    assert torch.equal(octave._membrane(plane, torch.ones_like(hole)), torch.zeros_like(plane))


def test_what_it_shall_make_is_as_soft_as_the_photo(encoder_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(octave, "_noisy", lambda face, rng: face)
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3)).astype(np.uint8)
    seen, target = octave._Completer(encoder_weights, CPU)(noise, np.random.default_rng(0))
    large = [(image, hole > 0) for image, hole in zip(target, seen[:, 3], strict=True) if 0.1 < hole.mean() < 0.9]
    pairs = [(image[:, hole].std(), image[:, ~hole].std()) for image, hole in large]
    assert all(0.8 < made / visible < 1.25 for made, visible in pairs)
    spread = [float(visible) for _, visible in pairs]
    assert 0.15 < np.mean(np.array(spread) < 0.8 * max(spread)) < 0.45  # three in ten are blurred


def test_network_and_critic_learn(
    encoder_weights: Weights, faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octave, "_BOX_PX", 32)
    monkeypatch.setattr(octave, "_RISE", 1)
    config = replace(CONFIG, kimg=0.24, batch=4, tick_kimg=0.24, sample_kimg=0.24, adversarial_weight=1e-3)
    config = replace(config, perceptual_weight=0.1)

    def last(lr: float) -> dict[str, float]:
        for _ in train_octave(replace(config, lr=lr, lr_end=lr), encoder_weights, faces, tmp_path / str(lr), CPU):
            pass
        return read_stats(tmp_path / str(lr))[-1]

    idle, learnt = last(1e-9), last(1e-2)
    print({k: (idle[k], learnt[k]) for k in idle})
    assert learnt["image"] < 0.9 * idle["image"] and learnt["perceptual"] < idle["perceptual"]
    assert learnt["psnr_hole"] > idle["psnr_hole"] + 0.5
    assert learnt["detail"] != idle["detail"] > 0
    assert learnt["adversarial"] > 1.1e-3 * math.log(2)  # the loss of a critic that cannot tell them apart is log 2


def test_a_resumed_run_equals_an_uninterrupted_one(encoder_weights: Weights, faces: Faces, tmp_path: Path) -> None:
    runs.resumes_bit_equal(lambda folder: train_octave(CONFIG, encoder_weights, faces, folder, CPU), tmp_path, 4)


def test_too_few_faces_and_weights_without_an_encoder_are_refused(
    encoder_weights: Weights, small_weights: Weights, faces: Faces, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="there is 1 face"):
        next(train_octave(CONFIG, encoder_weights, faces[:1], tmp_path, CPU))
    with pytest.raises(WeightsError, match="no encoder"):
        next(train_octave(CONFIG, small_weights, faces, tmp_path, CPU))


def test_the_commands_train_export_and_continue(
    encoder_weights_file: Path, faces: Faces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aligned, run, file = save_all(tmp_path / "aligned", faces), tmp_path / "run", tmp_path / "octave.onnx"
    words = [
        "--weights",
        str(encoder_weights_file),
        "--kimg",
        "0.004",
        "--batch",
        "2",
        "--width",
        "3",
        "--device",
        "cpu",
    ]
    assert main(["octave", str(aligned), "--output", str(run), *words]) == 0
    assert main(["export", str(run), str(file)]) == 0
    network = Octave(3)
    saved = load_run(run, "octave")
    assert not all(torch.equal(value, saved["O"][name]) for name, value in saved["ema"].items())
    network.load_state_dict(saved["ema"])
    holes = np.random.default_rng(0).random((2, 96, 96)) < 0.5
    crops = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)  # another size than in training
    with torch.no_grad():
        expected = network(torch.from_numpy(crops), torch.from_numpy(holes)).numpy()
    session = onnxruntime.InferenceSession(file)
    [found] = session.run(None, {"crops": crops, "holes": holes})
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert json.loads(session.get_modelmeta().custom_metadata_map["facts"])["images"] == 4

    # The exported network is a start, if its width fits.
    further = ["octave", str(aligned), "--output", str(tmp_path / "further"), *words, "--start", str(file)]
    assert main([*further, "--width", "6"]) == 2 and "no octave network of this width" in capsys.readouterr().err
    assert main([*further, "--lr", "1e-9"]) == 0
    continued = load_run(tmp_path / "further", "octave")["ema"]
    assert all((value - network.state_dict()[name]).abs().max() < 1e-3 for name, value in continued.items())
