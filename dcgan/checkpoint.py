"""Checkpoints, which training resumes from, and weights files, which everything else loads."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import weights
from align.errors import InputError
from align.files import atomic_write
from dcgan.config import ConfigError, network_config
from dcgan.networks import Discriminator, Encoder, Generator

_FORMAT = "dcgan-completion"
_VERSION = 1


class CheckpointError(InputError):
    """A run folder has no usable checkpoint, or belongs to another run."""


class DeviceError(InputError):
    """The requested device is unknown or absent."""


class WeightsError(InputError):
    """A weights file is absent, damaged, or in another format."""


@dataclass(frozen=True)
class Weights:
    """Trained networks in eval mode, whose parameters require no gradients.

    Attributes:
        generator: moving average of G.
        discriminator: D.
        template: alignment template of the training faces.
        facts: metadata of the training, such as images, seconds, machine and settings.
        sha256: digest of settings and tensors, as stored in the file.
        encoder: moving average of E, if one was trained.
    """

    generator: Generator
    discriminator: Discriminator
    template: str
    facts: dict[str, Any]
    sha256: str
    encoder: Encoder | None = None

    @property
    def logit_offset(self) -> float:
        """Logit that counts as undecided: D's mean on real faces for losses that only compare logits, otherwise 0."""
        return float(self.facts.get("logit_offset", 0.0))


def save_checkpoint(folder: Path, images: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint and delete all but the two newest.

    Args:
        folder: the run folder.
        images: real images shown so far, for the file name.
        state: nested dictionaries of tensors, numbers and strings.
    Returns:
        Path of the file.
    """
    path = folder / f"checkpoint-{images:010d}.pt"
    with atomic_write(path) as file:
        torch.save(state, file)
    for old in _checkpoints(folder)[2:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the newest readable checkpoint of a run folder; None if it has no checkpoints.

    Raises:
        CheckpointError: there are checkpoints, but none is readable.
    """
    reasons: list[str] = []
    for path in _checkpoints(folder):
        try:
            # weights_only refuses pickles that run code.
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises a dozen types for damaged files; try the previous checkpoint
            reasons.append(f"{path.name}: {type(error).__name__}")
    if reasons:
        raise CheckpointError(f"no checkpoint in {folder} is readable ({'; '.join(reasons)}); start in a new folder")
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU if there is none.

    Raises:
        DeviceError: the name is not auto, cpu, cuda or cuda:N, or the device is absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"the device is {name!r}; expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"the device {name} is absent: found {torch.cuda.device_count()} CUDA devices; use cpu")
    return device


def save_weights(
    path: Path,
    generator: Generator,
    discriminator: Discriminator,
    template: str,
    facts: dict[str, Any],
    encoder: Encoder | None = None,
) -> str:
    """Write networks to one safetensors file, in half precision.

    Args:
        path: ends in .safetensors.
        generator: moving average of G, after `dcgan.train.settle_batch_norm`.
        discriminator: D.
        template: alignment template of the training faces.
        facts: metadata of the training; must be JSON.
        encoder: moving average of E, if any.
    Returns:
        SHA-256 of settings and tensors, which is also stored in the file.
    """
    from safetensors.torch import save

    tensors = {
        f"{name}.{key}": (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, network in _named(generator, discriminator, encoder)
        for key, value in network.state_dict().items()
    }
    header = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "network": json.dumps(asdict(generator.config), sort_keys=True),
        "template": template,
        "facts": json.dumps(facts, sort_keys=True),
    }
    if encoder is not None:
        header["encoder"] = json.dumps(encoder.settings)
    header["sha256"] = tensor_digest(header, tensors)
    with atomic_write(path) as file:
        file.write(save(tensors, header))
    return header["sha256"]


def load(name_or_file: str, device: torch.device | str = "auto") -> Weights:
    """Load weights by their name in the registry or from a file.

    Args:
        name_or_file: see `weights.resolve`.
        device: where to put the networks, see `pick_device`.
    Raises:
        WeightsError: the name is unknown, or the file is unusable.
        DeviceError: the device is unknown or absent.
    """
    if isinstance(device, str):
        device = pick_device(device)
    try:
        path = weights.resolve(name_or_file)
    except weights.WeightsFileError as error:
        raise WeightsError(str(error)) from error
    # The registry has already verified the SHA-256 of its own files.
    return load_weights(path, device, verified=name_or_file in weights.REGISTRY)


def load_fitting(name_or_file: str, device: torch.device | str = "auto") -> list[Weights]:
    """Load the weights that faces of different sizes need: all in the registry for "auto", else `load`'s alone."""
    names = list(weights.REGISTRY) if name_or_file == weights.AUTO else [name_or_file]
    return [load(name, device) for name in names]


def load_weights(path: Path, device: torch.device | str = "cpu", verified: bool = False) -> Weights:
    """Load networks from a file written by `save_weights`.

    Args:
        path: path of the file.
        device: where to put the networks.
        verified: skip the SHA-256 check, since the file has been verified already.
    Raises:
        WeightsError: the file is absent, damaged, modified, of a newer version, or in another format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path} is not a file; expected weights written by python -m dcgan export")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); expected weights written by python -m dcgan export"
        ) from error
    if header.get("format") != _FORMAT:
        raise WeightsError(f"{path} is from another program; expected weights written by python -m dcgan export")
    if header.get("version") != str(_VERSION):
        raise WeightsError(
            f"{path} has format version {header.get('version')}, this program reads version {_VERSION}; update it"
        )
    if not verified and header.get("sha256") != tensor_digest(
        {key: header[key] for key in header if key != "sha256"}, tensors
    ):
        raise WeightsError(f"{path} is damaged: its sha256 does not match its contents; export or download it again")
    try:
        config = network_config(json.loads(header["network"]))
        facts = json.loads(header["facts"])
        generator, discriminator = Generator(config), Discriminator(config)
        # Encoders in older files have no skips.
        encoder = Encoder(config, **({"skips": False} | json.loads(header["encoder"]))) if "encoder" in header else None
    except (KeyError, ValueError, TypeError, RuntimeError, ConfigError) as error:
        raise WeightsError(f"{path} describes an invalid network: {error}") from error
    for name, network in _named(generator, discriminator, encoder):
        _load_network(path, name, network, tensors)
        network.to(device).eval().requires_grad_(False)
    return Weights(generator, discriminator, header["template"], facts, header["sha256"], encoder)


def _named(
    generator: Generator, discriminator: Discriminator, encoder: Encoder | None
) -> list[tuple[str, Generator | Discriminator | Encoder]]:
    """The networks by the prefix of their tensors in the file."""
    encoders = [] if encoder is None else [("E", encoder)]
    return [("G", generator), ("D", discriminator), *encoders]


def _load_network(path: Path, name: str, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    expected = network.state_dict()
    found = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        raise WeightsError(f"{path}: {name} has missing or extra tensors: {', '.join(odd[:4])}")
    for key, value in found.items():
        if value.shape != expected[key].shape:
            raise WeightsError(f"{path}: {name}.{key} is {tuple(value.shape)}; expected {tuple(expected[key].shape)}")
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {name}.{key} contains NaN or infinity")
    network.load_state_dict(found)


def tensor_digest(header: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of settings and tensors, independent of their order in the file."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
