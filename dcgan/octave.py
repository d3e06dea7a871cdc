"""Train and export the octave network: completed faces, enlarged twofold, to sharper ones."""

import json
from collections.abc import Generator as Steps
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    interpolate,
    leaky_relu,
    max_pool2d,
    pixel_shuffle,
    pixel_unshuffle,
    softplus,
)

from align.files import read_file
from dcgan.checkpoint import load_run, restoring, training_record
from dcgan.config import OctaveConfig
from dcgan.dataset import DatasetError, digest
from dcgan.device import machine
from dcgan.export import write_graph
from dcgan.graph import capturable_adam
from dcgan.holes import TRAINING_KINDS
from dcgan.loss import feature_distance, gradient_penalty
from dcgan.metrics import detail, psnr
from dcgan.networks import SLOPE
from dcgan.perceptual import Perceptual
from dcgan.run import Run, RunInputs, TrainingStep
from dcgan.step import MovingAverage
from dcgan.tensors import to_bytes, to_image, to_tensor
from dcgan.weights import Weights, WeightsError

_BOX_PX = 96  # of a crop: the part around a hole that a step computes
_PARTS = 2  # of each completed face, which takes longer to complete than to learn from
_KINDS = [TRAINING_KINDS[name] for name in ("center", "rectangle", "half", "pattern", "stroke", "features")]
_HELD_OUT = 0.03  # share of the faces, the last ones, that are only measured
_MEASURED, _SHOWN = 64, 8
_RISE = 800  # crops over which the learning rate rises
_PENALTY, _PENALTY_EVERY = 0.3, 8
_MAX_GRAPH_BYTES = 100_000_000
_FEATURES = 0.1  # weight of the distance in the critic's features


class Octave(nn.Module):
    """A U-Net: completed crops uint8 (N, S, S, 3), S a multiple of 8, and holes bool (N, S, S) to crops, uint8.

    It adds to what is in the holes, and sees the mirror image of the crop and where in the crop it is. As most of the
    time goes into the largest side, it starts at half of it, where each position holds 2x2 pixels.

    Source: Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation"; sums in place
        of concatenations, and residual blocks.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        middle, deep = width * 5 // 3, width * 3
        self.stem, self.r0 = _convolution(40, width), _convolution(width, width)
        self.d1, self.r1 = _convolution(width, middle, stride=2), _Residual(middle)
        self.d2 = _convolution(middle, deep, stride=2)
        self.mid = nn.Sequential(_Residual(deep), _Residual(deep, dilation=2), _Residual(deep))
        self.u1, self.r2 = nn.Conv2d(deep, middle, 1), _Residual(middle)
        self.u0, self.r3, self.r4 = nn.Conv2d(middle, width, 1), _convolution(width, width), _convolution(width, width)
        self.out = _convolution(width, 12)
        with torch.no_grad():  # starts with next to no change
            self.out.weight.mul_(0.03)

    def sharpened(self, seen: Tensor) -> Tensor:
        """Map what `seen_by` gives, or a part of it, to images (N, 3, H, W)."""
        half = _active(self.r0(_active(self.stem(pixel_unshuffle(seen, 2)))))
        quarter = self.r1(_active(self.d1(half)))
        eighth = self.mid(_active(self.d2(quarter)))
        quarter = self.r2(quarter + interpolate(self.u1(_active(eighth)), scale_factor=2.0))
        half = _active(half + interpolate(self.u0(_active(quarter)), scale_factor=2.0))
        change = pixel_shuffle(self.out(_active(self.r4(_active(self.r3(half))))), 2)
        return (seen[:, :3] + seen[:, 3:4] * change).clamp(-1, 1)

    def forward(self, crops: Tensor, holes: Tensor) -> Tensor:
        return to_bytes(self.sharpened(seen_by(to_tensor(crops), holes[:, None])))


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.a, self.b = _convolution(width, width, dilation=dilation), _convolution(width, width)
        with torch.no_grad():
            self.b.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.b(_active(self.a(_active(x))))
        return x + change


def _convolution(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 3, stride, dilation, dilation)
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    return convolution


def _active(x: Tensor) -> Tensor:
    return leaky_relu(x, SLOPE)


class _Critic(nn.Module):
    """Judges patches: images (N, 3, H, W) and their holes (N, 1, H, W) to features of three layers and logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 48, 64)
        pairs = zip(widths[:-1], widths[1:], (1, 2, 2), strict=True)
        self.blocks = nn.ModuleList(_convolution(before, after, stride) for before, after, stride in pairs)
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: Tensor, holes: Tensor) -> tuple[list[Tensor], Tensor]:
        x, features = pixel_unshuffle(torch.cat([images, holes], dim=1), 2), []
        for block in self.blocks:
            x = _active(block(x))
            features.append(x)
        return features, self.head(x)


def seen_by(images: Tensor, holes: Tensor) -> Tensor:
    """What the network sees of images (N, 3, S, S) in [-1, 1] and holes, bool (N, 1, S, S): (N, 10, S, S).

    The image and its hole, the mirror image of both, and the position, x and y from -1 to 1.
    """
    both = torch.cat([images, holes.to(images.dtype)], dim=1)
    line = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1] * 2 - 1
    x, y = line.expand_as(both[:, :1]), line[:, None].expand_as(both[:, :1])
    return torch.cat([both, both.flip(3), x, y], dim=1)


def train_octave(
    config: OctaveConfig,
    weights: Weights,
    faces: NDArray[np.uint8],
    folder: Path,
    device: torch.device,
    start: Path | None = None,
) -> Steps[TrainingStep]:
    """Train the octave network on faces completed by some weights, or resume from the run folder's newest checkpoint.

    A critic learns with it to distinguish patches of sharpened faces from real ones. What is said of
    `dcgan.train.train` holds here, too.

    Args:
        config: the settings; only `kimg` may change when a run is resumed.
        weights: E and G, which complete the faces at half their size.
        faces: uint8 (N, 2S, 2S, 3) for weights of size S; the last ones are only measured.
        folder: run folder.
        device: where to compute.
        start: .onnx file of `export_octave` to continue from; by default the network starts anew.
    Raises:
        DatasetError: there are too few faces.
        WeightsError: the weights have no encoder, or the network in `start` has another width.
    """
    held_out = max(1, round(_HELD_OUT * len(faces)))
    if len(faces) <= held_out:
        raise DatasetError(f"there is {len(faces)} face; expected two or more, one to train on and one to measure")
    train, val = faces[:-held_out], faces[-held_out:][:_MEASURED]
    complete = _Completer(weights, device)
    torch.manual_seed(config.seed)
    network, critic = Octave(config.width), _Critic()
    if start is not None:
        _load_graph(network, start)
    perceptual = Perceptual() if config.perceptual_weight > 0 else None
    for each in (network, critic, *filter(None, [perceptual])):
        each.to(device).to(memory_format=torch.channels_last)
    optimiser, opt_critic = (capturable_adam(each.parameters(), config.lr, (0.5, 0.99)) for each in (network, critic))
    ema = deepcopy(network).requires_grad_(False)
    average = MovingAverage(ema, network, config.ema_kimg, config.batch)
    modules = {"O": network, "ema": ema, "optimiser": optimiser, "critic": critic, "opt_critic": opt_critic}
    run = Run(folder, "octave", config, modules, RunInputs(digest(faces), len(faces), machine(device), weights.sha256))

    def losses(rng: np.random.Generator) -> dict[str, Tensor]:
        average.update(run.images)
        few = train[rng.integers(len(train), size=-(-config.batch // _PARTS))]
        seen, real = (each.repeat_interleave(_PARTS, 0)[: config.batch] for each in complete(few, rng))
        seen, real = _boxes(seen, real, rng)
        hole, made = seen[:, 3:4], network.sharpened(seen)

        # The critic learns; its lazy penalty is scaled up by the steps that it stands for.
        critic.requires_grad_(True)
        penalised = run.step % _PENALTY_EVERY == 0
        _, logits = critic(real.requires_grad_(penalised), hole)
        total = _over(hole, softplus(critic(made.detach(), hole)[1] - logits))
        if penalised:
            judged = torch.stack([_over(*each) for each in zip(hole, logits, strict=True)])
            total = total + _PENALTY / 2 * _PENALTY_EVERY * gradient_penalty(real, judged)
        opt_critic.zero_grad(set_to_none=True)
        total.backward()
        opt_critic.step()

        # The network shall be near the real faces, and deceive the critic.
        critic.requires_grad_(False)
        with torch.no_grad():
            features, logits = critic(real, hole)
        features_made, logits_made = critic(made, hole)
        found = {
            "image": (made - real).abs().sum() / (3 * hole.sum()),
            "feature": _FEATURES * feature_distance(features_made, features),
            "adversarial": config.adversarial_weight * _over(hole, softplus(logits - logits_made)),
        }
        if perceptual is not None:
            distance = feature_distance(perceptual(made), perceptual(real.detach()))
            found["perceptual"] = config.perceptual_weight * distance
        return found

    def diagnose() -> dict[str, float]:
        seen, real = complete(val, np.random.default_rng(0))
        made = torch.cat([ema.sharpened(part) for part in seen.split(4)])
        rows = [each[:_SHOWN].cpu() for each in (seen[:, :3], made, real)]
        run.grid(torch.stack(rows, dim=1).flatten(0, 1), columns=6)
        images = [to_image(real), to_image(made), seen[:, 3].cpu().numpy() > 0]
        details = [detail(fake, hole) / detail(face, hole) for face, fake, hole in zip(*images, strict=True)]
        return {"psnr_hole": fmean(map(psnr, *images)), "detail": fmean(details)}

    yield from run.fit(ema, losses, diagnose, _RISE)


def export_octave(folder: Path, path: Path) -> dict[str, Any]:
    """Write the network of a run's newest checkpoint as an ONNX graph; see `dcgan.export.export_run`."""
    saved = load_run(folder, "octave")
    with restoring(folder):
        network = Octave(saved["config"]["width"])
        network.load_state_dict(saved["ema"])
        metadata = training_record(saved, saved["config"]["batch"], {}) | {"weights_sha256": saved["weights_sha256"]}
    crops = torch.zeros(2, _BOX_PX, _BOX_PX, 3, dtype=torch.uint8)
    inputs = {"crops": crops, "holes": crops[..., 0] > 0}
    axes = dict.fromkeys((*inputs, "sharper"), ("N", "S", "S"))
    write_graph(network.eval(), inputs, "sharper", axes, {"facts": json.dumps(metadata)}, path)
    return metadata


def _load_graph(network: Octave, path: Path) -> None:
    """Copy the weights of an exported network."""
    from onnx import load_from_string, numpy_helper

    try:
        tensors = load_from_string(read_file(path, _MAX_GRAPH_BYTES)).graph.initializer
        found = {
            each.name.removesuffix(" (half)"): torch.tensor(numpy_helper.to_array(each)).float() for each in tensors
        }
        network.load_state_dict({name: found[name] for name in network.state_dict()})
    except Exception as error:  # protobuf and torch have types of their own
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} holds no octave network of this width ({reason})") from error


class _Completer:
    """Draws holes, completes faces at half their size, and enlarges them."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        if weights.encoder is None:
            raise WeightsError("the weights have no encoder; train one (python -m dcgan encode) or choose others")
        self.E, self.G, self.device = weights.encoder.to(device), weights.completer.to(device), device

    @torch.no_grad()
    def __call__(self, faces: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees of faces (N, 2S, 2S, 3), some aged, and what it shall make of it, (N, 3, 2S, 2S)."""
        size = faces.shape[1] // 2
        small = np.stack([_KINDS[rng.integers(len(_KINDS))](size, rng) for _ in faces])
        small[~small.any(axis=(1, 2))] = True
        hole = torch.from_numpy(small)[:, None].to(self.device)
        flips = [slice(None, None, 1 if rng.random() < 0.5 else -1) for _ in faces]
        faces = np.stack([_soft(face[:, flip], rng) for face, flip in zip(faces, flips, strict=True)])
        aged, real = (
            to_tensor(each).to(self.device) for each in (np.stack([_noisy(face, rng) for face in faces]), faces)
        )
        visible = avg_pool2d(aged, 2)
        z, skips = self.E(visible, hole)
        made = self.G(z, skips)
        made = torch.where(hole, made + _membrane(visible - made, hole), visible).clamp(-1, 1)
        hole = hole.repeat_interleave(2, 2).repeat_interleave(2, 3)
        large = interpolate(made, scale_factor=2.0, mode="bicubic").clamp(-1, 1)
        return seen_by(torch.where(hole, large, aged), hole), torch.where(hole, real, aged)


def _membrane(difference: Tensor, hole: Tensor) -> Tensor:
    """Continue the difference (N, 3, S, S), S a power of 2, at the edge of a hole, bool (N, 1, S, S), smoothly into it.

    Means over ever larger cells stand in for the solution of Laplace's equation, which blending finds.

    Source: Gortler et al. 1996, "The lumigraph", section 3.4 (pull-push).
    """
    edge = (max_pool2d(hole.float(), 3, 1, 1) > 0) & ~hole
    levels = [torch.cat([difference * edge, edge], dim=1)]  # sums, and the share of each cell that they stand for
    while levels[-1].shape[-1] > 1:
        levels.append(avg_pool2d(levels[-1], 2))
    smooth = torch.zeros_like(levels[-1][:, :3])
    for level in reversed(levels):
        side = hole.shape[-1] // level.shape[-1]  # of a cell
        mean = level[:, :3] / level[:, 3:].clamp(min=1e-6)
        smooth = torch.lerp(
            interpolate(smooth, level.shape[2:], mode="bilinear"), mean, (side * level[:, 3:]).clamp(max=1)
        )
    return smooth


def _soft(face: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A face as in an older photo: three in ten are blurred. What is filled in shall be so, too."""
    if rng.random() < 0.3:
        face = cv2.GaussianBlur(face, (0, 0), rng.uniform(0.5, 2)).astype(np.uint8)
    return face


def _noisy(face: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A face as in an older photo: one in four is noisy. Completion adds grain itself."""
    if rng.random() < 0.25:
        noise = rng.standard_normal(face.shape, dtype=np.float32) * rng.uniform(2, 12)
        face = np.clip((face + noise).round(), 0, 255).astype(np.uint8)
    return face


def _boxes(seen: Tensor, real: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A box of each image that holds a random pixel of its hole."""
    size, parts = seen.shape[-1], []
    side = min(_BOX_PX, size)
    for one, other in zip(seen, real, strict=True):
        inside = one[3].nonzero()
        row, column = inside[int(rng.integers(len(inside)))].tolist()
        top, left = (min(max(0, middle - side // 2), size - side) // 8 * 8 for middle in (row, column))
        parts.append([each[:, top : top + side, left : left + side] for each in (one, other)])
    return torch.stack([first for first, _ in parts]), torch.stack([second for _, second in parts])


def _over(hole: Tensor, values: Tensor) -> Tensor:
    """Mean of values (..., H / 8, W / 8), weighted by the share of each patch that is hole."""
    share = avg_pool2d(hole, 8)
    return (share * values).sum() / share.sum()
