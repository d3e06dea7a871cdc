"""Networks, losses, tensors and config of the DCGAN."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d, interpolate

from align.errors import DeviceError
from dcgan import loss
from dcgan.augment import change_tones, draw_shifts, draw_tones, translate
from dcgan.config import PRESETS, Loss, NetworkConfig
from dcgan.device import pick_device
from dcgan.networks import Discriminator, Generator
from dcgan.sampling import sample_z
from dcgan.tensors import to_image, to_tensor

SMALL = NetworkConfig(size=16, nz=4, ngf=4, ndf=4)


def test_every_byte_survives_conversion_to_a_tensor_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(to_image(to_tensor(images)), images)
    assert to_tensor(images).min() == -1
    assert to_tensor(images).max() == 1


def test_to_image_clips_other_values() -> None:
    assert to_image(torch.tensor([-3.0, 3.0, 0.0]).reshape(1, 3, 1, 1)).tolist() == [[[[0, 255, 128]]]]


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize(("kernel", "upsample"), [(4, "nearest"), (4, "transposed"), (5, "transposed")])
def test_shapes_and_range(size: int, kernel: int, upsample: str) -> None:
    config = replace(SMALL, size=size, kernel=kernel, upsample=upsample)  # type: ignore[arg-type]
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
        PRESETS["paper"], batch=128, lr=2e-4, lr_end=2e-4, beta1=0.5, loss="non-saturating", r1=0, r2=0, ema_kimg=0
    )
    assert sample_z(1000, config, torch.Generator().manual_seed(0)).abs().max() <= 1


def test_he_keeps_the_scale_of_the_signal_through_d() -> None:
    torch.manual_seed(0)
    features = Discriminator(NetworkConfig()).features(torch.randn(2, 3, 64, 64))
    assert 0.5 < features[-1].square().mean().item() / features[0].square().mean().item() < 2


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        (
            "minimax",
            -(math.log(sigmoid(2) * sigmoid(-1)) + math.log((1 - sigmoid(0.5)) * (1 - sigmoid(1)))) / 2,
            math.log((1 - sigmoid(0.5)) * (1 - sigmoid(1))) / 2,
        ),
        (
            "non-saturating",
            -(math.log(sigmoid(2) * sigmoid(-1)) + math.log((1 - sigmoid(0.5)) * (1 - sigmoid(1)))) / 2,
            -math.log(sigmoid(0.5) * sigmoid(1)) / 2,
        ),
        ("ls", ((1**2 + 2**2) + (0.5**2 + 1**2)) / 4, (0.5**2 + 0**2) / 4),
        ("wgan-gp", 0.75 - 0.5, -0.75),
        ("hinge", ((0 + 2) + (1.5 + 2)) / 2, -0.75),
        (
            "relativistic",
            -math.log(sigmoid(2 - 0.5) * sigmoid(-1 - 1)) / 2,
            -math.log(sigmoid(0.5 - 2) * sigmoid(1 + 1)) / 2,
        ),
    ],
)
def test_losses_by_hand(name: str, d: float, g: float) -> None:
    assert loss.LOSSES[name].d(REAL, FAKE).item() == pytest.approx(d)
    assert loss.LOSSES[name].g(REAL, FAKE).item() == pytest.approx(g)


def test_the_config_lists_every_loss() -> None:
    assert set(get_args(Loss)) == set(loss.LOSSES)


def test_gradient_penalty_of_a_linear_d_is_its_squared_weight() -> None:
    weight = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = loss.gradient_penalty(images, (images * weight).sum(dim=(1, 2, 3)))
    assert penalty.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 2 * weight)


def test_lipschitz_penalty_of_a_linear_d_is_the_squared_distance_of_its_weight_from_1() -> None:
    weight = torch.full((3, 1, 1), math.sqrt(3.0), requires_grad=True)  # of length 3
    images = torch.randn(5, 3, 1, 1, requires_grad=True)
    penalty = loss.lipschitz_penalty(images, (images * weight).sum(dim=(1, 2, 3)))
    assert penalty.item() == pytest.approx((3 - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("network", ["dcgan", "mlp"])
def test_spectral_norm_makes_the_largest_singular_value_of_each_layer_1(network: str) -> None:
    torch.manual_seed(0)
    D = Discriminator(replace(SMALL, d_norm="spectral", network=network))
    for _ in range(50):  # of power iteration
        D(torch.randn(2, 3, 16, 16))
    D.eval()
    layers = [module for module in D.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1).detach())[0].item() == pytest.approx(1, rel=1e-2)
    assert len(layers) == 3


def test_the_mlp_has_256_and_512_units() -> None:
    config = NetworkConfig(network="mlp", nz=10)
    G, D = Generator(config), Discriminator(config)
    shapes = [tuple(module.weight.shape) for module in G.modules() if isinstance(module, torch.nn.Linear)]
    assert shapes == [(256, 10), (512, 256), (3 * 64 * 64, 512)]
    shapes = [tuple(module.weight.shape) for module in D.modules() if isinstance(module, torch.nn.Linear)]
    assert shapes == [(512, 3 * 64 * 64), (256, 512), (1, 256)]
    assert G(torch.randn(2, 10)).shape == (2, 3, 64, 64)
    assert D(G(torch.randn(2, 10))).shape == (2,)
    assert [tuple(value.shape) for value in D.features(G(torch.randn(2, 10)))] == [(2, 512), (2, 256)]


def test_nearest_upsampling_equals_an_upsampling_and_a_convolution() -> None:
    """The image, and the gradients of all weights; bias and no bias."""
    torch.manual_seed(0)
    G = Generator(replace(SMALL, size=32, upsample="nearest,nearest,grown")).double()
    z = torch.randn(2, 4, dtype=torch.double)

    def plain(hidden: torch.Tensor) -> torch.Tensor:
        for layer in G.layers:
            if isinstance(layer, torch.nn.Conv2d):
                hidden = interpolate(hidden, scale_factor=2)
                hidden = conv2d(hidden, layer.weight, layer.bias, padding=1)
            else:
                hidden = layer(hidden)
        return hidden

    images = [G(z), plain(z[:, :, None, None])]
    torch.testing.assert_close(*images)
    gradients = [torch.autograd.grad(image.square().sum(), list(G.parameters())) for image in images]
    torch.testing.assert_close(*gradients)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in G.layers) == 3


def test_a_shift_moves_pixels_and_fills_in_black() -> None:
    images = torch.rand(2, 3, 6, 6, requires_grad=True)
    moved = translate(images, torch.tensor([[2, -1], [0, 0]]), 2)
    assert torch.equal(moved[0, :, 2:, :5], images[0, :, :4, 1:])
    assert (moved[0, :, :2] == -1).all() and (moved[0, :, :, 5] == -1).all()
    assert torch.equal(moved[1], images[1])
    moved.sum().backward()
    assert images.grad is not None
    assert images.grad[0].sum() == 3 * 4 * 5  # pixels moved out get no gradient


def test_shifts_reach_both_bounds() -> None:
    shifts = draw_shifts(1000, 3, torch.Generator().manual_seed(0))
    assert shifts.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


def test_an_absent_device_is_an_error() -> None:
    assert pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "tpu", "meta"):
        with pytest.raises(DeviceError, match=name):
            pick_device(name)


@pytest.mark.parametrize(
    ("built", "capability", "supported"),
    [
        (["sm_80", "sm_90"], (9, 0), True),
        (["sm_80"], (8, 6), True),  # code for an earlier minor version runs
        (["sm_86"], (8, 0), False),
        (["sm_75", "sm_80"], (7, 0), False),
        (["sm_80", "sm_90a"], (12, 0), False),
        (["sm_80", "compute_90"], (12, 0), True),  # the driver compiles it
    ],
)
def test_a_gpu_that_torch_was_not_built_for_is_not_used(
    monkeypatch: pytest.MonkeyPatch, built: list[str], capability: tuple[int, int], supported: bool
) -> None:
    current: list[int] = []
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_arch_list": lambda: built,
        "get_device_capability": lambda device: capability,
        "get_device_name": lambda device: "Some GPU",
        "set_device": current.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    if supported:
        assert pick_device("auto").type == "cuda"
        assert pick_device("cuda:1") == torch.device("cuda:1")
        assert current == [0, 1]
    else:
        assert pick_device("auto").type == "cpu"
        with pytest.raises(DeviceError, match="Some GPU, which this build of torch does not support"):
            pick_device("cuda")
        assert not current


def test_tones_are_those_of_an_edited_photo() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    tones = torch.tensor([[0.0, 1, 0], [1, 1, 0], [0, 0.5, 0.25]])
    same, grey, flat = to_image(change_tones(to_tensor(pixels), tones)).astype(int)
    assert np.array_equal(same, pixels[0])
    expected = np.asarray(Image.fromarray(pixels[1]).convert("L"), dtype=int)
    assert np.abs(grey - expected[..., None]).max() <= 1
    assert np.abs(flat - (127.5 + (pixels[2] - 127.5) / 2 + 127.5 / 4)).max() <= 0.5 + 1e-3


def test_the_shares_of_tones_are_as_asked() -> None:
    grey, gain, offset = draw_tones(4000, 0.25, 0.5, torch.Generator().manual_seed(0)).T
    assert grey.unique().tolist() == [0, 1] and abs(grey.mean() - 0.25) < 0.03
    changed = gain != 1
    assert abs(changed.float().mean() - 0.5) < 0.03 and not offset[~changed].any()
    assert 0.6 <= gain.min() < 0.62 and 1.18 < gain.max() <= 1.2 and abs(offset).max() <= 0.2
    never = draw_tones(100, 0, 0, torch.Generator().manual_seed(0))
    assert torch.equal(never, torch.tensor([0.0, 1, 0]).expand(100, 3))
