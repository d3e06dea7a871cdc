"""python -m dcgan explore features: the classifier, the features, the data."""

from pathlib import Path

import numpy as np
import pytest
from runs import explore

from align.photo import read_photo
from dcgan.dataset import DatasetError
from dcgan.explore.features import Labelled, PatchFeatures, accuracy, d_features, load_digits, raw_pixels
from dcgan.tensors import to_tensor
from dcgan.weights import Weights


def test_the_svm_separates_clear_features_and_guesses_on_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    noise = rng.normal(size=(300, 6)).astype(np.float32)
    test = np.arange(300) >= 150
    clear = noise + 8 * np.eye(3, 6, dtype=np.float32)[labels]
    assert accuracy(clear, labels, np.arange(150), test) == 1
    assert accuracy(1000 * clear + 7, labels, np.arange(150), test) == 1
    assert 0.15 < accuracy(noise, labels, np.arange(150), test) < 0.55


def test_features_of_d_are_the_maxima_of_its_layers(small_weights: Weights) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    D = small_weights.discriminator
    found = d_features(D, images)
    assert found.shape == (3, 16 * (8 + 16 + 32))
    first, _, last = D.features(to_tensor(images))
    assert found[1, 0] == first[1, 0, :4, :4].max()
    assert np.allclose(found[:, -16 * 32 :], last.flatten(1))


def test_patch_features_separate_stripes_and_their_positions() -> None:
    images = np.full((40, 32, 32, 3), 128, dtype=np.uint8)
    images[::2, :, ::4] = 255
    images[1::2, ::4] = 255
    extract = PatchFeatures(images, 0)
    found = extract(images)
    assert found.shape == (40, 256)
    assert np.array_equal(found[0], found[2]) and np.abs(found[0] - found[1]).max() > 0.1
    half = images[:1].copy()
    half[:, 16:] = 128
    quarters = [np.abs(extract(half) - found[0]).reshape(64, 2, 2)[:, row].max() for row in (0, 1)]
    assert quarters[0] < 0.2 * quarters[1]


def test_raw_pixels_are_means() -> None:
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    image[:, 0, 0] = 204
    assert raw_pixels(image).reshape(3, 32, 32)[0, 0, 0] == pytest.approx(51 / 127.5 - 1)


def test_draws_cover_every_class_without_test_images() -> None:
    data = Labelled(np.zeros((40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4, np.arange(40) >= 20)
    rows = data.draw(3, np.random.default_rng(0))
    assert np.bincount(data.labels[rows]).tolist() == [3] * 4 and not data.test[rows].any()
    assert len(set(rows.tolist())) == 12
    with pytest.raises(DatasetError, match="smallest class has 5 training images; expected at least 6"):
        data.draw(6, np.random.default_rng(0))


def test_digits_are_drawn_by_the_seed() -> None:
    data, again, other = (load_digits(32, seed) for seed in (0, 0, 1))
    assert data.images.shape == (1797, 32, 32, 3) and data.test.sum() == 898 and set(data.labels) == set(range(10))
    assert np.array_equal(again.images, data.images) and not np.array_equal(other.images, data.images)
    assert data.images[data.labels == 0, 14:18, 14:18].mean() < data.images[data.labels == 8, 14:18, 14:18].mean()


def test_the_command_writes_picture_and_numbers(tmp_path: Path, small_weights_file: Path) -> None:
    found = explore("features", tmp_path, "--weights", small_weights_file, "--labels", 5, "--draws", 1)
    assert list(found["accuracy"]) == ["D", "untrained D", "k-means patches", "pixels"]
    assert found["classes"] == 10 and found["tested"] == 898
    assert all(0.5 < found["accuracy"][kind]["5"]["mean"] < 1 for kind in found["accuracy"])
    assert read_photo(tmp_path / "features.png").pixels.std() > 10
