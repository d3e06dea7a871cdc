"""Settings of networks, training and evaluation, with the help texts of the command line. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from align.errors import ConfigError
from align.settings import SEEDS, Range, check

Loss = Literal["relativistic", "non-saturating", "minimax", "ls", "hinge", "wgan-gp"]
Precision = Annotated[Literal["bf16", "fp32"], "number format: autocast to bfloat16, or float32 throughout"]
Upsample = Literal["nearest", "transposed", "grown"]
Kimg = Annotated[float, Range(0.001, 1_000_000), "length of the run in thousands of images"]
Batch = Annotated[int, Range(1, 65_536), "real images per step, of D in train, over all processes"]
Seed = Annotated[int, SEEDS, "seed of all random numbers"]
LearningRate = Annotated[float, Range(1e-9, 1), "Adam's initial learning rate"]
LastRate = Annotated[float, Range(0, 1), "final learning rate, at the end of a cosine schedule"]
AverageKimg = Annotated[float, Range(0, 1_000_000), "half-life of moving averages in thousands of images; 0 for none"]
Flip = Annotated[bool, "flip half of the images horizontally"]
Overwrite = Annotated[bool, "replace existing files"]
_Weight = Range(0, 1_000_000)
PerceptualWeight = Annotated[
    float, _Weight, "weight of the distance to x in the features of EfficientNet-Lite0, trained on ImageNet"
]
_Width = Range(1, 1024)


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of G and D, stored with every checkpoint and weights file."""

    size: Annotated[int, Range(16, 256), "side of the images in pixels: 16, 32, 64, 128 or 256"] = 64
    nz: Annotated[int, Range(1, 4096), "length of z"] = 128
    z_prior: Annotated[Literal["normal", "uniform"], "distribution of z: N(0, 1) or U(-1, 1)"] = "normal"
    ngf: Annotated[int, _Width, "channels of G's last hidden layer; each earlier layer has twice as many"] = 64
    ndf: Annotated[int, _Width, "channels of D's first layer; each later layer has twice as many"] = 64
    kernel: Annotated[Literal[4, 5], "side of the strided kernels; 4 causes less checkerboard"] = 4
    d_norm: Annotated[
        Literal["none", "batch", "spectral"],
        "normalisation in D: none (use a gradient penalty), batch (as in the paper), or spectral (Miyato et al. 2018)",
    ] = "none"
    init: Annotated[
        Literal["he", "dcgan"],
        "initial weights of D: he keeps the variance without batch norm, dcgan is N(0, 0.02); G always uses dcgan",
    ] = "he"
    upsample: Annotated[
        str,
        "how G doubles its side: nearest (neighbours, then a 3x3 convolution) or transposed (convolution, as in the "
        "paper); different kinds for the doublings from 4x4 on are separated by commas; growing adds the kind grown, "
        "which is nearest without batch norm before it",
    ] = "nearest"
    network: Annotated[Literal["dcgan", "mlp"], "mlp for fully connected layers, as in the first GANs"] = "dcgan"

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
class RunConfig:
    """Settings that all training runs share."""

    kimg: Kimg = 500
    batch: Batch = 64
    lr: LearningRate = 1e-3
    lr_end: LastRate = 1e-5
    seed: Seed = 0
    tick_kimg: Annotated[float, Range(0.001, 1_000_000), "thousands of images between log lines"] = 4
    sample_kimg: Annotated[float, Range(0.001, 1_000_000), "thousands of images between grids and measurements"] = 20
    save_minutes: Annotated[float, Range(0, 100_000), "minutes between checkpoints"] = 3

    def __post_init__(self) -> None:
        check(self)

    @property
    def step_images(self) -> int:
        """Real images per step."""
        return self.batch


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Settings of a training run of G and D."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    start: Annotated[str, "weights to start from, as a name or file; smaller networks are grown"] = ""
    kimg: Kimg = 1500
    loss: Annotated[Loss, "objective of D and G"] = "relativistic"
    d_steps: Annotated[int, Range(1, 1000), "steps of D per step of G"] = 1
    r1: Annotated[float, _Weight, "weight of half of D's squared gradient on real images; unused with wgan-gp"] = 1
    r2: Annotated[float, _Weight, "weight of half of D's squared gradient on generated images; unused with wgan-gp"] = 1
    gp: Annotated[float, _Weight, "weight of the gradient penalty of wgan-gp; unused with other losses"] = 10
    penalty_every: Annotated[int, Range(1, 1_000_000), "steps per gradient penalty, which is scaled up accordingly"] = 4
    translate: Annotated[float, Range(0, 1), "largest random shift of D's inputs, as a share of the side"] = 0
    lr: LearningRate = 2e-4
    lr_end: LastRate = 5e-5
    ttur: Annotated[float, Range(0.001, 1000), "D's learning rate as a multiple of G's (TTUR, Heusel et al. 2017)"] = 1
    beta1: Annotated[float, Range(0, 0.9999), "Adam's decay of the mean gradient"] = 0.0
    beta2: Annotated[float, Range(0, 0.999999), "Adam's decay of the mean squared gradient"] = 0.99
    ema_kimg: AverageKimg = 20
    flip: Flip = True
    precision: Precision = "bf16"

    @property
    def step_images(self) -> int:
        """Real images per step of G."""
        return self.batch * self.d_steps


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
class EncoderConfig(RunConfig):
    """Settings of a training run of the encoder E."""

    size: Annotated[int, Range(0, 256), "side of the images in pixels; smaller networks grow; 0 for their size"] = 0
    start: Annotated[str, "weights whose E to start from (default: the weights that E is trained for)"] = ""
    nef: Annotated[
        int,
        _Width,
        "channels of E's first layer; each later layer has twice as many; the command defaults to that of the E to "
        "start from, if any; another number starts a new E",
    ] = 64
    skips: Annotated[bool, "let E add features to G's hidden layers, in addition to z"] = True
    inputs: Annotated[
        Literal[4, 8],
        "channels that E sees: 4 for the visible pixels and the hole, 8 for their mirror image as well; the command "
        "defaults to those of the E to start from, if any, and can add the latter to it",
    ] = 4
    kimg: Kimg = 300
    pairs: Annotated[int, Range(0, 65_536), "generated images per step, whose z is known"] = 16
    noised: Annotated[float, Range(0, 1), "share of the faces whose z gets noise; they need only look real"] = 0.125
    image_weight: Annotated[float, _Weight, "weight of the L1 distance between G(E(x)) and x"] = 1
    hole_weight: Annotated[float, _Weight, "weight of masked pixels relative to visible ones in that distance"] = 3
    z_weight: Annotated[float, _Weight, "weight of the squared error of E(G(z))"] = 0.1
    z_square_weight: Annotated[float, _Weight, "weight of the mean square of E(x)"] = 0.005
    feature_weight: Annotated[float, _Weight, "weight of the distance to x in the features of the critic"] = 1
    perceptual_weight: PerceptualWeight = 0
    adversarial_weight: Annotated[float, _Weight, "weight of the relativistic loss by a critic that starts as D"] = 0.05
    patch_weight: Annotated[float, _Weight, "weight of the same loss for patches, which heads of the critic judge"] = 0
    penalty: Annotated[float, _Weight, "weight of half of the critic's squared gradient, on both kinds of images"] = 1
    lr_critic: Annotated[float, Range(0, 1), "the critic's learning rate"] = 1e-4
    warm_kimg: Annotated[
        float,
        Range(0, 1_000_000),
        "thousands of images at the start from which only the critic learns; over as many again, the other learning "
        "rates rise from 0",
    ] = 0
    lr_end: LastRate = 2e-5
    lr_old: Annotated[float, Range(0, 1000), "multiple of the learning rate for older layers of grown networks"] = 0.25
    lr_generator: Annotated[float, Range(0, 1000), "multiple of the learning rate for a copy of G; 0 for G itself"] = 0
    ema_kimg: AverageKimg = 10
    flip: Flip = True
    grey: Annotated[float, Range(0, 1), "share of the images whose colour is removed"] = 0
    contrast: Annotated[float, Range(0, 1), "share of the images whose brightness and contrast are changed"] = 0
    precision: Precision = "bf16"


@dataclass(frozen=True)
class LocatorConfig(RunConfig):
    """Settings of a training run of the locator; its images are views of faces."""

    nef: Annotated[int, _Width, "channels of the first layer; each later layer has twice as many"] = 16
    lr: LearningRate = 1.5e-3  # after a linear rise over the first ten thousand views


@dataclass(frozen=True)
class FinderConfig(RunConfig):
    """Settings of a training run of the finder; its images are crops with drawn damage."""

    kimg: Kimg = 250
    batch: Batch = 16
    lr: LearningRate = 2e-3


@dataclass(frozen=True)
class OctaveConfig(RunConfig):
    """Settings of a training run of the octave network; its images are parts of completed faces."""

    width: Annotated[int, Range(3, 1024), "channels at half the side; smaller sides have 5/3 and 3 times as many"] = 24
    batch: Batch = 8
    lr: LearningRate = 1e-3
    adversarial_weight: Annotated[
        float, _Weight, "weight of the relativistic loss of the patches in holes, beside an L1 distance of weight 1"
    ] = 0.2
    perceptual_weight: PerceptualWeight = 0
    ema_kimg: AverageKimg = 3


@dataclass(frozen=True)
class EvaluateOptions:
    """How much `dcgan.evaluate.evaluate` measures."""

    samples: Annotated[int, Range(2, 1_000_000), "generated faces, and real ones for the baseline, if there are"] = (
        10_000
    )
    seed: Annotated[int, SEEDS, "seed of z and of all random choices"] = 0
    k: Annotated[int, Range(1, 1000), "neighbours for precision and recall"] = 3
    mre_faces: Annotated[int, Range(1, 100_000), "faces of each kind to reconstruct"] = 100
    mre_steps: Annotated[int, Range(1, 100_000), "steps of Adam per reconstruction"] = 200
    mre_draws: Annotated[int, Range(1, 100_000), "random z from which the starting point of each face is chosen"] = 256

    def __post_init__(self) -> None:
        check(self)
