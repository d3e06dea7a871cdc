"""G and D of the DCGAN (Radford, Metz and Chintala, ICLR 2016, section 3)."""

import math

import torch
from torch import Tensor, nn

from dcgan.config import NetworkConfig


class Generator(nn.Module):
    """z to an image: transposed convolutions, batch norm and ReLU in every layer but the last, which is a tanh."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        doublings = int(math.log2(config.size)) - 2  # from 4x4 to the full size
        channels = config.ngf * 2 ** (doublings - 1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(config.nz, channels, 4, bias=False),  # (N, 8 ngf, 4, 4) at size 64
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for _ in range(doublings - 1):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, config.kernel, 2, *_doubling(config.kernel), bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(),
            ]
            channels //= 2
        layers += [nn.ConvTranspose2d(channels, 3, config.kernel, 2, *_doubling(config.kernel)), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialise(self, config)

    def forward(self, z: Tensor) -> Tensor:
        """Z float32 (N, nz) to images (N, 3, S, S) in [-1, 1]."""
        return self.layers(z[:, :, None, None])


class Discriminator(nn.Module):
    """An image to a logit: strided convolutions and LeakyReLU(0.2), no pooling, no hidden fully connected layer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        halvings = int(math.log2(config.size)) - 2
        padding = (config.kernel - 1) // 2
        blocks: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(3, config.ndf, config.kernel, 2, padding), nn.LeakyReLU(0.2))
        ]
        channels = config.ndf
        for _ in range(halvings - 1):
            norm = config.d_norm == "batch"
            convolution = nn.Conv2d(channels, channels * 2, config.kernel, 2, padding, bias=not norm)
            blocks.append(
                nn.Sequential(convolution, *([nn.BatchNorm2d(channels * 2)] if norm else []), nn.LeakyReLU(0.2))
            )
            channels *= 2
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(channels, 1, 4)
        _initialise(self, config)

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of every block, from (N, ndf, S/2, S/2) down to (N, 8 ndf, 4, 4) at size 64."""
        found = []
        for block in self.blocks:
            images = block(images)
            found.append(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1] to logits (N,); above 0 means real, but only the classic loss fixes the 0."""
        return self.head(self.features(images)[-1]).flatten()


def sample_z(count: int, config: NetworkConfig, generator: torch.Generator) -> Tensor:
    """Draw z from the prior that G was trained with: float32 (count, nz)."""
    z = torch.empty(count, config.nz)
    if config.z_prior == "uniform":
        return z.uniform_(-1, 1, generator=generator)
    return z.normal_(generator=generator)


def _doubling(kernel: int) -> tuple[int, int]:
    """Padding and output padding with which a transposed convolution of stride 2 doubles the side exactly."""
    return (1, 0) if kernel == 4 else (2, 1)


def _initialise(network: nn.Module, config: NetworkConfig) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and config.init == "he":
            nn.init.kaiming_normal_(module.weight, a=0.2)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
