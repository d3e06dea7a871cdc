"""Grow trained networks to larger images, so that training starts from enlarged faces instead of noise.

For each doubling of the side, every network gets one more layer. The first channels of that layer carry the values of
the smaller network, as positive and negative parts so that they pass a ReLU; the others start without effect.

Source: Chen, Goodfellow and Shlens 2016, "Net2Net: accelerating learning via knowledge transfer"; training GANs at
growing sizes is from Karras et al. 2018, "Progressive growing of GANs".
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dcgan.config import ConfigError, NetworkConfig
from dcgan.networks import SLOPE, Discriminator, Encoder, Generator
from dcgan.weights import Weights

Convolution = nn.Conv2d | nn.ConvTranspose2d


def grown_config(config: NetworkConfig, size: int) -> NetworkConfig:
    """Return the architecture of networks grown to another size; each doubling halves ngf and ndf.

    Raises:
        ConfigError: the networks cannot grow, or not to that size.
    """
    while config.size < size:
        if config.network != "dcgan" or config.d_norm != "none":
            raise ConfigError(
                f"networks of kind {config.network} with d_norm {config.d_norm} cannot grow; expected dcgan and none"
            )
        _check_width("ngf", config.ngf, 3)
        _check_width("ndf", config.ndf, 3)
        kinds = ",".join((*config.kinds, "grown"))
        config = replace(config, size=2 * config.size, ngf=config.ngf // 2, ndf=config.ndf // 2, upsample=kinds)
    if config.size != size:
        raise ConfigError(
            f"networks for {config.size} px cannot grow to {size} px; expected 2, 4, 8 ... times the size"
        )
    return config


def grow(weights: Weights, size: int, seed: int = 0) -> Weights:
    """Grow networks to images of the same size, or 2, 4, 8 ... times the side.

    The seed is that of the channels that start without effect.

    Returns:
        Networks on the CPU in eval mode, with unchanged metadata. G(z) is the old image enlarged by nearest neighbours;
        D and E compute what they did for the means of 2x2 pixels.
    Raises:
        ConfigError: the networks cannot grow, or not to that size.
    """
    target = grown_config(weights.generator.config, size)
    while weights.generator.config.size < target.size:
        config = grown_config(weights.generator.config, 2 * weights.generator.config.size)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            G, D = Generator(config).eval(), Discriminator(config).eval()
            _grow_generator(weights.generator, G)
            _grow_discriminator(weights.discriminator, D)
            C = G
            if weights.completer is not weights.generator:
                C = Generator(config).eval()
                _grow_generator(weights.completer, C)
            E = None
            if weights.encoder is not None:
                settings = weights.encoder.settings
                _check_width("nef", settings["nef"], settings["inputs"])
                E = Encoder(config, settings["nef"] // 2, bool(settings["skips"]), settings["inputs"]).eval()
                _grow_encoder(weights.encoder, E)
        weights = Weights.of(G, D, weights.template, weights.metadata, E, weights.sha256, C)
    return weights


def new_and_old(network: Generator | Encoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the parameters of a network: those of layers added or replaced by growing, and all others."""
    grown = network.config.kinds.count("grown")
    new: list[nn.Module] = []
    if grown and isinstance(network, Encoder):
        new = [*_convolutions(network)[: grown + 1], *list(network.skips)[-grown:]]
    elif grown:
        new = [*_convolutions(network)[-grown - 1 :]]
    found = [parameter for module in new for parameter in module.parameters()]
    taken = {id(parameter) for parameter in found}
    return found, [parameter for parameter in network.parameters() if id(parameter) not in taken]


def _check_width(name: str, width: int, inputs: int) -> None:
    """Check that half the width holds the positive and the negative part of every input channel."""
    if width % 2 or width < 4 * inputs:
        raise ConfigError(f"{name} is {width}, but growing halves it; expected an even number of at least {4 * inputs}")


def _grow_generator(old: Generator, new: Generator) -> None:
    """The old output layer becomes six hidden channels, the positive and negative colours; a new one combines them."""
    before, after = _convolutions(old), _convolutions(new)
    _copy_shared(before[:-1], after)
    _copy_shared(_norms(old), _norms(new))
    last, hidden, output = before[-1], after[-2], after[-1]
    assert last.bias is not None and hidden.bias is not None
    _outputs(hidden)[:6] = torch.cat([_outputs(last), -_outputs(last)])
    hidden.bias[:6] = torch.cat([last.bias, -last.bias])
    hidden.bias[6:] = 0
    for parameter in output.parameters():
        nn.init.zeros_(parameter)
    for colour in range(3):
        output.weight[colour, colour, 1, 1] = 1
        output.weight[colour, 3 + colour, 1, 1] = -1


def _grow_discriminator(old: Discriminator, new: Discriminator) -> None:
    before, after = _convolutions(old), _convolutions(new)
    _carry_means(after[0], after[1], before[0], 3)
    _copy_shared(before[1:], after[2:])


def _grow_encoder(old: Encoder, new: Encoder) -> None:
    before, after = _convolutions(old), _convolutions(new)
    nn.init.kaiming_normal_(after[0].weight, a=SLOPE)
    _carry_means(after[0], after[1], before[0], old.settings["inputs"])
    _copy_shared(before[1:], after[2:])
    _copy_shared(_norms(old), _norms(new))
    _copy_shared(old.skips, new.skips)  # the new skip is the last one and starts at 0


def _carry_means(entry: Convolution, second: Convolution, first: Convolution, channels: int) -> None:
    """Make two strided convolutions compute what `first` computes for the means of 2x2 pixels.

    The first channels of the entry are the means and the negated means. For the LeakyReLU f of slope a in between,
    f(x) - f(-x) = (1 + a) x.
    """
    assert entry.bias is not None
    nn.init.zeros_(entry.weight[: 2 * channels])
    nn.init.zeros_(entry.bias)
    at = (entry.kernel_size[0] - 1) // 2  # the first of the two pixels in the kernel; the padding is as wide
    for channel in range(channels):
        entry.weight[channel, channel, at : at + 2, at : at + 2] = 0.25
        entry.weight[channels + channel, channel, at : at + 2, at : at + 2] = -0.25
    nn.init.zeros_(second.weight)
    second.weight[:, : 2 * channels] = torch.cat([first.weight, -first.weight], dim=1) / (1 + SLOPE)
    if second.bias is not None and first.bias is not None:
        second.bias.copy_(first.bias)


def _copy_shared(old: Iterable[nn.Module], new: Iterable[nn.Module]) -> None:
    """Copy layer by layer; the new network may have more layers."""
    for layer, copy in zip(old, new, strict=False):
        copy.load_state_dict(layer.state_dict())


def _convolutions(network: Generator | Discriminator | Encoder) -> list[Convolution]:
    """All convolutions from input to output, without those of skips."""
    layers = (*network.blocks, network.head) if isinstance(network, Discriminator) else network.layers
    return [part for layer in layers for part in layer.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]


def _norms(network: Generator | Encoder) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.layers if isinstance(layer, nn.BatchNorm2d)]


def _outputs(convolution: Convolution) -> Tensor:
    """The weight of a convolution, transposed or not, with the output channels first."""
    return convolution.weight.transpose(0, 1) if isinstance(convolution, nn.ConvTranspose2d) else convolution.weight
