"""Weights files: header and settings without torch, networks on demand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import weights as registry
from align.errors import ConfigError, InputError, hint
from align.files import atomic_write, parse_json
from align.settings import Option
from align.template import TEMPLATES
from dcgan.config import EncoderConfig, NetworkConfig
from dcgan.device import check_device, pick_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dcgan.networks import Discriminator, Encoder, Generator

FORMAT = "dcgan-completion"
_VERSION = "1"


class WeightsError(InputError):
    """A weights file is absent, damaged, or in another format."""


def weights_name(text: str, *more: str) -> str:
    """Return a name of weights: of the registry, of a file, which has a suffix, or of `more`; else WeightsError."""
    if text not in (*registry.REGISTRY, *more) and not Path(text).suffix:
        names = (*registry.REGISTRY, *more, "a weights file")
        raise WeightsError(f"there are no weights {text!r}; {hint(text, names)}")
    return text


WEIGHTS_HELP = f"weights file or name: {', '.join(registry.REGISTRY)}"
WeightsName = Annotated[str, WEIGHTS_HELP, Option(parse=weights_name)]


@dataclass(eq=False, repr=False)
class Weights:
    """Trained networks. Those of a file are loaded, and torch is imported, when the first of them is used.

    The networks of a file are in eval mode, and their parameters require no gradients.
    """

    network: NetworkConfig  # settings of G and D
    template: str  # alignment template of the training faces
    metadata: dict[str, Any]  # of the training, such as images, seconds, machine and settings
    encoder_settings: dict[str, Any] | None  # settings of E; None if there is no encoder
    sha256: str  # digest of settings and tensors; "" for networks that were never saved
    device: str  # where the networks are or will be: auto, cpu, cuda or cuda:N
    _path: Path = Path("weights")
    _bundled: bool = False

    @classmethod
    def open(cls, name_or_file: str | Path, device: str = "auto") -> Weights:
        """Read the header of weights by their name in the registry or from a file with a suffix.

        Raises:
            WeightsError: the name is unknown, or the file is absent, of a newer version, in another format, or
                describes an invalid network. Loading the networks raises it if the file is damaged or modified.
            DeviceError: the device is unknown. Loading the networks raises it if the device is absent.
        """
        name = weights_name(str(name_or_file))
        bundled = name in registry.REGISTRY
        path = bundled_file(f"{name}.safetensors", verify=False) if bundled else Path(name)
        header = _read_header(path)
        try:
            template, metadata = header["template"], parse_json(header["facts"])
            if template not in TEMPLATES:
                raise ConfigError(f"the template is {template!r}; expected one of {', '.join(TEMPLATES)}")
            if not isinstance(metadata, dict) or not isinstance(metadata.get("logit_offset", 0), int | float):
                raise ConfigError(f"the facts are {header['facts'][:100]}; expected an object with numbers")
            encoder = parse_json(header["encoder"]) if "encoder" in header else {}
            EncoderConfig(**encoder)  # checks the ranges
            settings = encoder if "encoder" in header else None
            network, sha256 = NetworkConfig(**parse_json(header["network"])), header["sha256"]
        except (KeyError, ValueError, TypeError, OverflowError, ConfigError) as error:
            raise WeightsError(f"{path} describes an invalid network: {error}") from error
        return cls(network, template, metadata, settings, sha256, check_device(device), path, bundled)

    @classmethod
    def of(
        cls,
        generator: Generator,
        discriminator: Discriminator,
        template: str = "face",
        metadata: dict[str, Any] | None = None,
        encoder: Encoder | None = None,
        sha256: str = "",
        completer: Generator | None = None,
    ) -> Weights:
        """Make weights of networks in memory; by default, G is the completer."""
        settings, device = None if encoder is None else encoder.settings, str(next(generator.parameters()).device)
        weights = cls(generator.config, template, metadata or {}, settings, sha256, device)
        networks = {
            "G": generator,
            "D": discriminator,
            "E": encoder,
            "C": None if completer is generator else completer,
        }
        weights._networks = {letter: network for letter, network in networks.items() if network is not None}
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
        """The discriminator D."""
        return self._networks["D"]

    @property
    def encoder(self) -> Encoder | None:
        """Moving average of E, if one was trained."""
        return self._networks.get("E")

    @property
    def completer(self) -> Generator:
        """The G that completes what E has encoded: moving average of the copy that learnt along with E, or G itself."""
        return self._networks.get("C", self.generator)

    def onnx_path(self) -> Path | None:
        """Return the .onnx file beside the weights, after checking its SHA-256; None if there is none.

        Raises:
            WeightsError: a bundled file is missing, or the file is not as it was exported.
        """
        path = self._path.with_suffix(".onnx")
        if self._bundled:
            return bundled_file(path.name)
        if not (self._path.suffix and path.is_file()):
            return None
        content = path.read_bytes()
        if content != sealed(content[: -len(sealed(b""))]):
            raise WeightsError(f"{path} is damaged or changed; export it again (python -m dcgan export)")
        return path

    def save(self, path: Path) -> str:
        """Write the networks to one safetensors file, in half precision; returns its SHA-256, see `sha256`.

        What the copy of G has in common with G is written once.
        """
        import torch
        from safetensors.torch import save

        tensors = {
            f"{letter}.{key}": (value.half() if value.is_floating_point() else value).contiguous().cpu()
            for letter, network in self._networks.items()
            for key, value in network.state_dict().items()
        }
        for key in [key for key in tensors if key.startswith("C.")]:
            if torch.equal(tensors[key], tensors["G" + key[1:]]):
                del tensors[key]
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

    @cached_property
    def _networks(self) -> dict[str, Any]:
        """The networks by the letters that are the prefixes of their tensors in the file, loaded and checked."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from dcgan.networks import Discriminator, Encoder, Generator

        def described() -> dict[str, Any]:
            networks: dict[str, nn.Module] = {"G": Generator(self.network), "D": Discriminator(self.network)}
            if self.encoder_settings is not None:
                networks["E"] = Encoder(self.network, **self.encoder_settings)
            return networks | ({"C": Generator(self.network)} if "C" in parts else {})

        device, path = pick_device(self.device), self._path
        if self._bundled:
            bundled_file(path.name)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read ({error}); export or download it again") from error
        if not self._bundled and self.sha256 != tensor_digest(_read_header(path), tensors):
            raise WeightsError(
                f"{path} is damaged: its sha256 does not match its contents; export or download it again"
            )
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            letter, _, name = key.partition(".")
            parts.setdefault(letter, {})[name] = value
        if "C" in parts:
            parts["C"] = parts.get("G", {}) | parts["C"]
        try:
            with torch.device("meta"):  # without memory, until the shapes are checked
                for letter, network in described().items():
                    _check_tensors(path, letter, network.state_dict(), parts.get(letter, {}))
            with torch.random.fork_rng(devices=[]):  # loading late must not change what a training run draws
                networks = described()
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise WeightsError(f"{path} describes an invalid network: {error}") from error
        for letter, network in networks.items():
            network.load_state_dict(parts[letter])
            network.to(device).eval().requires_grad_(False)
        return networks


def sealed(model: bytes) -> bytes:
    """Return an ONNX file with one more entry of its metadata at its end: the SHA-256 of what precedes."""
    # Field 14 of the model, 74 bytes; its field 1, the key, has 6 and its field 2, the value, 64.
    return model + b"\x72\x4a\x0a\x06digest\x12\x40" + hashlib.sha256(model).hexdigest().encode()


def bundled_file(name: str, verify: bool = True) -> Path:
    """Return the path of a bundled file, such as faces-64.onnx; raises WeightsError if it is missing or altered."""
    path, expected = registry.FOLDER / name, registry.SHA256[name]
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if verify else expected
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); reinstall dcgan-completion") from error
    if found != expected:
        raise WeightsError(f"{path} has sha256 {found}, expected {expected}; reinstall dcgan-completion")
    return path


def tensor_digest(header: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of settings, except an earlier digest, and tensors, independent of their order in the file."""
    import torch

    settings = {key: value for key, value in header.items() if key != "sha256"}
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _read_header(path: Path) -> dict[str, str]:
    """Read the header of a file that `Weights.save` has written: JSON texts by name."""
    from safetensors import SafetensorError, safe_open

    advice = "expected weights written by python -m dcgan export"
    if not path.is_file():
        raise WeightsError(f"{path} is not a file; {advice}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); {advice}") from error
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path} is from another program; {advice}")
    if header.get("version") != _VERSION:
        raise WeightsError(
            f"{path} has format version {header.get('version')}, this program reads version {_VERSION}; update it"
        )
    return header


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
