"""Settings of training and evaluation; imports nothing heavy, since the command line's defaults come from here."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from align.errors import InputError

Loss = Literal["relativistic", "non-saturating", "minimax", "ls", "hinge", "wgan-gp"]
Precision = Literal["bf16", "fp32"]
Upsample = Literal["nearest", "transposed", "grown"]


class ConfigError(InputError):
    """A setting that no network or run can be built from."""


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")


def _check_choices(config: Any) -> None:
    """See that every field with a Literal type has one of its values."""
    for item in fields(config):
        if get_origin(item.type) is Literal:
            _one_of(item.name, getattr(config, item.name), get_args(item.type))


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}, expected a number above 0")


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of G and D, stored with every checkpoint and every weights file.

    Attributes:
        size: side of the images in pixels: 16, 32, 64, 128 or 256.
        nz: length of z.
        z_prior: "normal" for N(0, 1), "uniform" for U(-1, 1), per dimension of z.
        ngf: channels of G's last hidden layer; each layer before it has twice as many.
        ndf: channels of D's first layer; each layer after it has twice as many.
        kernel: side of the strided kernels, 4 or 5; 4 divides by the stride and leaves less of a checkerboard.
        d_norm: "batch" for the paper's batch norm in D, "spectral" (Miyato et al. 2018), "none" under a penalty.
        init: of D: "dcgan" for N(0, 0.02), as G always has it, "he" to keep the variance without batch norm.
        upsample: how G doubles its side: "nearest" neighbours and a 3x3 convolution, or the paper's "transposed"
            convolutions; or the kind of each doubling from 4x4 on, separated by commas. A third kind, "grown", is
            nearest without batch norm in the hidden layer before it (see dcgan.grow).
        network: "dcgan", or "mlp" for fully connected layers of 256 and 512 units, as GANs began.
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
        _check_choices(self)
        kinds = self.upsample.split(",")
        for kind in kinds:
            _one_of("upsample", kind, get_args(Upsample))
        if len(kinds) not in (1, self.doublings):
            raise ConfigError(
                f"upsample has {len(kinds)} kinds, expected one, or one for each of the {self.doublings} doublings"
            )
        for name in ("nz", "ngf", "ndf"):
            _positive(name, getattr(self, name))

    @property
    def doublings(self) -> int:
        """How often G doubles its side, from 4x4 to the full size; D halves it as often."""
        return self.size.bit_length() - 3

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each doubling, from 4x4 on."""
        kinds = tuple(self.upsample.split(","))
        return kinds if len(kinds) > 1 else kinds * self.doublings


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        network: the two networks.
        start: weights to begin from, a name or a file, instead of random ones; empty for these. Networks of a smaller
            size grow.
        kimg: length of the run in thousands of real images shown to D.
        batch: real images in a step of D; over all processes where there are several.
        loss: relativistic, non-saturating, minimax, ls, hinge or wgan-gp.
        d_steps: steps of D for one of G.
        r1: weight of D's squared gradient on real images, halved; not with wgan-gp.
        r2: the same on generated images.
        gp: weight of the penalty of wgan-gp, with that loss only.
        penalty_every: steps from one penalty to the next, which is then weighted by as much.
        translate: augmentation: largest shift of what D sees, real or generated, as a share of the side; 0 for none.
        lr: Adam's learning rate at the start.
        lr_end: the learning rate at the end of the run, on a cosine from `lr`.
        ttur: D's learning rate as a multiple of G's, the two time-scale update rule (Heusel et al. 2017).
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        ema_kimg: half-life of G's moving average, in thousands of images; 0 samples from G itself.
        flip: mirror half of the images.
        precision: "bf16" computes convolutions in bfloat16, "fp32" everything in float32.
        seed: of the initial weights, z, the order of the images and the mirroring.
        tick_kimg: images between two lines in the log, in thousands.
        sample_kimg: images between two grids of samples, in thousands.
        save_minutes: wall-clock between two checkpoints.
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
        _check_choices(self)
        for name in ("kimg", "batch", "d_steps", "penalty_every", "lr", "ttur", "tick_kimg", "sample_kimg"):
            _positive(name, getattr(self, name))
        for name in ("r1", "r2", "gp", "translate", "lr_end", "ema_kimg", "save_minutes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must not be negative")


PRESETS = {
    "default": TrainConfig(),
    # Radford et al., ICLR 2016, sections 3 and 4, figure 1: 100 uniform z, 4x4x1024 first, 5x5 kernels, batch norm in
    # both networks, N(0, 0.02), batches of 128, Adam 2e-4 with beta1 0.5.
    "paper": TrainConfig(
        network=NetworkConfig(
            nz=100,
            z_prior="uniform",
            ngf=128,
            ndf=128,
            kernel=5,
            d_norm="batch",
            init="dcgan",
            upsample="transposed",
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
    """A training run of the encoder.

    Attributes:
        size: side of the images in pixels; smaller networks grow to it. 0 for the size of the weights.
        start: weights whose encoder E begins as, a name or a file; empty for the weights that it is trained for.
        nef: channels of E's first layer; each layer after it has twice as many. Another than that of the E
            among the weights begins a new E.
        skips: let E amend G's hidden layers, not only guess z.
        kimg: length of the run in thousands of real images shown to E.
        batch: real images in a step.
        pairs: generated images in a step, whose z is known.
        noised: share of the faces whose z gets noise on top of the guess: these need only agree with what is known, and
            look real.
        image_weight: of the L1 distance of G(E(x)) from x.
        hole_weight: how much more than a known pixel one under the hole counts in that distance.
        z_weight: of the squared error of E(G(z)) from z.
        z_square_weight: of the mean square of E(x).
        feature_weight: of the distance of the completed image from x in D's features.
        adversarial_weight: of the relativistic loss of the completed image against x. With any, a critic, which begins
            as D, learns to tell the two apart; without, it stays as it is.
        penalty: weight of the critic's squared gradient on real images and on completed ones, halved.
        lr_critic: the critic's learning rate.
        warm_kimg: thousands of images at the start that the critic alone learns from; over as many again the other
            learning rates rise.
        lr: Adam's learning rate at the start.
        lr_end: the learning rate at the end of the run, on a cosine from `lr`.
        lr_old: learning rate of grown networks' older layers, as a multiple of that of the new ones.
        lr_generator: G's learning rate as a multiple of E's; 0 leaves G as it is.
        ema_kimg: half-life of E's moving average, in thousands of images; 0 for E itself.
        flip: mirror half of the images.
        precision: "bf16" computes convolutions in bfloat16, "fp32" everything in float32.
        seed: of the initial weights, z, the holes, the order of the images and the mirroring.
        tick_kimg: images between two lines in the log, in thousands.
        sample_kimg: images between two grids and measurements, in thousands.
        save_minutes: wall-clock between two checkpoints.
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
        _check_choices(self)
        for name in ("nef", "kimg", "batch", "lr", "tick_kimg", "sample_kimg"):
            _positive(name, getattr(self, name))
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "seed" and isinstance(value, int | float) and value < 0:
                raise ConfigError(f"{item.name} is {value}, but must not be negative")
        if self.noised > 1:
            raise ConfigError(f"noised is {self.noised}, expected a share of the faces from 0 to 1")


@dataclass(frozen=True)
class EvaluateOptions:
    """How much `dcgan.evaluate.evaluate` measures.

    Attributes:
        samples: generated faces, and as many real ones for the floor; fewer where there are fewer real ones.
        seed: of z and of every choice.
        k: neighbours for precision and recall.
        mre_faces: faces to reconstruct, of each kind.
        mre_steps: steps of Adam for each.
        mre_restarts: z that are followed for each; the best counts.
        mre_draws: random z that those are chosen from.
        fid_weights: file of the Inception network for FID, which is left out without it.
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
        for name in ("samples", "k", "mre_faces", "mre_steps", "mre_restarts", "mre_draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a number from 1 on")
        if self.seed < 0 or self.mre_restarts > self.mre_draws:
            raise ConfigError(
                f"seed is {self.seed} and mre_restarts {self.mre_restarts} of {self.mre_draws} mre_draws; expected a "
                "seed from 0 on and no more restarts than draws"
            )


def network_config(values: dict[str, Any]) -> NetworkConfig:
    """A NetworkConfig from what a file says; an older file is silent on what was not yet a matter of choice.

    Raises:
        ConfigError: a key is unknown, or a value is none that networks can be built from.
    """
    unknown = values.keys() - {item.name for item in fields(NetworkConfig)}
    if unknown:
        raise ConfigError(f"the network has settings that are unknown here, {sorted(unknown)}; update this program")
    return NetworkConfig(**({"upsample": "transposed"} | values))
