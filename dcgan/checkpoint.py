"""Checkpoints to resume training from, and weights files, loaded onto a device."""

import hashlib
import json
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
    """A run folder that cannot be resumed from."""


class DeviceError(InputError):
    """A device that was asked for and is not there."""


class WeightsError(InputError):
    """A file that is none of our weights, or that is damaged."""


@dataclass(frozen=True)
class Weights:
    """Trained networks, ready to use.

    Attributes:
        generator: G's moving average, in eval mode, without gradients of its own weights.
        discriminator: D, likewise.
        template: how the faces were aligned that it was trained on.
        facts: what is known of the training: images seen, time, machine, mean logits and more.
        sha256: of the tensors and settings, as the file itself states it.
        encoder: E, likewise, where one was trained.
    """

    generator: Generator
    discriminator: Discriminator
    template: str
    facts: dict[str, Any]
    sha256: str
    encoder: Encoder | None = None

    @property
    def logit_offset(self) -> float:
        """D's mean logit on real faces where its zero means nothing, 0 where it does."""
        return float(self.facts.get("logit_offset", 0.0))


def save_checkpoint(folder: Path, images: int, state: dict[str, Any]) -> Path:
    """Write one checkpoint of a run and drop all but the two newest.

    Args:
        folder: the run's folder.
        images: real images shown so far; the file's name carries the number.
        state: nested dictionaries of tensors, numbers and strings.
    Returns:
        The file's path.
    """
    path = folder / f"checkpoint-{images:010d}.pt"
    with atomic_write(path) as file:
        torch.save(state, file)
    for old in _checkpoints(folder)[2:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run that can be read; None for a folder without any.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
    """
    reasons: list[str] = []
    for path in _checkpoints(folder):
        try:
            # weights_only: a checkpoint is data; a pickle that would run code is refused.
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises a dozen types for a damaged file; the one before it is tried
            reasons.append(f"{path.name}: {type(error).__name__}")
    if reasons:
        raise CheckpointError(f"no checkpoint in {folder} can be read ({'; '.join(reasons)}); begin in a new folder")
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def pick_device(name: str) -> torch.device:
    """The device of a name: "auto" takes the first GPU, or the CPU where there is none.

    Raises:
        DeviceError: the name is none of auto, cpu, cuda, cuda:N, or that device is absent: never a silent CPU run.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"the device is {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"the device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} was asked for, but {torch.cuda.device_count()} CUDA devices are here; use the device cpu"
        )
    return device


def save_weights(
    path: Path,
    generator: Generator,
    discriminator: Discriminator,
    template: str,
    facts: dict[str, Any],
    encoder: Encoder | None = None,
) -> str:
    """Write what completion needs into one safetensors file, in half precision.

    Args:
        path: ends in .safetensors.
        generator: G's moving average, its batch norm's statistics settled.
        discriminator: D.
        template: alignment template of the training faces.
        facts: what the file tells of its training; must be JSON.
        encoder: E's moving average, where there is one.
    Returns:
        sha256 of the settings and tensors, which the file carries too.
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
    header["sha256"] = _digest(header, tensors)
    with atomic_write(path) as file:
        file.write(save(tensors, header))
    return header["sha256"]


def load(name_or_file: str, device: torch.device | str = "auto") -> Weights:
    """Load weights by a name in the registry or from a file.

    Args:
        name_or_file: see `weights.resolve`.
        device: see `pick_device`.
    Raises:
        WeightsError: there are no such weights, or they cannot be used.
        DeviceError: see `pick_device`.
    """
    if isinstance(device, str):
        device = pick_device(device)
    try:
        path = weights.resolve(name_or_file)
    except weights.WeightsFileError as error:
        raise WeightsError(str(error)) from error
    # The registry has compared the sha256 of the whole file with the published one.
    return load_weights(path, device, verified=name_or_file in weights.REGISTRY)


def load_fitting(name_or_file: str, device: torch.device | str = "auto") -> list[Weights]:
    """Load the weights that faces of different sizes need: all in the registry for "auto", else `load`'s alone."""
    names = list(weights.REGISTRY) if name_or_file == weights.AUTO else [name_or_file]
    return [load(name, device) for name in names]


def load_weights(path: Path, device: torch.device | str = "cpu", verified: bool = False) -> Weights:
    """Rebuild the networks from a file of `save_weights`.

    Args:
        path: of the file.
        device: where to put the networks.
        verified: the file's contents are known to be as they were written, so that their sha256 need not be computed.
    Raises:
        WeightsError: the file is absent, is something else, is of a newer version, or was changed or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path} is no file; expected what python -m dcgan export writes")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is no readable safetensors file ({error}); expected what python -m dcgan export writes"
        ) from error
    if header.get("format") != _FORMAT:
        raise WeightsError(f"{path} holds other tensors than ours; expected what python -m dcgan export writes")
    if header.get("version") != str(_VERSION):
        raise WeightsError(
            f"{path} is of format version {header.get('version')}, this program reads version {_VERSION}; update it"
        )
    if not verified and header.get("sha256") != _digest(
        {key: header[key] for key in header if key != "sha256"}, tensors
    ):
        raise WeightsError(f"{path} is damaged: its sha256 does not match its contents; export or fetch it again")
    try:
        config = network_config(json.loads(header["network"]))
        facts = json.loads(header["facts"])
        generator, discriminator = Generator(config), Discriminator(config)
        # An older file is silent on skips: its encoder has none.
        encoder = Encoder(config, **({"skips": False} | json.loads(header["encoder"]))) if "encoder" in header else None
    except (KeyError, ValueError, TypeError, RuntimeError, ConfigError) as error:
        raise WeightsError(f"{path} describes no network that can be built: {error}") from error
    for name, network in _named(generator, discriminator, encoder):
        _load_network(path, name, network, tensors)
        network.to(device).eval().requires_grad_(False)
    return Weights(generator, discriminator, header["template"], facts, header["sha256"], encoder)


def _named(
    generator: Generator, discriminator: Discriminator, encoder: Encoder | None
) -> list[tuple[str, Generator | Discriminator | Encoder]]:
    """The networks of a file by the first letter of their tensors' names."""
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
            raise WeightsError(f"{path}: {name}.{key} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}")
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {name}.{key} has values that are no finite numbers")
    network.load_state_dict(found)


def _digest(header: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """sha256 over the settings and every tensor, whatever order a file keeps them in."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
