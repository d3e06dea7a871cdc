"""Settings of networks, training and evaluation; their docstrings are the command line's help. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from align.errors import ConfigError, hint
from align.settings import SEEDS, Range, check
from weights import AUTO, REGISTRY

Loss = Literal["relativistic", "non-saturating", "minimax", "ls", "hinge", "wgan-gp"]
Precision = Literal["bf16", "fp32"]
Upsample = Literal["nearest", "transposed", "grown"]
_Kimg = Annotated[float, Range(0.001, 1_000_000)]
_KimgOr0 = Annotated[float, Range(0, 1_000_000)]
_Weight = Annotated[float, Range(0, 1_000_000)]
_Rate = Annotated[float, Range(0, 1)]
_Width = Annotated[int, Range(1, 1024)]


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

    size: Annotated[int, Range(16, 256)] = 64
    nz: Annotated[int, Range(1, 4096)] = 128
    z_prior: Literal["normal", "uniform"] = "normal"
    ngf: _Width = 64
    ndf: _Width = 64
    kernel: Literal[4, 5] = 4
    d_norm: Literal["none", "batch", "spectral"] = "none"
    init: Literal["he", "dcgan"] = "he"
    upsample: str = "nearest"
    network: Literal["dcgan", "mlp"] = "dcgan"

    def __post_init__(self) -> None:
        check(self)
        if self.size not in (16, 32, 64, 128, 256):
            raise ConfigError(f"size is {self.size}; expected 16, 32, 64, 128 or 256")
        kinds = self.upsample.split(",")
        for kind in kinds:
            if kind not in get_args(Upsample):
                raise ConfigError(f"upsample is {kind!r}; expected one of {', '.join(get_args(Upsample))}")
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
    kimg: _Kimg = 1500
    batch: Annotated[int, Range(1, 65_536)] = 64
    loss: Loss = "relativistic"
    d_steps: Annotated[int, Range(1, 1000)] = 1
    r1: _Weight = 1
    r2: _Weight = 1
    gp: _Weight = 10
    penalty_every: Annotated[int, Range(1, 1_000_000)] = 4
    translate: Annotated[float, Range(0, 1)] = 0
    lr: Annotated[float, Range(1e-9, 1)] = 2e-4
    lr_end: _Rate = 5e-5
    ttur: Annotated[float, Range(0.001, 1000)] = 1
    beta1: Annotated[float, Range(0, 0.9999)] = 0.0
    beta2: Annotated[float, Range(0, 0.999999)] = 0.99
    ema_kimg: _KimgOr0 = 20
    flip: bool = True
    precision: Precision = "bf16"
    seed: Annotated[int, SEEDS] = 0
    tick_kimg: _Kimg = 4
    sample_kimg: _Kimg = 20
    save_minutes: Annotated[float, Range(0, 100_000)] = 3

    def __post_init__(self) -> None:
        check(self)


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

    size: Annotated[int, Range(0, 256)] = 0
    start: str = ""
    nef: _Width = 64
    skips: bool = True
    kimg: _Kimg = 300
    batch: Annotated[int, Range(1, 65_536)] = 64
    pairs: Annotated[int, Range(0, 65_536)] = 16
    noised: Annotated[float, Range(0, 1)] = 0.125
    image_weight: _Weight = 1
    hole_weight: _Weight = 3
    z_weight: _Weight = 0.1
    z_square_weight: _Weight = 0.005
    feature_weight: _Weight = 1
    adversarial_weight: _Weight = 0.05
    penalty: _Weight = 1
    lr_critic: _Rate = 1e-4
    warm_kimg: _KimgOr0 = 0
    lr: Annotated[float, Range(1e-9, 1)] = 1e-3
    lr_end: _Rate = 2e-5
    lr_old: Annotated[float, Range(0, 1000)] = 0.25
    lr_generator: Annotated[float, Range(0, 1000)] = 0
    ema_kimg: _KimgOr0 = 10
    flip: bool = True
    precision: Precision = "bf16"
    seed: Annotated[int, SEEDS] = 0
    tick_kimg: _Kimg = 4
    sample_kimg: _Kimg = 20
    save_minutes: Annotated[float, Range(0, 100_000)] = 3

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class LocatorConfig:
    """Settings of a training run of the locator.

    Attributes:
        nef: channels of the first layer; each later layer has twice as many.
        kimg: length of the run in thousands of views.
        batch: views per step.
        lr: Adam's initial learning rate, after a linear rise over the first ten thousand views.
        lr_end: final learning rate, at the end of a cosine schedule.
        seed: seed of the initial weights, positions, holes and colours.
        tick_kimg: thousands of views between log lines.
        sample_kimg: thousands of views between grids and measurements.
        save_minutes: minutes between checkpoints.
    """

    nef: _Width = 16
    kimg: _Kimg = 500
    batch: Annotated[int, Range(1, 65_536)] = 64
    lr: Annotated[float, Range(1e-9, 1)] = 1.5e-3
    lr_end: _Rate = 1e-5
    seed: Annotated[int, SEEDS] = 0
    tick_kimg: _Kimg = 4
    sample_kimg: _Kimg = 20
    save_minutes: Annotated[float, Range(0, 100_000)] = 3

    def __post_init__(self) -> None:
        check(self)


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

    samples: Annotated[int, Range(2, 1_000_000)] = 10_000
    seed: Annotated[int, SEEDS] = 0
    k: Annotated[int, Range(1, 1000)] = 3
    mre_faces: Annotated[int, Range(1, 100_000)] = 100
    mre_steps: Annotated[int, Range(1, 100_000)] = 200
    mre_restarts: Annotated[int, Range(1, 10_000)] = 1
    mre_draws: Annotated[int, Range(1, 100_000)] = 256
    fid_weights: Path | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.mre_restarts > self.mre_draws:
            raise ConfigError(f"mre_restarts is {self.mre_restarts}; expected at most mre_draws, {self.mre_draws}")


def weights_name(name: str) -> str:
    """Return a name of weights or the path of a file unchanged, before anything slow is imported.

    Raises:
        ConfigError: there are no such weights, and the name has no suffix of a file.
    """
    if name != AUTO and name not in REGISTRY and not Path(name).suffix:
        raise ConfigError(f"there are no weights {name!r}; {hint(name, (*REGISTRY, 'a weights file'))}")
    return name
