"""Checkpoints, which training resumes from, and weights files, which everything else loads."""

import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weights
from align.errors import DeviceError, InputError
from align.files import atomic_write, read_file
from dcgan.config import check_device
from dcgan.header import FORMAT, VERSION, Header, WeightsError, find_weights, read_header
from dcgan.networks import Discriminator, Encoder, Generator

# A checkpoint is a zip file, which ends with a comment: its length, then the SHA-256 of the file without a comment.
_END, _NO_COMMENT, _COMMENT_BYTES = b"PK\x05\x06", bytes(2), 66
_MAX_CHECKPOINT_BYTES = 2**36
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_log = logging.getLogger(__name__)


class CheckpointError(InputError):
    """A run folder has no usable checkpoint, or belongs to another run."""


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
    buffer = io.BytesIO()  # torch.save turns a full disk into an error without a reason
    torch.save(state, buffer)
    content = buffer.getbuffer()
    with atomic_write(path) as file:
        file.write(content[: -len(_NO_COMMENT)])
        file.write(_comment(content))
    for old in _checkpoints(folder)[2:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the newest intact checkpoint of a run folder; None if it has no checkpoints.

    Newer ones that are damaged are renamed to NAME.broken, and logged.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged; they keep their names.
    """
    broken: dict[Path, str] = {}
    for path in _checkpoints(folder):
        try:
            state = _read(path)
        except CheckpointError as error:
            broken[path] = str(error)
            continue
        for other, reason in broken.items():
            aside = other.with_name(f"{other.name}.broken")
            with suppress(FileNotFoundError):  # another process of the group was first
                other.rename(aside)
            _log.warning("%s %s; renamed to %s, using %s", other, reason, aside.name, path.name)
        return state
    if broken:
        reasons = "; ".join(f"{path.name} {reason}" for path, reason in broken.items())
        raise CheckpointError(f"no checkpoint in {folder} is usable ({reasons}); start in a new folder")
    return None


def load_run(folder: Path, command: str) -> dict[str, Any]:
    """Load the newest intact checkpoint of a run of a dcgan command, as `load_checkpoint` does.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    saved = load_checkpoint(folder)
    if saved is None:
        raise CheckpointError(f"{folder} has no checkpoint; expected a run folder of python -m dcgan {command}")
    return saved


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises CheckpointError with the reason alone if it is damaged."""
    if not path.is_file():
        raise CheckpointError("is not a regular file")
    content = bytearray(read_file(path, _MAX_CHECKPOINT_BYTES))
    older = content[-22:].startswith(_END) and content.endswith(_NO_COMMENT)  # 0.2.0 wrote no comment
    if not older:
        comment = content[-_COMMENT_BYTES:]
        content[-_COMMENT_BYTES:] = _NO_COMMENT
        if comment != _comment(content):
            raise CheckpointError("is damaged: its sha256 does not match its contents")
    try:
        if older and zipfile.ZipFile(io.BytesIO(content)).testzip():
            raise CheckpointError("is damaged: a checksum does not match")
        # weights_only refuses pickles that run code.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # torch raises a dozen types for files that are no checkpoints
        raise CheckpointError(f"is not a checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"is not a checkpoint: it holds a {type(state).__name__}")
    return state


def _comment(content: bytearray | memoryview) -> bytes:
    return (_COMMENT_BYTES - 2).to_bytes(2, "little") + hashlib.sha256(content).hexdigest().encode()


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Turn errors of a state that does not fit this program's networks into a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise CheckpointError(
            f"the checkpoint in {folder} does not fit this version of the program ({reason}); "
            "use the version that wrote it, or another folder"
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU if there is none that torch supports.

    A GPU becomes the current one, on which graphs are captured.

    Raises:
        DeviceError: the name is not auto, cpu, cuda or cuda:N, or the device is absent or not supported by torch.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and _supported(torch.device("cuda")) else "cpu"
    check_device(name)
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"the device {name} is absent: found {torch.cuda.device_count()} CUDA devices; use cpu")
    if device.type == "cuda":
        if not _supported(device):
            raise DeviceError(
                f"the device {name} is a {torch.cuda.get_device_name(device)}, which this build of torch does not "
                f"support (it has {', '.join(torch.cuda.get_arch_list())}); install another build or use cpu"
            )
        torch.cuda.set_device(device.index or 0)
    return device


def _supported(device: torch.device) -> bool:
    """Whether torch was built for a GPU: for its major version, or as code that the driver compiles."""
    capability = torch.cuda.get_device_capability(device)
    for name in torch.cuda.get_arch_list():  # such as sm_90, sm_90a and compute_120
        kind, _, digits = name.partition("_")
        built = divmod(int(re.sub(r"\D", "", digits)), 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


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
        "format": FORMAT,
        "version": str(VERSION),
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
    path = find_weights(name_or_file)
    # The registry has already verified the SHA-256 of its own files.
    return load_weights(path, device, verified=name_or_file in weights.REGISTRY)


def load_weights(path: Path, device: torch.device | str = "cpu", verified: bool = False) -> Weights:
    """Load networks from a file written by `save_weights`.

    Args:
        path: path of the file.
        device: where to put the networks.
        verified: skip the SHA-256 check, since the file has been verified already.
    Raises:
        WeightsError: the file is absent, damaged, modified, of a newer version, or in another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); export or download it again") from error
    if not verified and header.sha256 != tensor_digest(
        {key: header.fields[key] for key in header.fields if key != "sha256"}, tensors
    ):
        raise WeightsError(f"{path} is damaged: its sha256 does not match its contents; export or download it again")
    with torch.device("meta"):  # without memory, until the shapes are checked
        for name, network in _named(*_described(path, header)):
            _check_tensors(path, name, network.state_dict(), _of(name, tensors))
    generator, discriminator, encoder = _described(path, header)
    for name, network in _named(generator, discriminator, encoder):
        network.load_state_dict(_of(name, tensors))
        network.to(device).eval().requires_grad_(False)
    return Weights(generator, discriminator, header.template, header.facts, header.sha256, encoder)


def _described(path: Path, header: Header) -> tuple[Generator, Discriminator, Encoder | None]:
    """The networks that a header describes, with random weights."""
    config, settings = header.config, header.encoder
    try:
        return Generator(config), Discriminator(config), None if settings is None else Encoder(config, **settings)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path} describes an invalid network: {error}") from error


def _named(
    generator: Generator, discriminator: Discriminator, encoder: Encoder | None
) -> list[tuple[str, Generator | Discriminator | Encoder]]:
    """The networks by the prefix of their tensors in the file."""
    encoders = [] if encoder is None else [("E", encoder)]
    return [("G", generator), ("D", discriminator), *encoders]


def _of(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one network."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _check_tensors(path: Path, name: str, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    if found.keys() != expected.keys():
        odd = [key if key.isprintable() else repr(key) for key in sorted(found.keys() ^ expected.keys())[:4]]
        raise WeightsError(f"{path}: {name} has missing or extra tensors: {', '.join(odd)}")
    for key, value in found.items():
        if value.shape != expected[key].shape:
            raise WeightsError(f"{path}: {name}.{key} is {tuple(value.shape)}; expected {tuple(expected[key].shape)}")
        kinds = _FLOATS if expected[key].is_floating_point() else (expected[key].dtype,)
        if value.dtype not in kinds:
            raise WeightsError(f"{path}: {name}.{key} is {value.dtype}; expected {' or '.join(map(str, kinds))}")
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {name}.{key} contains NaN or infinity")


def tensor_digest(header: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of settings and tensors, independent of their order in the file."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
