"""Header of weights files, readable without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import weights
from align.errors import ConfigError, InputError
from align.files import parse_json
from align.template import TEMPLATES
from dcgan.config import EncoderConfig, NetworkConfig, network_config

FORMAT = "dcgan-completion"
VERSION = 1


class WeightsError(InputError):
    """A weights file is absent, damaged, or in another format."""


@dataclass(frozen=True)
class Header:
    """Settings and metadata of a weights file.

    Attributes:
        fields: everything as stored in the file.
        config: settings of G and D.
        encoder: settings of E; None if there is no encoder.
        template: alignment template of the training faces.
        facts: metadata of the training.
        sha256: digest of settings and tensors.
    """

    fields: dict[str, str]
    config: NetworkConfig
    encoder: dict[str, Any] | None
    template: str
    facts: dict[str, Any]
    sha256: str


def find_weights(name_or_file: str, suffix: str = ".safetensors", verify: bool = True) -> Path:
    """Return the path of weights as `weights.resolve` does, with its errors as WeightsError."""
    try:
        return weights.resolve(name_or_file, suffix, verify)
    except weights.WeightsFileError as error:
        raise WeightsError(str(error)) from error


def read_header(path: Path) -> Header:
    """Read the header of a file written by `dcgan.checkpoint.save_weights`.

    Raises:
        WeightsError: the file is absent, of a newer version, in another format, or describes an invalid network.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path} is not a file; expected weights written by python -m dcgan export")
    try:
        with safe_open(path, framework="numpy") as file:
            fields = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); expected weights written by python -m dcgan export"
        ) from error
    if fields.get("format") != FORMAT:
        raise WeightsError(f"{path} is from another program; expected weights written by python -m dcgan export")
    if fields.get("version") != str(VERSION):
        raise WeightsError(
            f"{path} has format version {fields.get('version')}, this program reads version {VERSION}; update it"
        )
    try:
        if fields["template"] not in TEMPLATES:
            raise ConfigError(f"the template is {fields['template']!r}; expected one of {', '.join(TEMPLATES)}")
        config, facts = network_config(parse_json(fields["network"])), parse_json(fields["facts"])
        # Encoders in older files have no skips.
        encoder = {"skips": False} | parse_json(fields["encoder"]) if "encoder" in fields else None
        if not isinstance(facts, dict) or not isinstance(facts.get("logit_offset", 0), int | float):
            raise ConfigError(f"the facts are {fields['facts'][:100]}; expected an object with numbers")
        if encoder:
            EncoderConfig(**encoder)  # checks the ranges
        return Header(fields, config, encoder, fields["template"], facts, fields["sha256"])
    except (KeyError, ValueError, TypeError, OverflowError, ConfigError) as error:
        raise WeightsError(f"{path} describes an invalid network: {error}") from error
