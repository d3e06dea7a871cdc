"""Generator G and discriminator D of the DCGAN (Radford, Metz and Chintala, ICLR 2016, section 3), and encoder E."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv_transpose2d
from torch.nn.utils.parametrizations import spectral_norm

from dcgan.config import NetworkConfig

_MLP_UNITS = (256, 512)  # of G; reversed in D
SLOPE = 0.2  # of every LeakyReLU

Skip = Callable[[Tensor], Tensor]  # maps a hidden layer of G to what is added to it


class Generator(nn.Module):
    """Generator: maps z to an image, with batch norm and ReLU in the hidden layers and tanh at the end.

    Each layer doubles the side, by a transposed convolution or by nearest neighbours and a 3x3 convolution (Odena et
    al. 2016, "Deconvolution and checkerboard artifacts"). As an mlp, G has two fully connected hidden layers.
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
                bias = following in ("grown", "output")  # batch norm, which follows otherwise, has its own bias
                layers += _doubled(kind, config.kernel, inside, outside, bias)
        self.layers = nn.Sequential(*layers, nn.Tanh())
        _initialise(self, "dcgan")

    def forward(self, z: Tensor, skips: Iterable[Skip] = ()) -> Tensor:
        """Generate images (N, 3, S, S) in [-1, 1] of z (N, nz); each skip of E adds to one hidden layer, 4x4 first."""
        hidden = z if self.config.network == "mlp" else z[:, :, None, None]
        remaining = iter(skips)
        for layer in self.layers:
            hidden = layer(hidden)
            if isinstance(layer, nn.ReLU) and (skip := next(remaining, None)) is not None:
                hidden = hidden + skip(hidden)
        return hidden


class Discriminator(nn.Module):
    """Discriminator: maps an image to a logit by strided convolutions with LeakyReLU(0.2).

    As an mlp, D has two fully connected hidden layers.
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
                norm = config.d_norm == "batch" and index > 0  # the paper has none in the first layer
                convolution = nn.Conv2d(inside, outside, config.kernel, 2, (config.kernel - 1) // 2, bias=not norm)
                norms = [nn.BatchNorm2d(outside)] if norm else []
                self.blocks.append(nn.Sequential(convolution, *norms, nn.LeakyReLU(SLOPE)))
            self.head = nn.Conv2d(widths[-1], 1, 4)
        _initialise(self, config.init)
        if config.d_norm == "spectral":
            for module in [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]:
                spectral_norm(module)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the output of every block: (N, ndf, S/2, S/2) to (N, 8 ndf, 4, 4) for 64x64 images."""
        found = []
        for block in self.blocks:
            images = block(images)
            found.append(images)
        return found

    def judged(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return `features`, and the logits in float32."""
        features = self.features(images)
        return features, self.head(features[-1]).flatten().float()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) in [-1, 1] to logits (N,); above 0 means real, unless the loss only compares them."""
        return self.head(self.features(images)[-1]).flatten()


class Encoder(nn.Module):
    """Encoder: maps visible pixels and their hole to a z and skips, with which G completes the image.

    Strided convolutions as in D, with batch norm. z is too short to carry the details of the visible pixels, so each
    skip adds features of the E layer of the same side to a hidden layer of G, as in a U-Net (Ronneberger et al. 2015).

    With 8 inputs, E also sees the mirror image, as hidden parts of a face are often visible on its other side. The
    skips then act near its visible pixels, too.
    """

    def __init__(self, config: NetworkConfig, nef: int, skips: bool = True, inputs: int = 4) -> None:
        super().__init__()
        self.config = config
        self.settings = {"nef": nef, "skips": skips, "inputs": inputs}
        widths = (inputs, *(nef * 2**index for index in range(config.doublings)))
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
            _Skip(nef * 2**index, config.ngf * 2**index, inputs // 4)
            for index in reversed(range(config.doublings))
            if skips and config.network == "dcgan"
        )

    def forward(self, images: Tensor, hole: Tensor) -> tuple[Tensor, list[Skip]]:
        """Encode images (N, 3, S, S) in [-1, 1]; pixels inside the hole, bool (N or 1, 1, S, S), have no effect.

        Returns:
            z (N, nz), and skips for G. The skips also fit K z per image, (N * K, nz), those of the first image first.
        """
        known = torch.where(hole, 0.0, images)
        hidden = torch.cat([known, hole.expand_as(known[:, :1]).to(known.dtype)], dim=1)
        mirrored = self.settings["inputs"] == 8
        if mirrored:
            hidden = torch.cat([hidden, hidden.flip(3)], dim=1)
        seen = []
        for layer in self.layers:
            hidden = layer(hidden)
            if isinstance(layer, nn.LeakyReLU):
                seen.append(hidden)
        *levels, _ = seen  # the last one is 1x1
        pairs = zip(self.skips, reversed(levels), strict=False)
        return hidden, [partial(skip, level, _near_known(hole, level, mirrored)) for skip, level in pairs]


class _Skip(nn.Module):
    """Map an E layer and the G layer of the same side to an addition to the latter, initially 0.

    It is a sum of one or two terms: the first acts near visible pixels, the second near those of the mirror image only.
    """

    def __init__(self, seen: int, channels: int, terms: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(seen + channels, channels // 2, 1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels // 2, terms * channels, 3, padding=1),
        )
        for value in self.layers[-1].parameters():
            nn.init.zeros_(value)

    def forward(self, seen: Tensor, near: Tensor, hidden: Tensor) -> Tensor:
        each = hidden.shape[0] // seen.shape[0]  # z of one image
        # Not repeat_interleave, which torch cannot export.
        seen, near = (value[:, None].expand(-1, each, -1, -1, -1).flatten(0, 1) for value in (seen, near))
        terms = self.layers(torch.cat([seen, hidden], dim=1)).unflatten(1, (near.shape[1], hidden.shape[1]))
        return (near[:, :, None] * terms).sum(1)


def _near_known(hole: Tensor, level: Tensor, mirrored: bool) -> Tensor:
    """Weight of each term of a skip at each cell of a layer: (N, 1 or 2, S, S) with the layer's side, in [0, 1].

    1 if at least a quarter of the pixels of the cell and its neighbours is visible, 0 if none is. Far from visible
    pixels a skip could only add the mean of all faces, which blurs what G makes.
    """
    known = avg_pool2d((~hole).to(level.dtype), hole.shape[2] // level.shape[2]).expand(level.shape[0], -1, -1, -1)
    share = avg_pool2d(known, 3, 1, 1, count_include_pad=False)
    near = (4 * share).clamp(max=1)
    return torch.cat([near, (near.flip(3) - near).clamp(min=0)], dim=1) if mirrored else near


class _UpsampledConv2d(nn.Conv2d):
    """Nearest-neighbour upsampling and a 3x3 convolution: (N, inside, S, S) to (N, outside, 2S, 2S).

    Computed as one transposed convolution, which needs 4 instead of 9 products per pixel and channel.
    """

    spread: Tensor

    def __init__(self, inside: int, outside: int, bias: bool) -> None:
        super().__init__(inside, outside, 3, padding=1, bias=bias)
        # Each weight of the flipped 3x3 kernel acts on the 2x2 pixels that upsampling makes of one.
        line = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        self.register_buffer("spread", torch.kron(line, line), persistent=False)  # (16, 9)

    def forward(self, input: Tensor) -> Tensor:
        kernel = self.spread @ self.weight.flatten(2).permute(1, 2, 0)  # (inside, 16, outside), the fastest order
        kernel = kernel.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        return conv_transpose2d(input, kernel, self.bias, stride=2, padding=1)


def _doubled(kind: str, kernel: int, inside: int, outside: int, bias: bool) -> list[nn.Module]:
    """Layers that map (N, inside, S, S) to (N, outside, 2S, 2S)."""
    if kind != "transposed":
        # Weights files count two layers: an upsampling, now part of the convolution, came first.
        return [nn.Identity(), _UpsampledConv2d(inside, outside, bias)]
    padding = (1, 0) if kernel == 4 else (2, 1)  # doubles the side exactly
    return [nn.ConvTranspose2d(inside, outside, kernel, 2, *padding, bias=bias)]


def _initialise(network: nn.Module, rule: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and rule == "he":
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
