"""Registry of the bundled weights: data only. `dcgan.weights` finds, verifies and opens the files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RegistryEntry:
    """Bundled weights: NAME.safetensors has all networks, NAME.onnx those that completion needs.

    Attributes:
        size: side of the images in pixels.
        template: alignment template of the training faces, see `align.template`.
        licence: permitted use.
    """

    size: int
    template: str
    licence: str


REGISTRY = {
    "faces-64": RegistryEntry(64, "face", "non-commercial research"),
    "faces-128": RegistryEntry(128, "face", "non-commercial research"),
}
DEFAULT = "faces-64"
AUTO = "auto"  # all weights in the registry: each face uses those that fit its size
LOCATOR = "locator.onnx"  # finds the eyes of partly hidden faces; see completion.faces
OCTAVE = "octave.onnx"  # sharpens large generated faces; see completion.octave
FINDER = "finder.onnx"  # finds damage; see completion.damage
FOLDER = Path(__file__).parent
# SHA-256 of every file in the folder, in hex.
SHA256 = {
    "faces-64.safetensors": "3d2d6be0c5e72fb4c1a0ff3932f6f225c925e218d1b3380178f7d949d5c6f57c",
    "faces-64.onnx": "d3c80f9cd40766093d0152a357d9ec24799a5a27f9ac03134b64151232a41800",
    "faces-128.safetensors": "6f38db0499af08d0704279a1148c4273c6e1ea1980f5331c0e97f333b8f6e1af",
    "faces-128.onnx": "e110a0338e8b68cf7599f2a82fee7b345af277bab64af2896554db18bacacb53",
    LOCATOR: "6dcca5cc1298631caa1c00088bd8722ac6347037edad91f0117754b4064f81f5",
    FINDER: "fbd6d9d91f92c65b22977d74abaf536acfef84df5d9431754ca73c78e5c8650e",
    OCTAVE: "fa6a87b7ab048dfb2681f852a0af1bc45404ee173e27c6f27367251de6abc5bf",
}
VERSION = __version__ = "0.6.0"
