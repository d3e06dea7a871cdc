"""The page: paint a hole on a photo in the browser and have it filled."""

from weights import VERSION as __version__

__all__ = ["__version__"]
