"""Weights files: header and settings without torch, networks on demand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import weights as registry
from align.errors import ConfigError, InputError, hint
from align.files import atomic_write, parse_json
from align.settings import Option
from align.template import TEMPLATES
from dcgan.config import EncoderConfig, NetworkConfig
from dcgan.device import check_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dcgan.networks import Discriminator, Encoder, Generator

FORMAT = "dcgan-completion"
_VERSION = "1"


class WeightsError(InputError):
    """A weights file is absent, damaged, or in another format."""


def check_name(text: str, *more: str) -> str:
    """Return a name of weights; more than the names in the registry may be allowed.

    Raises:
        WeightsError: it is neither a name nor may be a file, as it has no suffix.
    """
    if text not in (*registry.REGISTRY, *more) and not Path(text).suffix:
        names = (*registry.REGISTRY, *more, "a weights file")
        raise WeightsError(f"there are no weights {text!r}; {hint(text, names)}")
    return text


WEIGHTS_HELP = f"weights file or name: {', '.join(registry.REGISTRY)}"
WeightsName = Annotated[str, WEIGHTS_HELP, Option(parse=check_name)]


class Weights:
    """Trained networks. Those of a file are loaded, and torch is imported, when the first of them is used.

    The networks are in eval mode, and their parameters require no gradients.

    Attributes:
        network: settings of G and D.
        template: alignment template of the training faces.
        metadata: of the training, such as images, seconds, machine and settings.
        sha256: digest of settings and tensors; "" for networks that were never saved.
        encoder_settings: settings of E; None if there is no encoder.
        device: where the networks are or will be: auto, cpu, cuda or cuda:N.
    """

    def __init__(
        self,
        network: NetworkConfig,
        template: str,
        metadata: dict[str, Any],
        sha256: str = "",
        encoder_settings: dict[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.network, self.template, self.metadata = network, template, metadata
        self.sha256, self.encoder_settings, self.device = sha256, encoder_settings, device
        self._path, self._name, self._header = Path(), "", {"": ""}

    @classmethod
    def open(cls, name_or_file: str | Path, device: str = "auto") -> Weights:
        """Read the header of weights.

        Args:
            name_or_file: name in the registry, or path of a file with a suffix.
            device: auto, cpu, cuda or cuda:N; loading the networks raises DeviceError if it is absent.
        Raises:
            WeightsError: the name is unknown, or the file is absent, of a newer version, in another format, or
                describes an invalid network. Loading the networks raises it if the file is damaged or modified.
            DeviceError: the device is unknown.
        """
        check_device(device)
        name = check_name(str(name_or_file))
        bundled = name in registry.REGISTRY
        path = bundled_file(f"{name}.safetensors", verify=False) if bundled else Path(name)
        header = read_header(path)
        weights = cls(*_parsed(path, header), device)
        weights._path, weights._name, weights._header = path, name if bundled else "", header
        return weights

    @classmethod
    def of(
        cls,
        generator: Generator,
        discriminator: Discriminator,
        template: str = "face",
        metadata: dict[str, Any] | None = None,
        encoder: Encoder | None = None,
        sha256: str = "",
    ) -> Weights:
        """Make weights of networks in memory."""
        device = str(next(generator.parameters()).device)
        settings = None if encoder is None else encoder.settings
        weights = cls(generator.config, template, metadata or {}, sha256, settings, device)
        weights._networks = _named(generator, discriminator, encoder)  # as if it were loaded
        return weights

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.network.size

    @property
    def has_encoder(self) -> bool:
        """Whether there is an encoder."""
        return self.encoder_settings is not None

    @property
    def logit_offset(self) -> float:
        """Logit that counts as undecided: D's mean on real faces for losses that only compare logits, otherwise 0."""
        return float(self.metadata.get("logit_offset", 0.0))

    @property
    def generator(self) -> Generator:
        """Moving average of G."""
        return self._networks["G"]

    @property
    def discriminator(self) -> Discriminator:
        """D."""
        return self._networks["D"]

    @property
    def encoder(self) -> Encoder | None:
        """Moving average of E, if one was trained."""
        return self._networks.get("E")

    def onnx_path(self) -> Path | None:
        """Return the .onnx file beside the weights, after checking its SHA-256 if it is bundled; None if there is none.

        Raises:
            WeightsError: a bundled file is missing or altered.
        """
        if self._name:
            return bundled_file(f"{self._name}.onnx")
        path = self._path.with_suffix(".onnx") if self._path.name else self._path
        return path if path.is_file() else None

    @cached_property
    def _networks(self) -> dict[str, Any]:
        """G, D and, if there is one, E by these letters, which are the prefixes of their tensors in the file."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from dcgan.device import pick_device

        device, path = pick_device(self.device), self._path
        if self._name:
            bundled_file(path.name)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read ({error}); export or download it again") from error
        if not self._name:
            header = {key: value for key, value in self._header.items() if key != "sha256"}
            if self.sha256 != tensor_digest(header, tensors):
                raise WeightsError(
                    f"{path} is damaged: its sha256 does not match its contents; export or download it again"
                )
        with torch.device("meta"):  # without memory, until the shapes are checked
            for letter, network in self._described().items():
                _check_tensors(path, letter, network.state_dict(), _of(letter, tensors))
        with torch.random.fork_rng(devices=[]):  # loading late must not change what a training run draws
            networks = self._described()
        for letter, network in networks.items():
            network.load_state_dict(_of(letter, tensors))
            network.to(device).eval().requires_grad_(False)
        return networks

    def save(self, path: Path) -> str:
        """Write the networks to one safetensors file, in half precision.

        Args:
            path: ends in .safetensors.
        Returns:
            SHA-256 of settings and tensors, which is also stored in the file.
        """
        from safetensors.torch import save

        tensors = {
            f"{letter}.{key}": (value.half() if value.is_floating_point() else value).contiguous().cpu()
            for letter, network in self._networks.items()
            for key, value in network.state_dict().items()
        }
        header = {
            "format": FORMAT,
            "version": _VERSION,
            "network": json.dumps(asdict(self.network), sort_keys=True),
            "template": self.template,
            "facts": json.dumps(self.metadata, sort_keys=True),
        }
        if self.encoder_settings is not None:
            header["encoder"] = json.dumps(self.encoder_settings)
        header["sha256"] = tensor_digest(header, tensors)
        with atomic_write(path) as file:
            file.write(save(tensors, header))
        return header["sha256"]

    def _described(self) -> dict[str, nn.Module]:
        """The networks that the header describes, with random weights."""
        from dcgan.networks import Discriminator, Encoder, Generator

        config, settings = self.network, self.encoder_settings
        try:
            return _named(
                Generator(config), Discriminator(config), None if settings is None else Encoder(config, **settings)
            )
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise WeightsError(f"{self._path} describes an invalid network: {error}") from error


def bundled_file(name: str, verify: bool = True) -> Path:
    """Return the path of a file of the bundled weights.

    Args:
        name: such as faces-64.onnx.
        verify: check its SHA-256, not only that it exists.
    Raises:
        WeightsError: the file is missing or altered.
    """
    path, expected = registry.FOLDER / name, registry.SHA256[name]
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if verify else expected
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); reinstall dcgan-completion") from error
    if found != expected:
        raise WeightsError(f"{path} has sha256 {found}, expected {expected}; reinstall dcgan-completion")
    return path


def read_header(path: Path) -> dict[str, str]:
    """Read the header of a file written by `save_weights`: JSON texts by name.

    Raises:
        WeightsError: the file is absent, of a newer version, or in another format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path} is not a file; expected weights written by python -m dcgan export")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); expected weights written by python -m dcgan export"
        ) from error
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path} is from another program; expected weights written by python -m dcgan export")
    if header.get("version") != _VERSION:
        raise WeightsError(
            f"{path} has format version {header.get('version')}, this program reads version {_VERSION}; update it"
        )
    return header


def _parsed(path: Path, header: dict[str, str]) -> tuple[NetworkConfig, str, dict[str, Any], str, Any]:
    """Check a header: settings of G and D, template, metadata, SHA-256, and settings of E."""
    try:
        template, network, metadata = header["template"], parse_json(header["network"]), parse_json(header["facts"])
        if template not in TEMPLATES:
            raise ConfigError(f"the template is {template!r}; expected one of {', '.join(TEMPLATES)}")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("logit_offset", 0), int | float):
            raise ConfigError(f"the facts are {header['facts'][:100]}; expected an object with numbers")
        encoder = parse_json(header["encoder"]) if "encoder" in header else {}
        EncoderConfig(**encoder)  # checks the ranges
        settings = encoder if "encoder" in header else None
        return NetworkConfig(**network), template, metadata, header["sha256"], settings
    except (KeyError, ValueError, TypeError, OverflowError, ConfigError) as error:
        raise WeightsError(f"{path} describes an invalid network: {error}") from error


def _named(generator: Generator, discriminator: Discriminator, encoder: Encoder | None) -> dict[str, nn.Module]:
    """The networks by the prefix of their tensors in the file."""
    every = {"G": generator, "D": discriminator, "E": encoder}
    return {letter: network for letter, network in every.items() if network is not None}


def _of(letter: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one network."""
    return {key.removeprefix(f"{letter}."): value for key, value in tensors.items() if key.startswith(f"{letter}.")}


def _check_tensors(path: Path, name: str, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    import torch

    if found.keys() != expected.keys():
        odd = [key if key.isprintable() else repr(key) for key in sorted(found.keys() ^ expected.keys())[:4]]
        raise WeightsError(f"{path}: {name} has missing or extra tensors: {', '.join(odd)}")
    for key, value in found.items():
        if value.shape != expected[key].shape:
            raise WeightsError(f"{path}: {name}.{key} is {tuple(value.shape)}; expected {tuple(expected[key].shape)}")
        floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        kinds = floats if expected[key].is_floating_point() else (expected[key].dtype,)
        if value.dtype not in kinds:
            raise WeightsError(f"{path}: {name}.{key} is {value.dtype}; expected {' or '.join(map(str, kinds))}")
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {name}.{key} contains NaN or infinity")


def tensor_digest(header: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of settings and tensors, independent of their order in the file."""
    import torch

    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
