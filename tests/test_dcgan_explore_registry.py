"""python -m dcgan explore: what all experiments share, and wrong usage of each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from runs import explore

from dcgan.__main__ import main
from dcgan.explore import arithmetic, forget
from dcgan.explore.files import sheet
from dcgan.explore.registry import LABELS

Refused = Callable[..., str]


def light(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    return dict.fromkeys(LABELS, faces.mean(axis=(1, 2, 3)))


def test_a_sheet_shows_the_images_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    picture = sheet([("a", images[:3]), ("bcd", images[3:])], ["1", "2", "3"])
    height, width = picture.shape[:2]
    assert np.array_equal(picture[height - 32 : height - 16, width - 16 :], images[2])
    assert np.array_equal(picture[height - 16 :, width - 48 : width - 32], images[3])
    assert (picture[height - 16 :, width - 16 :] == 255).all()  # no third image in that row
    assert (picture[:, : width - 48] < 128).any() and (picture[: height - 32] < 128).any()  # the labels


def test_settings_come_from_a_file_too(tmp_path: Path, small_weights_file: Path) -> None:
    (tmp_path / "walk.toml").write_text(f"pairs = 1\nsteps = 3\nweights = '{small_weights_file}'\n")
    found = explore("walk", tmp_path, "--config", tmp_path / "walk.toml", "--steps", 4)
    assert len(found["walks"]) == 2 and found["steps"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("arithmetic", "a face in 0 of 50 samples; expected at least 40"),
        ("features --labels 9999", "training images; expected at least 9999"),
        ("forget --layer 3", "layer 3 of a G"),
        ("forget --layer -4", "layer -4 of a G"),
        ("saliency --layer 3", "layer 3 of a D"),
    ],
)
def test_wrong_usage_ends_with_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, small_weights_file: Path, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forget, "measure", light)
    monkeypatch.setattr(
        arithmetic, "measure", lambda faces: {label: values * np.nan for label, values in light(faces).items()}
    )
    name, *more = words.split()
    count = [] if name == "features" else ["--count", "50"]
    weights = ["--weights", str(small_weights_file), "--device", "cpu"]
    line = refused(main, ["explore", name, *more, *weights, *count, "--output", "out"])
    assert line.startswith("dcgan: ") and said in line
    assert not (tmp_path / "out").exists()
