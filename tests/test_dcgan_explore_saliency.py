"""python -m dcgan explore saliency: guided back-propagation, and which faces a filter likes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import explore
from torch import Tensor, nn

from align.photo import read_photo
from dcgan.explore.saliency import gradient_shares, guided_gradient, responses
from dcgan.weights import Weights


def images(count: int = 3, size: int = 4) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_of_a_linear_net_it_is_the_weight_where_that_and_the_input_are_positive() -> None:
    network = nn.Sequential(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(48, 1))
    x = images()
    found = guided_gradient(network, x, lambda x: network(x)[:, 0])
    weight = network[2].weight.detach().view(1, 3, 4, 4)
    assert torch.equal(found, torch.where((x > 0) & (weight > 0), weight, 0))
    assert (found > 0).any() and (found == 0).any()


def test_only_positive_gradients_pass_each_unit() -> None:
    first, last = nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False)
    first.weight.data = torch.tensor([[1.0, -2, 0], [0, 1, 3]])
    last.weight.data = torch.tensor([[2.0, -1]])
    network = nn.Sequential(nn.Flatten(), first, nn.LeakyReLU(0.2), last)
    x = torch.ones(2, 3, 1, 1)
    x[0, 1] = -1  # the units are 3 and 2; then -1 and 4
    found = guided_gradient(network, x, lambda x: network(x)[:, 0])[:, :, 0, 0]
    assert torch.equal(found, torch.tensor([[2.0, -4, 0], [0, 0, 0]]))


def test_hooks_are_removed(small_weights: Weights) -> None:
    D = small_weights.discriminator
    x = images(2, 32)
    before = D(x)
    guided_gradient(D, x, D)
    assert not any(module._forward_hooks for module in D.modules())
    assert torch.equal(D(x), before)
    with pytest.raises(RuntimeError):
        guided_gradient(D, images(2, 4), D)
    assert not any(module._forward_hooks for module in D.modules())


def test_responses_are_the_strongest_of_each_filter(small_weights: Weights) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    D = small_weights.discriminator
    found = responses(D, faces, 0)
    assert found.shape == (70, 8)
    from dcgan.tensors import to_tensor

    assert torch.allclose(found[66:], D.features(to_tensor(faces[66:]))[0].amax(dim=(2, 3)))


def test_gradient_shares() -> None:
    inside, even = torch.zeros(1, 3, 20, 20), torch.ones(1, 3, 20, 20)
    inside[:, :, 10, 8:11] = 1
    assert (
        gradient_shares(inside)["share_on_eyes_nose_mouth"]
        == gradient_shares(inside)["share_in_strongest_tenth_of_pixels"]
        == 1
    )
    assert gradient_shares(even)["share_in_strongest_tenth_of_pixels"] == pytest.approx(0.1)
    assert gradient_shares(even)["share_on_eyes_nose_mouth"] == pytest.approx(
        gradient_shares(even)["area_of_eyes_nose_mouth"]
    )


def test_the_command_writes_picture_and_numbers(tmp_path: Path, small_weights_file: Path) -> None:
    words = ["--weights", small_weights_file, "--filters", 2]
    found = explore("saliency", tmp_path / "a", *words, "--count", 9)
    assert found["faces"] == 9 and found["layer"] == 2
    assert all(len(found[name]["filters"]) == 2 for name in ("trained", "random"))
    assert read_photo(tmp_path / "a" / "saliency.png").pixels.shape[0] > 4 * 32
    assert explore("saliency", tmp_path / "b", *words, "--count", 3, "--layer", 0)["layer"] == 0
