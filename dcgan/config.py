"""What a training run is made of; the command line's defaults come from here."""

from dataclasses import dataclass, field, fields
from typing import Any


class ConfigError(ValueError):
    """A setting that no network or run can be built from."""


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}, expected a number above 0")


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of G and D, stored with every checkpoint and every weights file.

    Attributes:
        size: side of the images in pixels, 16, 32, 64 or 128.
        nz: length of z.
        z_prior: "normal" for N(0, 1), "uniform" for U(-1, 1), per dimension of z.
        ngf: channels of G's last hidden layer; each layer before it has twice as many.
        ndf: channels of D's first layer; each layer after it has twice as many.
        kernel: side of the strided kernels, 4 or 5; 4 divides by the stride and leaves less of a checkerboard.
        d_norm: "batch" for the paper's batch norm in D, "none" where a gradient penalty takes its place.
        init: "dcgan" for N(0, 0.02), "he" to keep the variance through a D without batch norm.
    """

    size: int = 64
    nz: int = 128
    z_prior: str = "normal"
    ngf: int = 64
    ndf: int = 64
    kernel: int = 4
    d_norm: str = "none"
    init: str = "he"

    def __post_init__(self) -> None:
        _one_of("size", self.size, (16, 32, 64, 128))
        _one_of("z_prior", self.z_prior, ("normal", "uniform"))
        _one_of("kernel", self.kernel, (4, 5))
        _one_of("d_norm", self.d_norm, ("none", "batch"))
        _one_of("init", self.init, ("he", "dcgan"))
        for name in ("nz", "ngf", "ndf"):
            _positive(name, getattr(self, name))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        network: the two networks.
        kimg: length of the run in thousands of real images shown to D.
        batch: images a step.
        loss: "relativistic" pairs each real image with a generated one, "classic" is Goodfellow's non-saturating loss.
        gamma: weight of the gradient penalties R1 and R2; 0 for none.
        penalty_every: steps from one penalty to the next, which is then weighted by as much.
        lr: Adam's learning rate at the start.
        lr_end: the learning rate at the end of the run, on a cosine from `lr`.
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
    kimg: float = 1500
    batch: int = 64
    loss: str = "relativistic"
    gamma: float = 1
    penalty_every: int = 4
    lr: float = 2e-4
    lr_end: float = 5e-5
    beta1: float = 0.0
    beta2: float = 0.99
    ema_kimg: float = 20
    flip: bool = True
    precision: str = "bf16"
    seed: int = 0
    tick_kimg: float = 4
    sample_kimg: float = 20
    save_minutes: float = 3

    def __post_init__(self) -> None:
        _one_of("loss", self.loss, ("relativistic", "classic"))
        _one_of("precision", self.precision, ("bf16", "fp32"))
        for name in ("kimg", "batch", "penalty_every", "lr", "tick_kimg", "sample_kimg"):
            _positive(name, getattr(self, name))
        for name in ("gamma", "lr_end", "ema_kimg", "save_minutes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must not be negative")


PRESETS = {
    "default": TrainConfig(),
    # Radford et al., ICLR 2016, sections 3 and 4, figure 1: 100 uniform z, 4x4x1024 first, 5x5 kernels, batch norm in
    # both networks, N(0, 0.02), batches of 128, Adam 2e-4 with beta1 0.5.
    "paper": TrainConfig(
        network=NetworkConfig(nz=100, z_prior="uniform", ngf=128, ndf=128, kernel=5, d_norm="batch", init="dcgan"),
        batch=128,
        loss="classic",
        gamma=0,
        lr_end=2e-4,
        beta1=0.5,
        beta2=0.999,
        ema_kimg=0,
        flip=False,
        precision="fp32",
    ),
}


def network_config(values: dict[str, Any]) -> NetworkConfig:
    """A NetworkConfig from what a file says.

    Raises:
        ConfigError: a key is missing or unknown, or a value is none that networks can be built from.
    """
    known = {item.name for item in fields(NetworkConfig)}
    if values.keys() != known:
        raise ConfigError(
            f"the network's settings are {sorted(values)}, expected {sorted(known)}; the file is of another version"
        )
    return NetworkConfig(**values)
