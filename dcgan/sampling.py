"""Sample z and interpolate between them, generate images in batches, and report progress."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from align.cli import Progress
from dcgan import networks
from dcgan.config import NetworkConfig
from dcgan.tensors import to_image

_BATCH = 64
_PARALLEL = 1e-6  # sine of the angle below which the arc between two z is undefined


def sample_z(count: int, config: NetworkConfig, source: torch.Generator | int) -> Tensor:
    """Draw z from the prior of G, by a generator or its seed: float32 (count, nz)."""
    generator = source if isinstance(source, torch.Generator) else torch.Generator().manual_seed(source)
    z = torch.empty(count, config.nz)
    if config.z_prior == "uniform":
        return z.uniform_(-1, 1, generator=generator)
    return z.normal_(generator=generator)


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Spherical interpolation, which keeps the norm of z typical for the prior; linear if both ends are parallel.

    From (nz,) to (nz,), both ends included: (steps, nz).

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; White 2016, "Sampling generative networks".
    """
    a, b = start.double(), end.double()
    angle = cosine_similarity(a, b, dim=0).clamp(-1, 1).acos()
    if angle.sin() < _PARALLEL:
        return lerp(start, end, steps)
    share = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)[:, None]
    arc = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    return (arc / angle.sin()).to(start.dtype)


def lerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Linear interpolation from (nz,) to (nz,), both ends included: (steps, nz)."""
    return torch.lerp(start, end, torch.linspace(0, 1, steps, device=start.device)[:, None])


def generate(G: networks.Generator, z: Tensor, skips: Iterable[networks.Skip] = ()) -> NDArray[np.uint8]:
    """Generate images uint8 (N, S, S, 3) of z (N, nz) in batches; G is in eval mode, and all z have the same skips."""
    skips = list(skips)
    with torch.inference_mode():
        return np.concatenate([to_image(G(part, skips)) for part in z.to(device_of(G)).split(_BATCH)])


def device_of(network: torch.nn.Module) -> torch.device:
    """Return the device of a network."""
    return next(network.parameters()).device


def in_parts(
    part: str, faces: NDArray[np.uint8], work: Callable[[NDArray[np.uint8]], NDArray[Any]]
) -> Generator[Progress, None, NDArray[Any]]:
    """Process faces (N, S, S, 3) in batches; yields Progress and returns the concatenated results."""
    found = []
    for begin in range(0, len(faces), _BATCH):
        found.append(work(faces[begin : begin + _BATCH]))
        yield Progress(part, min(begin + _BATCH, len(faces)), len(faces))
    return np.concatenate(found)
