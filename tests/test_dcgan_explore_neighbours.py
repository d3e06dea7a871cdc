"""python -m dcgan explore neighbours: a sample that was remembered stands beside itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import save_all
from runs import explore

from align.photo import read_photo
from dcgan.__main__ import main
from dcgan.metrics import nearest, nearest_few
from dcgan.sampling import generate, sample_z
from dcgan.weights import Weights


def test_the_nearest_few_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1100, 5)), rng.normal(size=(40, 5))
    table = np.linalg.norm(a[:, None] - b, axis=2)
    distances, indices = nearest_few(a, b, 3)
    assert np.array_equal(indices, table.argsort(axis=1)[:, :3])
    assert np.allclose(distances, np.sort(table, axis=1)[:, :3])
    assert np.array_equal(nearest(a, b)[1], indices[:, 0])
    assert np.array_equal(nearest_few(a, b[:3], 3)[1], table[:, :3].argsort(axis=1))


def test_the_command_finds_memorised_faces(
    tmp_path: Path, small_weights_file: Path, small_weights: Weights, capsys: pytest.CaptureFixture[str]
) -> None:
    z = sample_z(4, small_weights.generator.config, torch.Generator().manual_seed(3))
    own = generate(small_weights.generator, z)
    training = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    training[5], training[2] = own[1], own[3, :, ::-1]
    folder = save_all(tmp_path / "faces", training)
    words = [folder, "--weights", small_weights_file, "--seed", 3, "--count", 4]
    found = explore("neighbours", tmp_path / "out", *words)
    assert found["searched_by_embedding"] == found["searched_by_pixels"] == 8
    assert found["pixel_distance_levels"]["nearest"][1] == found["pixel_distance_levels"]["nearest"][3] == 0
    assert min(found["pixel_distance_levels"]["nearest"][index] for index in (0, 2)) > 1
    assert found["embedding_distance"]["nearest"][1] < 1e-3
    picture = read_photo(tmp_path / "out" / "neighbours.png").pixels
    left = picture.shape[1] - 11 * 32
    row = picture[-3 * 32 : -2 * 32, left:]
    for column in (0, 1, 6):  # the sample, and what comes nearest by either
        assert np.array_equal(row[:, column * 32 : (column + 1) * 32], own[1])
    assert np.array_equal(picture[-32:, left + 6 * 32 : left + 7 * 32], own[3])  # mirrored back
    capsys.readouterr()
    for index in range(4):
        (folder / f"{index:03d}.png").unlink()
    assert main(["explore", "neighbours", *map(str, words), "--output", str(tmp_path / "two")]) == 2
    assert "4 training faces" in capsys.readouterr().err
