"""Guided backpropagation from filters of D to the input pixels, for a trained and an untrained D."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.cli import Progress
from align.errors import ConfigError
from dcgan.explore.files import Outputs, sheet
from dcgan.networks import Discriminator
from dcgan.sampling import device_of, generate, sample_z
from dcgan.tensors import to_tensor
from dcgan.weights import Weights

_BATCH = 64
_SHOWN = 4  # images per filter
_TOP = 0.1  # share of the pixels with the strongest gradients
# Left, right, top, bottom of eyes, nose and mouth under the template "face", as shares of the side.
_FEATURES = (0.2, 0.8, 0.32, 0.85)


def guided_gradient(network: nn.Module, images: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Guided backpropagation to the input pixels: (N, 3, S, S) for images of that shape.

    At each ReLU, only positive gradients pass, and only where the input is positive. LeakyReLUs are treated as ReLUs in
    the backward pass but stay leaky in the forward pass, so the activations are those of the network. All other layers
    have their usual gradients.

    Args:
        network: the network that `activation` uses; its hooks are removed at the end.
        images: in [-1, 1].
        activation: maps images to (N,); each value depends on its own image only.
    Source: Springenberg et al. 2015, "Striving for simplicity: the all convolutional net", section 3.4.
    """

    def guide(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(lambda gradient: torch.where(output > 0, gradient.clamp(min=0), 0))

    hooks = [layer.register_forward_hook(guide) for layer in network.modules() if isinstance(layer, nn.LeakyReLU)]
    try:
        leaf = images.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(activation(leaf).sum(), leaf)
    finally:
        for hook in hooks:
            hook.remove()
    return gradient


def responses(D: Discriminator, images: NDArray[np.uint8], layer: int) -> Tensor:
    """Maximum of each filter of a layer over the positions, for each image: float32 (N, C)."""
    device = device_of(D)
    with torch.inference_mode():
        parts = (to_tensor(images[begin : begin + _BATCH]).to(device) for begin in range(0, len(images), _BATCH))
        return torch.cat([_strongest(D, layer, part) for part in parts])


def run(weights: Weights, layer: int, filters: int, count: int, seed: int) -> Iterator[Progress | Outputs]:
    """Show the generated faces that filters of a layer respond to most, and the pixels that cause the response.

    The filters are those whose response varies most between faces.

    Raises:
        ConfigError: D has no such layer, or is not convolutional.
    Source: Radford et al., ICLR 2016, section 6.2, figure 5.
    """
    D = weights.discriminator
    if D.config.network != "dcgan" or not -len(D.blocks) <= layer < len(D.blocks):
        raise ConfigError(
            f"layer {layer} of a D of kind {D.config.network} with {len(D.blocks)} blocks; expected kind dcgan and a "
            f"layer from {-len(D.blocks)} to {len(D.blocks) - 1}"
        )
    yield Progress("faces", 0, 1)
    images = generate(weights.generator, sample_z(count, D.config, seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = Discriminator(D.config)
    untrained.to(device_of(D)).eval().requires_grad_(False)
    rows: list[tuple[str, NDArray[np.uint8]]] = []
    numbers: dict[str, Any] = {"faces": len(images), "layer": layer % len(D.blocks)}
    for done, (name, network) in enumerate({"trained": D, "random": untrained}.items()):
        yield Progress("responses", done, 2)
        found = responses(network, images, layer)
        varying = (found.std(dim=0) / found.mean(dim=0).clamp(min=1e-12)).argsort(descending=True)[:filters].tolist()
        gradients = []
        for index in varying:
            best = found[:, index].topk(min(_SHOWN, len(images))).indices.cpu().numpy()
            strongest = to_tensor(images[best]).to(found.device)
            gradient = guided_gradient(network, strongest, partial(_strongest, network, layer, filters=index))
            gradients.append(gradient)
            rows.append((f"{name} {index}", np.concatenate([images[best], _as_images(gradient)])))
        numbers[name] = {"filters": varying} | gradient_shares(torch.cat(gradients))
    columns = [f"{kind} {rank + 1}" for kind in ("face", "seen") for rank in range(min(_SHOWN, len(images)))]
    yield {"saliency.png": sheet(rows, columns), "saliency.json": numbers}


def _strongest(D: Discriminator, layer: int, images: Tensor, filters: int | slice = slice(None)) -> Tensor:
    return D.features(images)[layer][:, filters].flatten(-2).amax(dim=-1)


def _as_images(gradients: Tensor) -> NDArray[np.uint8]:
    """Gradients as images with grey for 0, each scaled to its maximum: uint8 (N, S, S, 3)."""
    scale = gradients.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (gradients / scale * 127 + 128).byte().permute(0, 2, 3, 1).cpu().numpy()


def gradient_shares(gradients: Tensor) -> dict[str, float]:
    """Share of the squared gradients in the strongest pixels, and on eyes, nose and mouth."""
    energy = gradients.square().sum(dim=1)  # (N, S, S)
    side = energy.shape[1]
    total = energy.sum(dim=(1, 2)).clamp(min=1e-30)
    left, right, top, bottom = (round(share * side) for share in _FEATURES)
    strongest = energy.flatten(1).topk(round(_TOP * side**2)).values.sum(dim=1)
    return {
        "share_in_strongest_tenth_of_pixels": float((strongest / total).mean()),
        "share_on_eyes_nose_mouth": float((energy[:, top:bottom, left:right].sum(dim=(1, 2)) / total).mean()),
        "area_of_eyes_nose_mouth": (right - left) * (bottom - top) / side**2,
    }
