"""python -m dcgan explore forget: which maps go with a label, and what is left without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from runs import explore

from align.photo import read_photo
from dcgan.explore import forget as module
from dcgan.explore.arithmetic import LABELS
from dcgan.explore.forget import feature_maps, generate_without, hidden_layers, tied_maps
from dcgan.sampling import generate, sample_z
from dcgan.tensors import to_image
from dcgan.weights import Weights


def z_of(weights: Weights, count: int = 70) -> torch.Tensor:
    return sample_z(count, weights.generator.config, torch.Generator().manual_seed(0))


def light(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    return dict.fromkeys(LABELS, faces.mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_dropping_no_map_changes_nothing_and_all_of_them_leaves_one_image(small_weights: Weights, layer: int) -> None:
    G, z = small_weights.generator, z_of(small_weights)
    assert hidden_layers(G) == 3
    assert np.array_equal(generate_without(G, z, layer, ()), generate(G, z))
    channels = feature_maps(G, z, layer).shape[1]
    nothing = generate_without(G, z, layer, range(channels))
    assert (nothing == nothing[0]).all() and not np.array_equal(nothing[0], generate(G, z)[0])


def test_maps_are_those_of_the_layer_and_dropped_ones_are_0(small_weights: Weights) -> None:
    G, z = small_weights.generator, z_of(small_weights)
    layers = list(G.layers)
    second = [index for index, layer in enumerate(layers) if isinstance(layer, torch.nn.ReLU)][1] + 1
    with torch.inference_mode():
        hidden = z[:, :, None, None]
        for layer in layers[:second]:
            hidden = layer(hidden)
        found = feature_maps(G, z, 1)
        assert found.shape == (70, 16, 8, 8) and torch.allclose(found, hidden, atol=1e-6)
        hidden[:, [3, 5]] = 0
        for layer in layers[second:]:
            hidden = layer(hidden)
    assert np.abs(generate_without(G, z, 1, [5, 3]).astype(int) - to_image(hidden)).max() <= 1


def test_maps_tied_to_a_label_are_found_strongest_first() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6)).astype(np.float32)
    features[:, 5] = 1  # constant
    has = 100 * features[:, 2] + 30 * features[:, 4] - 50 * features[:, 1] > 0
    tied = tied_maps(features * 1000, has)
    assert tied[:2] == [2, 4]
    assert 1 not in tied and 5 not in tied


def test_the_command_makes_the_label_rarer(
    tmp_path: Path, small_weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "measure", light)
    words = ["--weights", small_weights_file, "--count", 200, "--drop", 1, 1000, "--layer", 1]
    found = explore("forget", tmp_path, *words)
    assert found["layer"] == 1 and found["maps"] == 16 and 1 < len(found["tied_maps"]) < 16
    none, one, every = found["dropped"]
    assert none["maps"] == 0 and none["tied"] == none["random"] and none["tied"]["mean_change_levels"] == 0
    assert one["maps"] == 1 and every["maps"] == len(found["tied_maps"])
    assert every["tied"]["has_label"] < 0.5 * none["tied"]["has_label"]
    assert read_photo(tmp_path / "forget.png").pixels.shape[0] == 5 * 32
