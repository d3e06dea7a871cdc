"""python -m dcgan evaluate: the table, the report, and the searches behind them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import save_all
from torch import Tensor

from align.cli import Progress
from align.photo import read_photo
from dcgan import evaluate as module
from dcgan.__main__ import main
from dcgan.config import EvaluateOptions
from dcgan.embeddings import EmbeddingError
from dcgan.evaluate import Evaluation, evaluate, reconstruct
from dcgan.sampling import sample_z
from dcgan.tensors import to_image
from dcgan.weights import Weights

FEW = ["--samples", "16", "--mre-faces", "4", "--mre-steps", "3", "--device", "cpu"]
OPTIONS = EvaluateOptions(samples=16, mre_faces=4, mre_steps=2)


def generated(weights: Weights, count: int, seed: int) -> NDArray[np.uint8]:
    z = sample_z(count, weights.generator.config, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return to_image(weights.generator(z))


def last(weights: Weights, *faces: Any, options: EvaluateOptions = OPTIONS) -> Evaluation:
    *steps, result = evaluate(weights, *faces, options)
    assert all(isinstance(step, Progress) and step.done <= step.total for step in steps)
    assert isinstance(result, Evaluation)
    return result


def figures(result: Evaluation) -> dict[str, tuple[float, float]]:
    return {figure.name: (figure.fake, figure.real) for figure in result.metrics}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dlib's detector, and with mean colours as face embeddings."""

    def embed(crops: NDArray[np.uint8], template: str, device: torch.device) -> NDArray[np.float64]:
        if template != "face":
            raise EmbeddingError("none")
        return crops.reshape(len(crops), 4, -1, 12).mean(axis=2).reshape(len(crops), -1) / 255

    monkeypatch.setattr(module, "embed", embed)
    monkeypatch.setattr(module, "faces_detected", lambda crops: crops.mean(axis=(1, 2, 3)) > 100)


def test_the_command_writes_table_report_and_pictures(
    tmp_path: Path, small_weights_file: Path, small_weights: Weights, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = generated(small_weights, 52, 1)
    val, train, out = save_all(tmp_path / "val", faces[:20]), save_all(tmp_path / "train", faces[20:]), tmp_path / "out"
    words = ["evaluate", str(small_weights_file), str(val), "--train", str(train), "--output", str(out), *FEW]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == f"{out / 'evaluation.json'}\n{out / 'evaluation.md'}\n"
    assert "| Frechet distance " in said.err
    record = json.loads((out / "evaluation.json").read_text())
    assert record["weights"]["sha256"] == small_weights.sha256
    assert record["faces"]["generated"] == record["faces"]["baseline"] == 16
    assert record["faces"]["searched by pixels"] == 32
    assert len(record["figures"]) == 15
    assert all(math.isfinite(figure[side]) for figure in record["figures"] for side in ("fake", "real"))
    report = (out / "evaluation.md").read_text()
    assert all(figure["name"] in report for figure in record["figures"])
    assert "{" not in report
    assert "mre_steps 3, mre_draws 256" in report and "training faces against validation faces" in report
    for name, shape in {
        "samples.png": (128, 128, 3),
        "reconstructions.png": (64, 12 * 32, 3),
        "neighbours.png": (96, 12 * 32, 3),
    }.items():
        assert name in report
        assert read_photo(out / name).pixels.shape == shape
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_without_training_faces_the_halves_are_the_baseline(small_weights: Weights) -> None:
    dark = np.full((20, 32, 32, 3), 40, dtype=np.uint8) + np.random.default_rng(0).integers(0, 9, (20, 32, 32, 3), "u1")
    result = last(small_weights, np.concatenate([dark, dark + 150]), None)
    assert "second half" in result.baseline
    assert result.counts["reference"] == 20 and result.counts["generated"] == result.counts["baseline"] == 16
    found = figures(result)
    assert found["precision"][1] == found["recall"][1] == 0
    assert found["face found"][1] == 0  # the baseline of the detector is the first half
    assert not any("training" in name for name in found) and "neighbours.png" not in result.pictures


@pytest.mark.usefixtures("quick")
def test_a_generator_that_has_memorised_faces_is_detected(
    small_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = np.random.default_rng(1).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    monkeypatch.setattr(module, "generate", lambda G, z: real[40 : 40 + len(z), :, ::-1].copy())
    flipped = figures(last(small_weights, real[:40], real[40:]))
    fake, baseline = flipped["nearest training face, pixels, median"]
    assert fake == pytest.approx(0, abs=1e-3) and baseline > 5
    assert flipped["nearest training face, embedding, median"][0] != 0
    monkeypatch.setattr(module, "generate", lambda G, z: real[40:][: len(z)])
    fake, baseline = figures(last(small_weights, real[:40], real[40:], options=EvaluateOptions(40, mre_faces=1)))[
        "nearest training face, embedding, median"
    ]
    assert fake == pytest.approx(0, abs=1e-6) and baseline > 0.01


@pytest.mark.usefixtures("quick")
def test_a_generator_of_one_face_collapses(small_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    monkeypatch.setattr(module, "generate", lambda G, z: real[:1].repeat(len(z), axis=0))
    found = figures(last(small_weights, real, None))
    assert found["MS-SSIM of pairs"][0] == pytest.approx(1)
    assert found["MS-SSIM of pairs"][1] < 0.2
    assert found["recall"][0] <= 1 / 20


@pytest.mark.usefixtures("quick")
def test_the_seed_decides_everything(small_weights: Weights) -> None:
    faces = generated(small_weights, 40, 1)
    first, again, other = (
        last(small_weights, faces, None, options=EvaluateOptions(16, seed, mre_faces=2, mre_steps=2))
        for seed in (0, 0, 1)
    )
    assert figures(first) == figures(again) != figures(other)
    assert np.array_equal(first.pictures["samples.png"], again.pictures["samples.png"])
    assert not np.array_equal(first.pictures["samples.png"], other.pictures["samples.png"])


def test_reconstruction_finds_generated_images(small_weights: Weights) -> None:
    own = generated(small_weights, 3, 7)
    errors = []
    for steps in (1, 100):
        found = reconstruct(small_weights.generator, own, EvaluateOptions(mre_steps=steps))
        errors.append(np.abs(found.astype(float) - own).mean(axis=(1, 2, 3)))
    assert errors[0].mean() > 5 * errors[1].mean()
    assert errors[1].max() < 1.5


def test_reconstruction_keeps_a_uniform_z_within_its_bounds(
    small_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    class Bounded(torch.nn.Module):
        config = type(small_weights.generator.config)(size=32, nz=8, ngf=8, ndf=8, z_prior="uniform")

        def __init__(self) -> None:
            super().__init__()
            self.inner = small_weights.generator

        def forward(self, z: Tensor) -> Tensor:
            seen.append(z.abs().max().item())
            return self.inner(z)

    beyond = to_image(small_weights.generator(torch.full((1, 8), 3.0)))
    reconstruct(Bounded(), beyond, EvaluateOptions(mre_steps=20))  # type: ignore[arg-type]
    assert max(seen) == 1


@pytest.mark.parametrize(
    ("count", "size", "words", "said"),
    [
        (0, 32, [], "val is not a folder"),
        (32, 32, ["--k", "16"], "k is 16; expected fewer than the 16 faces"),
        (31, 32, [], "31 validation faces and no training faces are too few"),
        (32, 32, ["--samples", "15"], "15 samples, 32 validation"),
        (32, 16, [], "has no 32x32 faces"),
        (32, 32, ["--train", "absent"], "absent is not a folder"),
    ],
)
def test_wrong_usage_ends_with_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_weights_file: Path,
    count: int, size: int, words: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if count:
        save_all(tmp_path / "val", np.zeros((count, size, size, 3), dtype=np.uint8))
    assert main(["evaluate", str(small_weights_file), "val", *words, "--device", "cpu"]) == 2
    *left_out, error = capsys.readouterr().err.splitlines()
    assert said in error and error.startswith("dcgan: ")
    assert size == 16 or not left_out
    assert not (tmp_path / "evaluation").exists()
