"""The locator's training: its data are right, it learns, resumes, and is exported."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import runs
import torch
from numpy.typing import NDArray
from pictures import NO_FACE, PORTRAIT, save
from scipy import ndimage

from align.__main__ import main as align
from align.locate import REACH, VIEW_PX, eyes_in_view, locate, view_of
from align.template import TEMPLATES
from align.warp import Alignment
from dcgan import locator
from dcgan.__main__ import main
from dcgan.checkpoint import CheckpointError
from dcgan.config import LocatorConfig
from dcgan.dataset import DatasetError
from dcgan.holes import TRAINING_KINDS
from dcgan.locator import Faces, Locator, create, export_locator, load_wide_faces, train_locator
from dcgan.run import read_stats

CPU = torch.device("cpu")
CONFIG = LocatorConfig(nef=1, kimg=0.016, batch=4, tick_kimg=0.004, sample_kimg=0.008)
WIDE = locator._WIDE_PX


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator, "_MEASURED", 16)
    monkeypatch.setattr(locator, "_SHOWN", 4)


def dotted(count: int) -> Faces:
    """Grey faces with a red left and a green right eye; the photo ends where the wide crop does, or a bit before."""
    eyes = view_of(Alignment.identity(VIEW_PX), WIDE, locator._WIDE_REACH).apply(
        np.array(TEMPLATES["face"].targets) * VIEW_PX
    )
    ys, xs = np.mgrid[:WIDE, :WIDE]
    pixels = np.full((WIDE, WIDE, 3), 60, dtype=np.uint8)
    for channel, (x, y) in enumerate(eyes):
        pixels[(xs - x) ** 2 + (ys - y) ** 2 < 25, channel] = 255
    side = np.array([(-0.5, -0.5), (WIDE - 0.5, -0.5), (WIDE - 0.5, WIDE - 0.5), (-0.5, WIDE - 0.5)])
    return Faces(np.stack([pixels] * count), np.stack([side] * count))


def test_the_shifts_say_where_the_eyes_of_a_view_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator, "_hole", lambda rng, moved: np.zeros((VIEW_PX, VIEW_PX), dtype=bool))
    monkeypatch.setattr(locator, "_recoloured", lambda view, rng: view)
    rng = np.random.default_rng(0)
    views, _, shifts = locator._batch(dotted(1), np.zeros(60, dtype=int), rng)
    apart = np.diff(eyes_in_view()[:, 0])
    flipped = 0
    for view, shift in zip(views.astype(float) - 60, shifts.numpy(), strict=True):
        expected = eyes_in_view() + apart * shift
        dots = [ndimage.center_of_mass(np.clip(view[..., channel], 0, None))[::-1] for channel in (0, 1)]
        if dots[0][0] > dots[1][0]:  # a mirrored face: its left eye is now on the right
            dots, flipped = dots[::-1], flipped + 1
        inside = np.all((expected > 8) & (expected < VIEW_PX - 8))
        if inside:
            assert np.array(dots) == pytest.approx(expected, abs=0.35)
    assert 15 < flipped < 45
    assert 0.01 < shifts.abs().median() < 0.2 and shifts.abs().max() > 0.3


def test_what_lies_beyond_the_photo_counts_as_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator, "_hole", lambda rng, moved: np.zeros((VIEW_PX, VIEW_PX), dtype=bool))
    faces = dotted(1)
    faces.corners[0, 1:3, 0] = WIDE / 2  # the photo has only a left half
    _, holes, _ = locator._batch(faces, np.zeros(20, dtype=int), np.random.default_rng(1))
    assert 0.4 < holes.mean() < 0.6
    left, right = holes[:, :, :10].mean(axis=(1, 2)), holes[:, :, -10:].mean(axis=(1, 2))
    assert (np.abs(left - right) > 0.8).mean() > 0.8  # which side depends on the flip


def test_holes_of_all_sizes_are_drawn() -> None:
    rng = np.random.default_rng(2)
    _, holes, _ = locator._batch(dotted(1), np.zeros(200, dtype=int), rng)
    shares = holes.mean(axis=(1, 2))
    assert shares.min() < 0.08 and shares.max() > 0.7 and 0.2 < shares.mean() < 0.6


def aligned_photos(folder: Path) -> tuple[Path, Path]:
    """A folder with one face, and its faces.jsonl."""
    save(folder / "raw/a/face.png", PORTRAIT)
    save(folder / "raw/none.png", NO_FACE)
    align([str(folder / "raw"), str(folder / "aligned"), "--quiet"])
    return folder / "raw", folder / "aligned/faces.jsonl"


def test_faces_are_cut_out_with_what_is_around_them(tmp_path: Path) -> None:
    photos, landmarks = aligned_photos(tmp_path)
    said: list[str] = []
    faces = load_wide_faces(photos, landmarks, said.append)
    [expected] = locate(PORTRAIT, TEMPLATES["face"], WIDE)
    wide = view_of(expected, WIDE, locator._WIDE_REACH)
    assert np.array_equal(faces.pixels, wide.warp(PORTRAIT)[None]) and not said
    height, width = PORTRAIT.shape[:2]
    assert faces.corners[0, 2] == pytest.approx(wide.apply(np.array([width - 0.5, height - 0.5])))
    assert REACH < locator._WIDE_REACH
    (tmp_path / "other").mkdir()
    with pytest.raises(DatasetError, match="no landmarks of photos in .*other; run python -m align"):
        load_wide_faces(tmp_path / "other", landmarks, said.append)
    (photos / "a/face.png").write_bytes(b"no photo")
    with pytest.raises(DatasetError):
        load_wide_faces(photos, landmarks, said.append)
    assert len(said) == 1 and "face.png" in said[0]


def test_the_error_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locator, "_RISE", 1)
    monkeypatch.setattr(locator, "_KINDS", [TRAINING_KINDS["stroke"]])  # larger holes take longer to learn
    config = replace(CONFIG, nef=4, kimg=1.6, batch=16, tick_kimg=0.16, sample_kimg=1.6, lr=3e-3)
    for _ in train_locator(config, dotted(8), tmp_path, CPU):
        pass
    errors = [line["error"] for line in read_stats(tmp_path)]
    assert len(errors) == 10 and errors[-1] < 0.8 * errors[0]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    runs.resumes_bit_equal(lambda folder: train_locator(CONFIG, dotted(3), folder, CPU), tmp_path, 8)
    assert sorted(path.name for path in (tmp_path / "whole/samples").iterdir()) == ["0000000008.png", "0000000016.png"]


def test_one_face_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="two or more"):
        next(train_locator(CONFIG, dotted(1), tmp_path, CPU))


def test_the_exported_locator_gives_what_torch_gives(tmp_path: Path) -> None:
    for _ in train_locator(CONFIG, dotted(3), tmp_path / "run", CPU):
        pass
    facts = export_locator(tmp_path / "run", tmp_path / "l.onnx")
    assert facts["images"] == 16 and facts["data_images"] == 3
    network = create(1)
    network.load_state_dict(torch.load(tmp_path / "run/checkpoint-0000000016.pt")["L"])
    rng = np.random.default_rng(0)
    crops: NDArray[np.uint8] = rng.integers(0, 256, (3, VIEW_PX, VIEW_PX, 3), dtype=np.uint8)
    holes = rng.random((3, VIEW_PX, VIEW_PX)) < 0.3
    with torch.no_grad():
        expected = Locator(network.eval())(torch.from_numpy(crops), torch.from_numpy(holes))
    session = onnxruntime.InferenceSession(tmp_path / "l.onnx")
    [shifts] = session.run(None, {"crops": crops, "holes": holes})
    assert shifts.shape == (3, 2, 2) and shifts == pytest.approx(expected.numpy(), abs=1e-3)
    assert json.loads(session.get_modelmeta().custom_metadata_map["facts"]) == facts
    with pytest.raises(CheckpointError, match="no checkpoint; expected a run folder of python -m dcgan locator"):
        export_locator(tmp_path / "none", tmp_path / "other.onnx")


def test_the_commands_train_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, landmarks = aligned_photos(tmp_path)
    save(photos / "b/face.png", PORTRAIT[:, ::-1])
    align([str(photos), str(tmp_path / "aligned"), "--quiet"])
    words = [str(photos), str(landmarks), "--output", str(tmp_path / "run"), "--nef", "1", "--kimg", "0.008"]
    assert main(["locator", *words, "--batch", "4", "--device", "cpu"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "l.safetensors")]) == 2
    assert "expected .onnx for a run of locator" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "l.onnx")]) == 0
    assert (tmp_path / "l.onnx").is_file() and (tmp_path / "run/losses.png").is_file()
