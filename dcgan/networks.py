"""G and D of the DCGAN (Radford, Metz and Chintala, ICLR 2016, section 3), and the encoder E of known pixels."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dcgan.config import NetworkConfig

_MLP_UNITS = (256, 512)  # of G; D has them in reverse


class Generator(nn.Module):
    """z to an image: transposed convolutions, batch norm and ReLU in every layer but the last, which is a tanh.

    With `upsample` nearest: nearest neighbours and 3x3 convolutions instead (Odena et al. 2016, "Deconvolution and
    checkerboard artifacts"). As an mlp: two hidden layers.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        if config.network == "mlp":
            widths = (config.nz, *_MLP_UNITS)
            for inside, outside in pairwise(widths):
                layers += [nn.Linear(inside, outside), nn.ReLU()]
            layers += [nn.Linear(widths[-1], 3 * config.size**2), nn.Unflatten(1, (3, config.size, config.size))]
        else:
            doublings = int(math.log2(config.size)) - 2  # from 4x4 to the full size
            channels = config.ngf * 2 ** (doublings - 1)
            layers.append(nn.ConvTranspose2d(config.nz, channels, 4, bias=False))  # (N, 8 ngf, 4, 4) at size 64
            for _ in range(doublings - 1):
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), *_doubled(config, channels, channels // 2, bias=False)]
                channels //= 2
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), *_doubled(config, channels, 3)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        _initialise(self, "dcgan")

    def forward(self, z: Tensor) -> Tensor:
        """Z float32 (N, nz) to images (N, 3, S, S) in [-1, 1]."""
        return self.layers(z if self.config.network == "mlp" else z[:, :, None, None])


class Discriminator(nn.Module):
    """An image to a logit: strided convolutions and LeakyReLU(0.2), no pooling, no hidden fully connected layer.

    As an mlp: two hidden layers.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        if config.network == "mlp":
            widths = (3 * config.size**2, *reversed(_MLP_UNITS))
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Flatten(), nn.Linear(inside, outside), nn.LeakyReLU(0.2))
                for inside, outside in pairwise(widths)
            )
            self.head: nn.Module = nn.Linear(widths[-1], 1)
        else:
            halvings = int(math.log2(config.size)) - 2
            widths = (3, *(config.ndf * 2**index for index in range(halvings)))
            self.blocks = nn.ModuleList()
            for index, (inside, outside) in enumerate(pairwise(widths)):
                norm = config.d_norm == "batch" and index > 0  # never on D's input
                convolution = nn.Conv2d(inside, outside, config.kernel, 2, (config.kernel - 1) // 2, bias=not norm)
                norms = [nn.BatchNorm2d(outside)] if norm else []
                self.blocks.append(nn.Sequential(convolution, *norms, nn.LeakyReLU(0.2)))
            self.head = nn.Conv2d(widths[-1], 1, 4)
        _initialise(self, config.init)
        if config.d_norm == "spectral":
            for module in [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]:
                spectral_norm(module)

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of every block, from (N, ndf, S/2, S/2) down to (N, 8 ndf, 4, 4) at size 64."""
        found = []
        for block in self.blocks:
            images = block(images)
            found.append(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1] to logits (N,); above 0 means real, unless the loss only compares."""
        return self.head(self.features(images)[-1]).flatten()


class Encoder(nn.Module):
    """The known pixels of an image and its hole to the z that G completes it with.

    Strided convolutions as in D, batch norm in all but the last layer.
    """

    def __init__(self, config: NetworkConfig, nef: int) -> None:
        super().__init__()
        self.config = config
        self.nef = nef
        halvings = int(math.log2(config.size)) - 2
        widths = (4, *(nef * 2**index for index in range(halvings)))
        hidden = widths[-1] // 2
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [nn.Conv2d(inside, outside, 4, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(widths[-1], hidden, 4, bias=False), nn.BatchNorm2d(hidden), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(hidden, config.nz, 1), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Tanh() if config.z_prior == "uniform" else nn.Identity())

    def forward(self, images: Tensor, hole: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1], hole bool (N or 1, 1, S, S) to z (N, nz); never reads under the hole."""
        known = torch.where(hole, 0.0, images)
        return self.layers(torch.cat([known, hole.expand_as(known[:, :1]).to(known.dtype)], dim=1))


def sample_z(count: int, config: NetworkConfig, generator: torch.Generator) -> Tensor:
    """Draw z from the prior that G was trained with: float32 (count, nz)."""
    z = torch.empty(count, config.nz)
    if config.z_prior == "uniform":
        return z.uniform_(-1, 1, generator=generator)
    return z.normal_(generator=generator)


def _doubled(config: NetworkConfig, inside: int, outside: int, bias: bool = True) -> list[nn.Module]:
    """Layers from (N, inside, S, S) to (N, outside, 2S, 2S)."""
    if config.upsample == "nearest":
        return [nn.Upsample(scale_factor=2), nn.Conv2d(inside, outside, 3, padding=1, bias=bias)]
    padding = (1, 0) if config.kernel == 4 else (2, 1)  # with which the side is doubled exactly
    return [nn.ConvTranspose2d(inside, outside, config.kernel, 2, *padding, bias=bias)]


def _initialise(network: nn.Module, rule: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and rule == "he":
            nn.init.kaiming_normal_(module.weight, a=0.2)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
