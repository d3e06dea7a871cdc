"""The finder's training: it learns, resumes, and is exported."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import runs
import torch
from pictures import FACE, PORTRAIT, save

from dcgan import finder
from dcgan.__main__ import main
from dcgan.config import FinderConfig
from dcgan.dataset import DatasetError
from dcgan.finder import Finder, export_finder, finder_losses, load_photos, train_finder
from dcgan.run import read_stats

CPU = torch.device("cpu")
CONFIG = FinderConfig(kimg=0.008, batch=2, tick_kimg=0.002, sample_kimg=0.004)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "CROP_PX", 32)
    monkeypatch.setattr(finder, "_WIDTHS", (4, 4, 4, 4))
    monkeypatch.setattr(finder, "_MEASURED", 8)
    monkeypatch.setattr(finder, "_SHOWN", 4)


def test_photos_are_read_reduced_and_unusable_ones_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_KEPT_PX", 100)
    for name in ("one/a.png", "two/sub/b.png"):
        save(tmp_path / name, PORTRAIT)
    (tmp_path / "one/broken.jpg").write_bytes(b"no photo")
    said: list[str] = []
    photos = load_photos([tmp_path / "one", tmp_path / "two"], said.append)
    assert [max(photo.shape) for photo in photos] == [100, 100] and len(said) == 1 and "broken.jpg" in said[0]
    with pytest.raises(DatasetError, match="found 1 photo; expected two or more"):
        load_photos([tmp_path / "one"], said.append)


def test_the_losses_are_zero_for_what_is_right_and_hardly_count_the_pixels_beside_damage() -> None:
    holes = torch.zeros(1, 1, 16, 16)
    holes[..., 4:8, 4:8] = 1
    sure = 40 * holes - 20
    assert all(loss < 0.04 for loss in finder_losses(sure, holes).values())
    beside, far = sure.clone(), sure.clone()
    beside[..., 8, 4] = far[..., 12, 4] = 20  # one false pixel
    near, away = (float(finder_losses(each, holes)["entropy"]) for each in (beside, far))
    assert near == pytest.approx(0.3 * away, rel=1e-3) and away > 0.05
    assert finder_losses(-sure, holes)["dice"] > 0.9


def test_the_losses_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_RISE", 1)
    config = replace(CONFIG, kimg=1.6, batch=16, tick_kimg=0.16, sample_kimg=1.6, lr=1e-2)
    for _ in train_finder(config, [PORTRAIT, PORTRAIT[::-1], PORTRAIT[:, ::-1]], tmp_path, CPU):
        pass
    lines = read_stats(tmp_path)
    assert len(lines) == 10 and lines[-1]["entropy"] < 0.95 * lines[0]["entropy"]
    assert {"iou", "precision", "recall", "clean"} <= lines[-1].keys()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    runs.resumes_bit_equal(lambda folder: train_finder(CONFIG, [FACE, PORTRAIT], folder, CPU), tmp_path, 4)


def test_the_commands_train_and_export_what_torch_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "photos" / name, PORTRAIT)
    run, file = tmp_path / "run", tmp_path / "finder.onnx"
    words = ["--output", str(run), "--kimg", "0.004", "--batch", "2", "--device", "cpu"]
    assert main(["damage", str(tmp_path / "photos"), *words]) == 0
    assert main(["export", str(run), str(tmp_path / "f.safetensors")]) == 2
    assert "expected .onnx for a run of damage" in capsys.readouterr().err
    assert main(["export", str(run), str(file)]) == 0 and (run / "losses.png").is_file()
    network = Finder()
    network.load_state_dict(torch.load(run / "checkpoint-0000000004.pt")["F"])
    tiles = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), dtype=np.uint8)  # another size than in training
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(tiles)).numpy()
    session = onnxruntime.InferenceSession(file)
    [found] = session.run(None, {"tiles": tiles})
    assert found.shape == (2, 48, 80) and np.abs(found.astype(int) - expected).max() <= 1
    facts = json.loads(session.get_modelmeta().custom_metadata_map["facts"])
    assert facts["images"] == 4 and facts["data_images"] == 2
    assert export_finder(run, tmp_path / "again.onnx") == facts
