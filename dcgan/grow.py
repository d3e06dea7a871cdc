"""Grow trained networks to twice the side, so that training starts from their enlarged result instead of from noise.

Each network gets one more layer, whose first channels carry what the smaller network computed, positive and negative
parts apart so that they pass a ReLU. The other channels of that layer begin without effect and are free to learn.

Source: Chen, Goodfellow and Shlens 2016, "Net2Net: accelerating learning via knowledge transfer"; the idea to train
GANs at growing sizes is that of Karras et al. 2018, "Progressive growing of GANs".
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dcgan.checkpoint import Weights
from dcgan.config import ConfigError, NetworkConfig
from dcgan.networks import SLOPE, Discriminator, Encoder, Generator

Convolution = nn.Conv2d | nn.ConvTranspose2d


def grown_config(config: NetworkConfig, size: int) -> NetworkConfig:
    """The shape of networks grown to another size: each doubling halves the widths.

    Raises:
        ConfigError: the networks cannot grow, or not to that size.
    """
    while config.size < size:
        if config.network != "dcgan" or config.d_norm != "none":
            raise ConfigError(
                f"networks of kind {config.network} with {config.d_norm} norm in D cannot grow; expected dcgan, none"
            )
        _check_width("ngf", config.ngf, 3)
        _check_width("ndf", config.ndf, 3)
        kinds = ",".join((*config.kinds, "grown"))
        config = replace(config, size=2 * config.size, ngf=config.ngf // 2, ndf=config.ndf // 2, upsample=kinds)
    if config.size != size:
        raise ConfigError(f"networks of {config.size} px cannot become {size} px; expected a doubling of their size")
    return config


def grow(weights: Weights, size: int, seed: int = 0) -> Weights:
    """Networks of a larger size that compute what the given ones do, enlarged.

    Args:
        weights: trained networks, in eval mode.
        size: side of the images in pixels, the same or some doublings more.
        seed: of the channels that begin without effect.
    Returns:
        G(z) is the enlarged old G(z) (nearest neighbours); D and E see the means of 2x2 pixels. On the CPU, in eval
        mode; the facts are those of the given weights.
    Raises:
        ConfigError: see `grown_config`.
    """
    target = grown_config(weights.generator.config, size)
    while weights.generator.config.size < target.size:
        config = grown_config(weights.generator.config, 2 * weights.generator.config.size)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            G, D = Generator(config).eval(), Discriminator(config).eval()
            _grow_generator(weights.generator, G)
            _grow_discriminator(weights.discriminator, D)
            E = None
            if weights.encoder is not None:
                settings = weights.encoder.settings
                _check_width("nef", settings["nef"], 4)
                E = Encoder(config, settings["nef"] // 2, bool(settings["skips"])).eval()
                _grow_encoder(weights.encoder, E)
        weights = replace(weights, generator=G, discriminator=D, encoder=E)
    return weights


def new_and_old(network: Generator | Encoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of the layers that growing made or widened, and all others."""
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
    """See that half of a width has room for the positive and the negative part of every input channel."""
    if width % 2 or width < 4 * inputs:
        raise ConfigError(f"{name} is {width}, but growing halves it; expected an even number of at least {4 * inputs}")


def _grow_generator(old: Generator, new: Generator) -> None:
    """The old output layer makes the colours, before their tanh, in six hidden channels; a new one puts them out."""
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
    _carry_means(after[0], after[1], before[0], 4)
    _copy_shared(before[1:], after[2:])
    _copy_shared(_norms(old), _norms(new))
    _copy_shared(old.skips, new.skips)  # the last of the new ones begins at nothing


def _carry_means(entry: Convolution, second: Convolution, first: Convolution, channels: int) -> None:
    """Let two strided convolutions do to an image what `first` does to the means of its 2x2 pixels.

    The entry has the means and the negated means in its first channels. With LeakyReLU f of slope a between the two,
    f(x) - f(-x) = (1 + a) x.
    """
    assert entry.bias is not None
    nn.init.zeros_(entry.weight[: 2 * channels])
    nn.init.zeros_(entry.bias)
    at = (entry.kernel_size[0] - 1) // 2  # the first of the two pixels whose mean is taken, behind the padding
    for channel in range(channels):
        entry.weight[channel, channel, at : at + 2, at : at + 2] = 0.25
        entry.weight[channels + channel, channel, at : at + 2, at : at + 2] = -0.25
    nn.init.zeros_(second.weight)
    second.weight[:, : 2 * channels] = torch.cat([first.weight, -first.weight], dim=1) / (1 + SLOPE)
    if second.bias is not None and first.bias is not None:
        second.bias.copy_(first.bias)


def _copy_shared(old: Iterable[nn.Module], new: Iterable[nn.Module]) -> None:
    """Copy layer by layer; the new network may have more of them."""
    for layer, copy in zip(old, new, strict=False):
        copy.load_state_dict(layer.state_dict())


def _convolutions(network: Generator | Discriminator | Encoder) -> list[Convolution]:
    """Those from the input to the output, without the skips'."""
    layers = (*network.blocks, network.head) if isinstance(network, Discriminator) else network.layers
    return [part for layer in layers for part in layer.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]


def _norms(network: Generator | Encoder) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.layers if isinstance(layer, nn.BatchNorm2d)]


def _outputs(convolution: Convolution) -> Tensor:
    """The weight of a convolution, transposed or not, by its output channels."""
    return convolution.weight.transpose(0, 1) if isinstance(convolution, nn.ConvTranspose2d) else convolution.weight
