"""What an evaluation says, for people: a table, and a report with pictures beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.files import write_json, write_text
from align.photo import write_photo
from dcgan.evaluate import Evaluation, Figure

FILES = ("evaluation.json", "evaluation.md", "samples.png", "reconstructions.png", "neighbours.png")

# What each measure is, and what it cannot see.
_NOTES = """
- **Frechet distance** (squared) and **kernel distance** (unbiased MMD of a cubic kernel, mean over subsets of at most
  1000) compare dlib's 128-d descriptors of faces. They see who and what a face is, and are all but blind to texture,
  sharpness, colour and background. Both suppose what their names say: normal distributions, moments up to the third.
- **SWD**: sliced Wasserstein distance of {patches} patches of 7x7 px per face, along 512 directions, for each level of
  a Laplacian pyramid, times 1000 as the source has it; {swd} faces a side. It sees texture, and is blind to how the
  parts of a face are put together; each side's colours are scaled to one mean and deviation, so also to a tint.
- **Precision** and **recall**: shares of the generated descriptors among the real ones and of the real among the
  generated, k = {k} neighbours. Outliers among the real faces raise precision; figures of other numbers of faces do
  not compare; blind to what descriptors are blind to.
- **MS-SSIM of pairs**: mean over {pairs} random pairs. Scales: {scales}.
  Far above the real faces' value stands for mode collapse. It says nothing of quality: noise has the least.
- **Face found**: share of {detector} faces that dlib's detector sees when enlarged to 192 px with air around.
  The real faces are those that it, or another detector, found before; it has no eye for more than the rough layout.
- **MRE**: mean absolute difference to the nearest face G can make, in levels of 255. Search: Adam, learning rate
  0.2 to 0 on a cosine, {steps} steps from the nearest {restarts} of {draws} random z; {mre} faces. z is bounded
  for a uniform prior alone, so this is what G can make, not what it does make. Its floor is what the search loses on
  images that G itself made. Well below the validation faces' value, the training faces' value would show memorising.
  It is blind to sharpness: what is a little beside costs more than what is blurred.
- **Nearest training face**: distance by descriptor, and the root mean square difference of 16x16 thumbnails in levels
  (mirrored ones too), of the generated faces and, as the floor, of the validation faces. A generator that memorises
  lies far below its floor. A face that is shifted or recoloured hides from the thumbnails, and the descriptors look
  through {by_descriptor} of the training faces alone.
- **FID** sees what a classifier of photos sees; its network was never shown 64 px faces.
"""


def table(evaluation: Evaluation) -> str:
    """The figures in Markdown, which reads well in a terminal too."""
    return markdown([("measure", "generated", "real (floor)", "better"), *map(_cells, evaluation.figures)])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its head first, that reads well in a terminal too; all but the first column stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])} |" for row in rows]
    rule = f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def write_report(folder: Path, evaluation: Evaluation, weights: dict[str, Any]) -> None:
    """Write evaluation.json, evaluation.md and the pictures.

    Args:
        folder: is made if need be; files are replaced.
        evaluation: what was measured.
        weights: what the JSON says of them; the report names "name" and "sha256".
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in evaluation.pictures.items():
        write_photo(folder / name, picture)
    record = {"weights": weights} | evaluation.as_json()
    write_json(folder / "evaluation.json", record)
    write_text(folder / "evaluation.md", _report(evaluation, weights) + "\n")


def _report(evaluation: Evaluation, weights: dict[str, Any]) -> str:
    counts, options = evaluation.counts, evaluation.options
    notes = _NOTES.format(
        patches=128,
        swd=counts["SWD"],
        k=options.k,
        pairs=counts["MS-SSIM pairs"],
        scales=", ".join(f"{side} px with weight {weight:.2f}" for side, weight in evaluation.scales.items()),
        detector=counts["detector"],
        steps=options.mre_steps,
        restarts=options.mre_restarts,
        draws=options.mre_draws,
        mre=counts["MRE"],
        by_descriptor=counts.get("searched by descriptor", 0),
    )
    parts = [
        f"# Evaluation of {weights['name']}",
        f"{counts['generated']} generated faces against {counts['reference']} validation faces; seed {options.seed}; "
        f"weights' sha256 {weights['sha256'][:12]}. Floor: {evaluation.floor}, {counts['floor']} of the former, "
        "which is why there are as many generated ones. Only figures of the same numbers of faces compare.",
        table(evaluation),
        "## What the measures are, and what they are blind to" + "\n" + notes.rstrip(),
        "## Samples\n\n![generated faces](samples.png)",
        "## Reconstructions\n\nValidation faces and below them what G can make of them: the best, the middle and the "
        "worst by MRE.\n\n![reconstructions](reconstructions.png)",
    ]
    if "neighbours.png" in evaluation.pictures:
        parts.append(
            "## Nearest training faces\n\nThe six generated faces nearest to a training face by descriptor, then the "
            "six by thumbnail; below each its training face nearest by descriptor, then by thumbnail. Photos of real "
            "people: do not pass them on.\n\n![nearest training faces](neighbours.png)"
        )
    parts.append(f"Measured in {sum(evaluation.seconds.values()):.0f} s.")
    return "\n\n".join(parts)


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    return figure.name, number(figure.fake) or figure.note, number(figure.real), figure.better
