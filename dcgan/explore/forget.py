"""Remove a feature from G's images by dropping the feature maps that correlate with a label."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.cli import Progress
from align.errors import ConfigError
from dcgan.explore.arithmetic import faces_found, measure
from dcgan.explore.files import Outputs, sheet
from dcgan.networks import Generator
from dcgan.sampling import device_of, generate, sample_z
from dcgan.weights import Weights

_BATCH = 64
_SHOWN = 6


def hidden_layers(G: Generator) -> int:
    """Number of G's hidden layers, each of which ends with a ReLU."""
    return sum(isinstance(layer, nn.ReLU) for layer in G.layers)


def feature_maps(G: Generator, z: Tensor, layer: int) -> Tensor:
    """Compute the activations (N, C, H, W) of a hidden layer, counted from 0, for z (N, nz) on G's device."""
    seen: list[Tensor] = []

    def look(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return torch.zeros_like(hidden)

    with torch.inference_mode():
        for part in z.split(_BATCH):
            G(part, [*_before(layer), look])
    return torch.cat(seen)


def generate_without(G: Generator, z: Tensor, layer: int, dropped: Sequence[int]) -> NDArray[np.uint8]:
    """Generate images uint8 (N, S, S, 3) of z (N, nz) with some feature maps of a hidden layer set to 0."""
    maps = list(dropped)

    def dropping(hidden: Tensor) -> Tensor:
        change = torch.zeros_like(hidden)
        change[:, maps] = -hidden[:, maps]
        return change

    return generate(G, z, [*_before(layer), dropping])


def tied_maps(features: NDArray[np.float32], has: NDArray[np.bool_]) -> list[int]:
    """Find the maps with positive weights in a logistic regression of a label (N,) on features (N, C), best first."""
    from sklearn.linear_model import LogisticRegression

    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf)
    weight = LogisticRegression(C=0.1, max_iter=2000).fit(scaled, has).coef_[0]
    return [int(index) for index in weight.argsort()[::-1] if weight[index] > 0]


def run(
    weights: Weights, label: str, layer: int, drop: Sequence[int], count: int, seed: int
) -> Iterator[Progress | Outputs]:
    """Find the feature maps tied to a label, drop them, and measure the label before and after.

    A logistic regression compares the mean activations of images above and below the median of the label. Half as many
    new samples are measured as it has. For comparison, as many random maps are dropped.

    Raises:
        ConfigError: G has no such layer.
        DatasetError: too few of the samples are faces.
    Source: Radford et al., ICLR 2016, section 6.3.1, figure 6, where boxes stand in for labels.
    """
    G = weights.generator
    layers = hidden_layers(G)
    if G.config.network != "dcgan" or not -layers <= layer < layers:
        raise ConfigError(
            f"layer {layer} of a G of kind {G.config.network} with {layers} hidden layers; expected kind dcgan and a "
            f"layer from {-layers} to {layers - 1}"
        )
    layer %= layers
    generator = torch.Generator().manual_seed(seed)
    z, fresh = (sample_z(size, G.config, generator) for size in (count, max(_SHOWN, count // 2)))
    yield Progress("regression", 0, 1)
    maps = feature_maps(G, z.to(device_of(G)), layer).mean(dim=(2, 3)).cpu().numpy()
    labels = measure(generate(G, z))
    values, known = labels[label], faces_found(labels)
    middle = float(np.median(values[known]))
    tied = tied_maps(maps[known], values[known] > middle)
    numbers: dict[str, Any] = {"label": label, "threshold": middle, "layer": layer, "maps": maps.shape[1]}
    numbers |= {"tied_maps": tied, "dropped": []}
    shuffled = np.random.default_rng(seed).permutation(maps.shape[1]).tolist()
    before = generate(G, fresh)
    rows = [("before", before[:_SHOWN])]
    amounts = sorted({0} | {min(amount, len(tied)) for amount in drop})
    for done, amount in enumerate(amounts):
        yield Progress("drop maps", done, len(amounts))
        entry: dict[str, Any] = {"maps": amount}
        for kind, chosen in (("tied", tied[:amount]), ("random", shuffled[:amount])):
            after = generate_without(G, fresh, layer, chosen)
            entry[kind] = _compare(before, after, label, middle)
            if amount:
                rows.append((f"{amount} {kind}", after[:_SHOWN]))
        numbers["dropped"].append(entry)
    yield {"forget.png": sheet(rows), "forget.json": numbers}


def _compare(before: NDArray[np.uint8], after: NDArray[np.uint8], label: str, middle: float) -> dict[str, float | None]:
    """Share of faces found, share of them with the label, and mean change, after dropping maps."""
    values = measure(after)[label]
    found = np.isfinite(values)
    return {
        "face_found": float(found.mean()),
        "has_label": float((values[found] > middle).mean()) if found.any() else None,
        "mean_change_levels": float(np.abs(after.astype(np.float64) - before).mean()),
    }


def _before(layer: int) -> list[Any]:
    """Skips that leave the layers before `layer` unchanged."""
    return [torch.zeros_like] * layer
