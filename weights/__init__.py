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
    "faces-128.safetensors": "f85162b0bafe1450d75ecafda3e214aff29df934dd2a3e075b4b936b8277dcf4",
    "faces-128.onnx": "693880f998855340e5112f9ec67d446494d5105349631681ec28b954b01212bc",
    LOCATOR: "6dcca5cc1298631caa1c00088bd8722ac6347037edad91f0117754b4064f81f5",
    FINDER: "fbd6d9d91f92c65b22977d74abaf536acfef84df5d9431754ca73c78e5c8650e",
    OCTAVE: "3ed94182d56a1e02844c33b34562b6af371992dab8effde58e0682070736dea8",
}
VERSION = __version__ = "0.5.0"
