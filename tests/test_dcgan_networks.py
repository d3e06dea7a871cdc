"""Networks, losses, tensors and config of the DCGAN."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dcgan import loss
from dcgan.config import PRESETS, ConfigError, NetworkConfig, TrainConfig, network_config
from dcgan.device import DeviceError, pick_device
from dcgan.networks import Discriminator, Generator, sample_z
from dcgan.tensors import to_image, to_tensor

SMALL = NetworkConfig(size=16, nz=4, ngf=4, ndf=4)


def test_every_byte_survives_the_way_to_a_tensor_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(to_image(to_tensor(images)), images)
    assert to_tensor(images).min() == -1
    assert to_tensor(images).max() == 1


def test_to_image_clips_what_lies_beyond() -> None:
    assert to_image(torch.tensor([-3.0, 3.0, 0.0]).reshape(1, 3, 1, 1)).tolist() == [[[[0, 255, 128]]]]


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("kernel", [4, 5])
def test_shapes_and_range(size: int, kernel: int) -> None:
    config = replace(SMALL, size=size, kernel=kernel)
    images = Generator(config)(torch.randn(2, 4))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert Discriminator(config)(images).shape == (2,)
    assert Discriminator(config).features(images)[-1].shape[2:] == (4, 4)


def test_the_paper_preset_keeps_the_five_guidelines() -> None:
    config = PRESETS["paper"].network
    G, D = Generator(config), Discriminator(config)
    kinds_g = [type(module).__name__ for module in G.layers]
    assert kinds_g == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 4 + ["ConvTranspose2d", "Tanh"]
    kinds_d = [type(module).__name__ for module in D.modules() if not list(module.children())]
    assert kinds_d == ["Conv2d", "LeakyReLU"] + ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 3 + ["Conv2d"]
    assert {module.negative_slope for module in D.modules() if isinstance(module, torch.nn.LeakyReLU)} == {0.2}
    channels = [module.in_channels for module in G.layers if isinstance(module, torch.nn.ConvTranspose2d)]
    assert channels == [100, 1024, 512, 256, 128]
    weight = G.layers[3].weight
    assert isinstance(weight, torch.Tensor)
    assert weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert PRESETS["paper"] == replace(
        PRESETS["paper"], batch=128, lr=2e-4, lr_end=2e-4, beta1=0.5, loss="classic", gamma=0, ema_kimg=0
    )
    assert sample_z(1000, config, torch.Generator().manual_seed(0)).abs().max() <= 1


def test_he_keeps_the_scale_of_the_signal_through_d() -> None:
    torch.manual_seed(0)
    features = Discriminator(NetworkConfig()).features(torch.randn(2, 3, 64, 64))
    assert 0.5 < features[-1].square().mean().item() / features[0].square().mean().item() < 2


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    classic = (
        -(math.log(sigmoid(2)) + math.log(sigmoid(-1)) + math.log(1 - sigmoid(0.5)) + math.log(1 - sigmoid(1))) / 2
    )
    assert loss.classic_d(real, fake).item() == pytest.approx(classic)
    assert loss.classic_g(fake).item() == pytest.approx(-(math.log(sigmoid(0.5)) + math.log(sigmoid(1))) / 2)
    paired = -(math.log(sigmoid(2 - 0.5)) + math.log(sigmoid(-1 - 1))) / 2
    assert loss.relativistic_d(real, fake).item() == pytest.approx(paired)
    assert loss.relativistic_g(real, fake).item() == pytest.approx(loss.relativistic_d(fake, real).item())


def test_the_classic_loss_of_a_d_that_knows_nothing_is_log_4() -> None:
    nothing = torch.zeros(3)
    assert loss.classic_d(nothing, nothing).item() == pytest.approx(math.log(4))


def test_gradient_penalty_of_a_linear_d_is_its_squared_weight() -> None:
    weight = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = loss.gradient_penalty(images, (images * weight).sum(dim=(1, 2, 3)))
    assert penalty.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 2 * weight)


@pytest.mark.parametrize(
    "values", [{"size": 48}, {"nz": 0}, {"z_prior": "cauchy"}, {"kernel": 3}, {"d_norm": "layer"}, {"init": "zero"}]
)
def test_a_network_that_cannot_be_built_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        replace(NetworkConfig(), **values)


@pytest.mark.parametrize("values", [{"batch": 0}, {"lr": 0}, {"gamma": -1}, {"loss": "hinge"}, {"precision": "fp8"}])
def test_a_run_that_cannot_be_made_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        replace(TrainConfig(), **values)


def test_network_settings_of_another_version_are_refused() -> None:
    with pytest.raises(ConfigError, match="another version"):
        network_config({"size": 64})


def test_fault_49_an_absent_device_is_an_error() -> None:
    assert pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "tpu", "meta"):
        with pytest.raises(DeviceError, match=name):
            pick_device(name)
