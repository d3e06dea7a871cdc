"""G and D of the DCGAN (Radford, Metz and Chintala, ICLR 2016, section 3), and the encoder E of known pixels."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d
from torch.nn.utils.parametrizations import spectral_norm

from dcgan.config import NetworkConfig

_MLP_UNITS = (256, 512)  # of G; D has them in reverse
SLOPE = 0.2  # of every LeakyReLU

Skip = Callable[[Tensor], Tensor]  # a hidden layer of G to what is added to it


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
            units = (config.nz, *_MLP_UNITS)
            for inside, outside in pairwise(units):
                layers += [nn.Linear(inside, outside), nn.ReLU()]
            layers += [nn.Linear(units[-1], 3 * config.size**2), nn.Unflatten(1, (3, config.size, config.size))]
        else:
            widths = [config.ngf * 2**index for index in reversed(range(config.doublings))] + [3]
            first, *others = config.kinds
            layers.append(nn.ConvTranspose2d(config.nz, widths[0], 4, bias=first == "grown"))  # (N, 8 ngf, 4, 4) at 64
            for (inside, outside), kind, following in zip(
                pairwise(widths), config.kinds, [*others, "output"], strict=True
            ):
                layers += [nn.ReLU()] if kind == "grown" else [nn.BatchNorm2d(inside), nn.ReLU()]
                bias = following in ("grown", "output")  # where no batch norm follows, which has its own
                layers += _doubled(kind, config.kernel, inside, outside, bias)
        self.layers = nn.Sequential(*layers, nn.Tanh())
        _initialise(self, "dcgan")

    def forward(self, z: Tensor, skips: Iterable[Skip] = ()) -> Tensor:
        """Z float32 (N, nz) to images (N, 3, S, S) in [-1, 1], the hidden layers amended by the skips of an E."""
        hidden = z if self.config.network == "mlp" else z[:, :, None, None]
        remaining = iter(skips)
        for layer in self.layers:
            hidden = layer(hidden)
            if isinstance(layer, nn.ReLU) and (skip := next(remaining, None)) is not None:
                hidden = hidden + skip(hidden)
        return hidden


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
                nn.Sequential(nn.Flatten(), nn.Linear(inside, outside), nn.LeakyReLU(SLOPE))
                for inside, outside in pairwise(widths)
            )
            self.head: nn.Module = nn.Linear(widths[-1], 1)
        else:
            widths = (3, *(config.ndf * 2**index for index in range(config.doublings)))
            self.blocks = nn.ModuleList()
            for index, (inside, outside) in enumerate(pairwise(widths)):
                norm = config.d_norm == "batch" and index > 0  # never on D's input
                convolution = nn.Conv2d(inside, outside, config.kernel, 2, (config.kernel - 1) // 2, bias=not norm)
                norms = [nn.BatchNorm2d(outside)] if norm else []
                self.blocks.append(nn.Sequential(convolution, *norms, nn.LeakyReLU(SLOPE)))
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
    """The known pixels of an image and its hole to the z, and the skips, that G completes it with.

    Strided convolutions as in D, batch norm in all but the last layer. A z alone can follow no detail of what is
    known; each skip adds to a hidden layer of G what E's layer of the same side sees there, as U-Nets do
    (Ronneberger et al. 2015, "U-Net").
    """

    def __init__(self, config: NetworkConfig, nef: int, skips: bool = True) -> None:
        super().__init__()
        self.config = config
        self.settings = {"nef": nef, "skips": skips}
        widths = (4, *(nef * 2**index for index in range(config.doublings)))
        hidden = widths[-1] // 2
        layers: list[nn.Module] = []
        for (inside, outside), kind in zip(pairwise(widths), reversed(config.kinds), strict=True):
            norm = kind != "grown"
            layers.append(nn.Conv2d(inside, outside, 4, 2, 1, bias=not norm))
            layers += [nn.BatchNorm2d(outside), nn.LeakyReLU(SLOPE)] if norm else [nn.LeakyReLU(SLOPE)]
        layers += [nn.Conv2d(widths[-1], hidden, 4, bias=False), nn.BatchNorm2d(hidden), nn.LeakyReLU(SLOPE)]
        layers += [nn.Conv2d(hidden, config.nz, 1), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Tanh() if config.z_prior == "uniform" else nn.Identity())
        self.skips = nn.ModuleList(
            _Skip(nef * 2**index, config.ngf * 2**index)
            for index in reversed(range(config.doublings))
            if skips and config.network == "dcgan"
        )

    def forward(self, images: Tensor, hole: Tensor) -> tuple[Tensor, list[Skip]]:
        """What G needs; never reads under the hole.

        Args:
            images: (N, 3, S, S) in [-1, 1].
            hole: bool (N or 1, 1, S, S), True = fill this.
        Returns:
            z (N, nz), and the skips for G, which serve any number of z of each image, one image's after another's.
        """
        known = torch.where(hole, 0.0, images)
        hidden = torch.cat([known, hole.expand_as(known[:, :1]).to(known.dtype)], dim=1)
        seen = []
        for layer in self.layers:
            hidden = layer(hidden)
            if isinstance(layer, nn.LeakyReLU):
                seen.append(hidden)
        *levels, _ = seen  # the last one has a side of 1
        pairs = zip(self.skips, reversed(levels), strict=False)
        return hidden, [partial(skip, level, _near_known(hole, level)) for skip, level in pairs]


class _Skip(nn.Module):
    """What E adds to one hidden layer of G, from its own layer of that side and from G's; at first nothing."""

    def __init__(self, seen: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(seen + channels, channels // 2, 1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels // 2, channels, 3, padding=1),
        )
        for value in self.layers[-1].parameters():
            nn.init.zeros_(value)

    def forward(self, seen: Tensor, near: Tensor, hidden: Tensor) -> Tensor:
        each = len(hidden) // len(seen)  # z of one image
        seen, near = (value.repeat_interleave(each, dim=0) for value in (seen, near))
        return near * self.layers(torch.cat([seen, hidden], dim=1))


def _near_known(hole: Tensor, level: Tensor) -> Tensor:
    """How much a cell of a layer has to do with known pixels: (N, 1, S, S) of the layer's side, in [0, 1].

    1 where a quarter of the pixels of the cell and its neighbours are known, 0 where none is: there G knows best what
    faces look like, while a skip could only add the mean of all that fit.
    """
    known = adaptive_avg_pool2d((~hole).to(level.dtype), level.shape[2]).expand(len(level), -1, -1, -1)
    share = avg_pool2d(known, 3, 1, 1, count_include_pad=False)
    return (4 * share).clamp(max=1)


def _doubled(kind: str, kernel: int, inside: int, outside: int, bias: bool) -> list[nn.Module]:
    """Layers from (N, inside, S, S) to (N, outside, 2S, 2S)."""
    if kind != "transposed":
        return [nn.Upsample(scale_factor=2), nn.Conv2d(inside, outside, 3, padding=1, bias=bias)]
    padding = (1, 0) if kernel == 4 else (2, 1)  # with which the side is doubled exactly
    return [nn.ConvTranspose2d(inside, outside, kernel, 2, *padding, bias=bias)]


def _initialise(network: nn.Module, rule: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and rule == "he":
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
