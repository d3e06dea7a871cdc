"""Settings of networks, training and evaluation; their docstrings are the command line's help. Imports no torch."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from align.errors import InputError

Loss = Literal["relativistic", "non-saturating", "minimax", "ls", "hinge", "wgan-gp"]
Precision = Literal["bf16", "fp32"]
Upsample = Literal["nearest", "transposed", "grown"]


class ConfigError(InputError):
    """A setting is invalid."""


def _check(config: Any, positive: str = "", not_negative: str = "") -> None:
    """Check every field that has a Literal type, and the ranges of the named fields."""
    for item in fields(config):
        if get_origin(item.type) is Literal:
            _one_of(item.name, getattr(config, item.name), get_args(item.type))
    for name in (*positive.split(), *not_negative.split()):
        value, above = getattr(config, name), name in positive.split()
        if not (value > 0 if above else value >= 0):
            raise ConfigError(f"{name} is {value}; expected {'a number above 0' if above else '0 or more'}")


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(map(str, choices))}")


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of G and D, stored with every checkpoint and weights file.

    Attributes:
        size: side of the images in pixels: 16, 32, 64, 128 or 256.
        nz: length of z.
        z_prior: distribution of each dimension of z: normal for N(0, 1), uniform for U(-1, 1).
        ngf: channels of G's last hidden layer; each earlier layer has twice as many.
        ndf: channels of D's first layer; each later layer has twice as many.
        kernel: side of the strided kernels, 4 or 5; 4 is a multiple of the stride and so causes less checkerboard.
        d_norm: normalisation in D: none (use a gradient penalty), batch (as in the paper), or spectral (Miyato et al.
            2018).
        init: initial weights of D: he keeps the variance without batch norm, dcgan is N(0, 0.02). G always uses dcgan.
        upsample: how G doubles its side: nearest (neighbours, then a 3x3 convolution) or transposed (convolution, as in
            the paper). Different kinds for the doublings from 4x4 on are separated by commas; growing adds the kind
            grown, which is nearest without batch norm before it.
        network: dcgan, or mlp for fully connected layers of 256 and 512 units, as in the first GANs.
    """

    size: int = 64
    nz: int = 128
    z_prior: Literal["normal", "uniform"] = "normal"
    ngf: int = 64
    ndf: int = 64
    kernel: Literal[4, 5] = 4
    d_norm: Literal["none", "batch", "spectral"] = "none"
    init: Literal["he", "dcgan"] = "he"
    upsample: str = "nearest"
    network: Literal["dcgan", "mlp"] = "dcgan"

    def __post_init__(self) -> None:
        _one_of("size", self.size, (16, 32, 64, 128, 256))
        _check(self, positive="nz ngf ndf")
        kinds = self.upsample.split(",")
        for kind in kinds:
            _one_of("upsample", kind, get_args(Upsample))
        if len(kinds) not in (1, self.doublings):
            raise ConfigError(
                f"upsample has {len(kinds)} kinds; expected one, or one for each of the {self.doublings} doublings"
            )

    @property
    def doublings(self) -> int:
        """How often G doubles its side from 4x4, and D halves it."""
        return self.size.bit_length() - 3

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each doubling, the one from 4x4 first."""
        kinds = tuple(self.upsample.split(","))
        return kinds if len(kinds) > 1 else kinds * self.doublings


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run of G and D.

    Attributes:
        network: architecture of the two networks.
        start: weights to start from, as a name or file; smaller networks are grown. Empty for random weights.
        kimg: length of the run in thousands of real images shown to D.
        batch: real images per step of D, over all processes.
        loss: objective of D and G: relativistic, non-saturating, minimax, ls, hinge or wgan-gp.
        d_steps: steps of D per step of G.
        r1: weight of the R1 penalty, half of D's squared gradient on real images; unused with wgan-gp.
        r2: weight of the R2 penalty, half of D's squared gradient on generated images; unused with wgan-gp.
        gp: weight of the gradient penalty of wgan-gp; unused with other losses.
        penalty_every: steps between lazy gradient penalties, whose weights are scaled up accordingly.
        translate: largest random shift of D's inputs, real and generated, as a share of the side; 0 for none.
        lr: Adam's initial learning rate.
        lr_end: final learning rate, at the end of a cosine schedule.
        ttur: D's learning rate as a multiple of G's, the two time-scale update rule (Heusel et al. 2017).
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient.
        ema_kimg: half-life of G's moving average in thousands of images; 0 for no average.
        flip: flip half of the images horizontally.
        precision: number format of the networks: bf16 for autocast to bfloat16, fp32 for float32 throughout.
        seed: seed of the initial weights, z, image order and augmentation.
        tick_kimg: thousands of images between log lines.
        sample_kimg: thousands of images between sample grids.
        save_minutes: minutes between checkpoints.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    start: str = ""
    kimg: float = 1500
    batch: int = 64
    loss: Loss = "relativistic"
    d_steps: int = 1
    r1: float = 1
    r2: float = 1
    gp: float = 10
    penalty_every: int = 4
    translate: float = 0
    lr: float = 2e-4
    lr_end: float = 5e-5
    ttur: float = 1
    beta1: float = 0.0
    beta2: float = 0.99
    ema_kimg: float = 20
    flip: bool = True
    precision: Precision = "bf16"
    seed: int = 0
    tick_kimg: float = 4
    sample_kimg: float = 20
    save_minutes: float = 3

    def __post_init__(self) -> None:
        positive = "kimg batch d_steps penalty_every lr ttur tick_kimg sample_kimg"
        _check(self, positive, "r1 r2 gp translate lr_end ema_kimg save_minutes")


PRESETS = {
    "default": TrainConfig(),
    # Radford et al., ICLR 2016, sections 3 and 4, figure 1: uniform z of length 100, first layer 4x4x1024, 5x5 kernels,
    # batch norm in both networks, N(0, 0.02), batches of 128, Adam with 2e-4 and beta1 0.5.
    "paper": TrainConfig(
        network=NetworkConfig(
            nz=100, z_prior="uniform", ngf=128, ndf=128, kernel=5, d_norm="batch", init="dcgan", upsample="transposed"
        ),
        batch=128,
        loss="non-saturating",
        r1=0,
        r2=0,
        lr_end=2e-4,
        beta1=0.5,
        beta2=0.999,
        ema_kimg=0,
        flip=False,
        precision="fp32",
    ),
}


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of a training run of the encoder E.

    Attributes:
        size: side of the images in pixels; smaller networks are grown. 0 for the size of the weights.
        start: weights whose E to start from, as a name or file; empty for the weights that E is trained for.
        nef: channels of E's first layer; each later layer has twice as many. The command defaults to that of the E to
            start from, if any; another number starts a new E.
        skips: let E add features to G's hidden layers, in addition to z.
        kimg: length of the run in thousands of real images shown to E.
        batch: real images per step.
        pairs: generated images per step, whose z is known.
        noised: share of the faces whose z gets noise; these must match the visible pixels and look real, but need not
            match under the hole.
        image_weight: weight of the L1 distance between G(E(x)) and x.
        hole_weight: weight of masked pixels relative to visible ones in that distance.
        z_weight: weight of the squared error of E(G(z)).
        z_square_weight: weight of the mean square of E(x).
        feature_weight: weight of the distance between the completed image and x in the critic's features.
        adversarial_weight: weight of the relativistic loss of the completed image; above 0, a critic that starts as D
            is trained to distinguish completed images from real ones.
        penalty: weight of half of the critic's squared gradient on real and on completed images.
        lr_critic: the critic's learning rate.
        warm_kimg: thousands of images at the start from which only the critic learns; over as many again, the other
            learning rates rise from 0.
        lr: Adam's initial learning rate.
        lr_end: final learning rate, at the end of a cosine schedule.
        lr_old: learning rate of the older layers of grown networks, as a multiple of that of the new ones.
        lr_generator: G's learning rate as a multiple of E's; 0 freezes G.
        ema_kimg: half-life of the moving averages in thousands of images; 0 for no average.
        flip: flip half of the images horizontally.
        precision: number format of the networks: bf16 for autocast to bfloat16, fp32 for float32 throughout.
        seed: seed of the initial weights, z, holes, image order and flips.
        tick_kimg: thousands of images between log lines.
        sample_kimg: thousands of images between grids and measurements.
        save_minutes: minutes between checkpoints.
    """

    size: int = 0
    start: str = ""
    nef: int = 64
    skips: bool = True
    kimg: float = 300
    batch: int = 64
    pairs: int = 16
    noised: float = 0.125
    image_weight: float = 1
    hole_weight: float = 3
    z_weight: float = 0.1
    z_square_weight: float = 0.005
    feature_weight: float = 1
    adversarial_weight: float = 0.05
    penalty: float = 1
    lr_critic: float = 1e-4
    warm_kimg: float = 0
    lr: float = 1e-3
    lr_end: float = 2e-5
    lr_old: float = 0.25
    lr_generator: float = 0
    ema_kimg: float = 10
    flip: bool = True
    precision: Precision = "bf16"
    seed: int = 0
    tick_kimg: float = 4
    sample_kimg: float = 20
    save_minutes: float = 3

    def __post_init__(self) -> None:
        numbers = (item.name for item in fields(self) if item.type in (int, float) and item.name != "seed")
        _check(self, "nef kimg batch lr tick_kimg sample_kimg", " ".join(numbers))
        if self.noised > 1:
            raise ConfigError(f"noised is {self.noised}; expected a share of the faces, from 0 to 1")


@dataclass(frozen=True)
class EvaluateOptions:
    """How much `dcgan.evaluate.evaluate` measures.

    Attributes:
        samples: generated faces, and as many real ones for the real-vs-real baseline; at most as many as there are real
            faces.
        seed: seed of z and of all random choices.
        k: neighbours for precision and recall.
        mre_faces: faces of each kind to reconstruct.
        mre_steps: steps of Adam per reconstruction.
        mre_restarts: z to optimise per face; the best result counts.
        mre_draws: random z from which the starting points are chosen.
        fid_weights: Inception weights file for FID; None to leave FID out.
    """

    samples: int = 10_000
    seed: int = 0
    k: int = 3
    mre_faces: int = 100
    mre_steps: int = 200
    mre_restarts: int = 1
    mre_draws: int = 256
    fid_weights: Path | None = None

    def __post_init__(self) -> None:
        _check(self, "samples k mre_faces mre_steps mre_restarts mre_draws", "seed")
        if self.mre_restarts > self.mre_draws:
            raise ConfigError(f"mre_restarts is {self.mre_restarts}; expected at most mre_draws, {self.mre_draws}")


def network_config(values: dict[str, Any]) -> NetworkConfig:
    """Build the NetworkConfig that a checkpoint or weights file stores; older files have fewer settings.

    Raises:
        ConfigError: a setting is unknown or invalid.
    """
    unknown = values.keys() - {item.name for item in fields(NetworkConfig)}
    if unknown:
        raise ConfigError(f"the network settings {sorted(unknown)} are unknown; update this program")
    return NetworkConfig(**({"upsample": "transposed"} | values))
