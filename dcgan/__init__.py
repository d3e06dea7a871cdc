"""Train a DCGAN on aligned faces, sample from it, and export its weights. Needs torch."""

from weights import VERSION as __version__

__all__ = ["__version__"]
