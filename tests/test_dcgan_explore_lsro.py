"""python -m dcgan explore lsro: the loss, and a fair comparison."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from align.photo import read_photo
from dcgan.__main__ import main
from dcgan.explore import lsro as module
from dcgan.explore.lsro import UNLABELLED, lsro_loss


def test_the_loss_is_the_cross_entropy_to_the_label_or_to_the_uniform_distribution() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 4, 2, 1, 0, 3])
    assert torch.allclose(lsro_loss(logits, labels), cross_entropy(logits, labels))
    uniform = torch.full((6, 5), 1 / 5)
    assert torch.allclose(lsro_loss(logits, torch.full((6,), UNLABELLED)), cross_entropy(logits, uniform))
    mixed = torch.tensor([0, UNLABELLED, 2, UNLABELLED, UNLABELLED, 3])
    parts = [
        cross_entropy(logits[row], uniform[row] if label == UNLABELLED else labels[row])
        for row, label in enumerate(mixed.tolist())
    ]
    assert torch.allclose(lsro_loss(logits, mixed), torch.stack(parts).mean())


def test_the_loss_of_a_sample_is_least_for_an_undecided_classifier() -> None:
    label = torch.tensor([UNLABELLED])
    assert float(lsro_loss(torch.full((1, 10), 3.0), label)) == pytest.approx(math.log(10), rel=1e-5)
    assert float(lsro_loss(torch.eye(10)[:1], label)) > math.log(10)


def test_the_classifier_learns_and_real_images_come_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(40) % 2
    real = (
        (2 * labels - 1)[:, None, None, None] * torch.ones(40, 3, 32, 32) * torch.linspace(0.5, 1, 40).view(-1, 1, 1, 1)
    )
    seen: list[list[int]] = []
    loss = module.lsro_loss

    def spy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(targets[: module.REAL_BATCH].tolist())
        assert (targets[module.REAL_BATCH :] == UNLABELLED).all()
        return loss(logits, targets)

    monkeypatch.setattr(module, "lsro_loss", spy)
    networks = [module.train_classifier(real, labels, fake, 30, 0) for fake in (None, torch.zeros(5, 3, 32, 32))]
    assert seen[:30] == seen[30:]
    for network in networks:
        assert (network(real).argmax(dim=1) == labels).all()
    with torch.no_grad():
        doubt = [float(network(torch.zeros(1, 3, 32, 32)).softmax(dim=1).max()) for network in networks]
    assert doubt[1] < 0.7  # pushed towards the uniform distribution


def test_the_command_writes_picture_and_numbers(tmp_path: Path, small_weights_file: Path) -> None:
    words = ["explore", "lsro", "--weights", str(small_weights_file), "--output", str(tmp_path), "--device", "cpu"]
    words += ["--samples", "8", "--steps", "20", "--runs", "2", "--labels", "3", "--most", "200"]
    assert main(words) == 0
    found = json.loads((tmp_path / "lsro.json").read_text())
    accuracy = found["accuracy"]
    assert found["tested"] == 200 and len(accuracy["with"]["runs"]) == 2
    assert accuracy["gain"]["mean"] == pytest.approx(accuracy["with"]["mean"] - accuracy["without"]["mean"])
    assert accuracy["without"]["mean"] > 0.2
    assert read_photo(tmp_path / "lsro.png").pixels.std() > 10
