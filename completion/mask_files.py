"""Which file of a folder of masks belongs to which photo."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from align.errors import MaskError
from align.files import list_photos


def mask_files(folder: Path) -> dict[Path, list[Path]]:
    """List the masks in a folder by the names of the photos that they may belong to, see `mask_names`.

    Raises:
        PhotoError: the folder cannot be listed.
    """
    found: dict[Path, list[Path]] = {}
    for path in list_photos(folder):
        for name in mask_names(path.relative_to(folder)):
            found.setdefault(name, []).append(path)
    return found


def mask_names(mask: Path) -> set[Path]:
    """Return the names of the photos that a mask may belong to: `a_mask` and `a` for `a_mask.png`.

    Upper and lower case, and composed and decomposed letters, are the same.
    """
    stem = mask.with_suffix("").name
    stems = {stem, re.sub(r"^mask[_-]|[._-]mask$", "", stem, flags=re.IGNORECASE)}
    stems |= {re.sub(r"\.(jpe?g|png|webp|bmp|tiff?|heic|avif)$", "", each, flags=re.IGNORECASE) for each in stems}
    return {folded(mask.with_name(each)) for each in stems}


def folded(name: Path) -> Path:
    """Return a name for comparison: composed letters in lower case."""
    return Path(unicodedata.normalize("NFC", str(name)).casefold())


def find_mask(masks: Mapping[Path, Sequence[Path]], name: Path, photo: Path) -> Path:
    """Find the mask of a photo, which is never the photo itself.

    Args:
        masks: see `mask_files`.
        name: the photo's relative path without suffix; with suffix if several photos differ only in it.
        photo: the photo.
    Raises:
        MaskError: there is no such mask, or more than one.
    """
    found = [path for path in masks.get(folded(name), []) if not path.samefile(photo)]
    # `a.mask.png`, which --save-mask writes beside its completion, comes first, then a mask with exactly this name.
    found = [path for path in found if path.with_suffix("").suffix.casefold() == ".mask"] or found
    exact = [path for path in found if folded(path.with_suffix("")).name == folded(name).name]
    found = exact or found
    if len(found) != 1:
        what = "no mask" if not found else f"{len(found)} masks"
        raise MaskError(f"the folder of masks holds {what} for this photo; expected one image named {name}.*")
    return found[0]
