"""Colour profiles for photos whose files describe their colours without one."""

import struct

import numpy as np
from numpy.typing import NDArray

# Chromaticities (x, y) of white, red, green and blue.
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ADOBE_RGB = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 563 / 256
# Code points of ITU-T H.273, which the chunk cICP of PNG uses; a gamma of None is the curve of sRGB.
PRIMARIES = {1: SRGB, 9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)}
PRIMARIES[12] = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 13: None}
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile(chromaticities: tuple[float, ...], gamma: float | None, grey: bool = False) -> bytes | None:
    """Build a colour profile (ICC version 2).

    Args:
        chromaticities: x and y of white, red, green and blue.
        gamma: light = value ** gamma; None is the curve of sRGB.
        grey: build a profile for grey photos.
    Returns:
        The profile; None for the colours of sRGB, which need none, or impossible ones.
    Source: ICC.1:2001-04; the chromatic adaptation is Bradford's.
    """
    same = grey or np.allclose(chromaticities, SRGB, atol=0.002)
    if same and (gamma is None or abs(gamma - 2.2) < 0.02) or gamma is not None and not 0.1 < gamma < 10:
        return None
    try:
        colorants = _colorants(chromaticities)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    if not (np.isfinite(colorants).all() and np.abs(colorants).max() < 4):
        return None
    name = b"From the file's colour space\0"
    text = b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">I", 1024) + _srgb_curve().astype(">u2").tobytes()
    if gamma is not None:
        curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"No copyright\0", b"wtpt": _xyz(_D50)}
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {letter + b"XYZ": _xyz(colorants[:, each]) for each, letter in enumerate((b"r", b"g", b"b"))}
        tags |= {letter + b"TRC": curve for letter in (b"r", b"g", b"b")}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    space = b"GRAY" if grey else b"RGB "
    header = struct.pack(">IIi4s4s4s12x4s28x", start + len(body), 0, 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return (header + _xyz(_D50)[8:]).ljust(128, b"\0") + table + body


def _colorants(chromaticities: tuple[float, ...]) -> NDArray[np.float64]:
    """The XYZ of red, green and blue, in columns, adapted to D50."""
    white, *primaries = ((x / y, 1.0, (1 - x - y) / y) for x, y in zip(*[iter(chromaticities)] * 2, strict=True))
    columns = np.array(primaries).T
    columns = columns * np.linalg.solve(columns, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD) @ columns


def _srgb_curve() -> NDArray[np.float64]:
    values = np.linspace(0, 1, 1024)
    return np.round(65_535 * np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4))


def _xyz(values: tuple[float, ...] | NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65_536) for value in values))
