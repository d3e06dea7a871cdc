"""python -m dcgan explore arithmetic: labels, directions, and what adding and subtracting comes to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from runs import explore

from align.landmarks import find_faces
from align.photo import read_photo
from align.template import TEMPLATES
from align.warp import fit
from dcgan.explore import arithmetic as module
from dcgan.explore.arithmetic import LABELS, direction, directions, measure
from dcgan.sampling import sample_z
from dcgan.weights import Weights


def brightness(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """A stand-in for the labels, since untrained networks make no faces: mean brightness of five parts of the image."""
    means = [part.mean(axis=(1, 2, 3)) for part in np.array_split(faces.astype(np.float64), len(LABELS), axis=1)]
    return dict(zip(LABELS, means, strict=True))


def test_a_planted_label_is_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    z, way = torch.randn(500, 16, generator=generator), torch.randn(16, generator=generator)
    values = (z @ (3 * way) + 5 + 0.1 * torch.randn(500, generator=generator)).double().numpy()
    values[::7] = np.nan
    found = direction(z, values)
    assert found.norm() == pytest.approx(1)
    assert torch.allclose(found, way / way.norm(), atol=0.01)
    assert torch.allclose(direction(z, -values), -found, atol=1e-6)


def test_labels_of_a_photo_are_plausible(astronaut: NDArray[np.uint8]) -> None:
    template = TEMPLATES["face"]
    crop = fit(template, find_faces(astronaut, template.points)[0], 64).warp(astronaut)
    turned = crop[:, ::-1]
    dark_hair = crop.copy()
    dark_hair[:8] = 0
    found = measure(np.stack([crop, turned, dark_hair, np.zeros_like(crop)]))
    assert tuple(found) == LABELS and all(values.shape == (4,) for values in found.values())
    assert all(np.isfinite(values[:3]).all() and np.isnan(values[3]) for values in found.values())
    assert 0.6 < found["smile width"][0] < 1.3  # she smiles with her teeth shown
    assert 0.05 < found["mouth open"][0] < 0.5 and 0.05 < found["eyes open"][0] < 0.3
    assert found["smile width"][1] == pytest.approx(found["smile width"][0], abs=0.1)
    assert found["turn right"][1] == pytest.approx(-found["turn right"][0], abs=0.06)
    assert found["bright hair"][2] == 0
    assert found["bright hair"][0] == pytest.approx((crop[:8, 16:48] @ np.array([0.299, 0.587, 0.114])).mean() / 255)
    assert measure(np.empty((0, 64, 64, 3), dtype=np.uint8))["turn right"].shape == (0,)


def test_directions_move_their_label(small_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", brightness)
    ways = directions(small_weights, 200, 1)
    assert ways.keys() == set(LABELS) and all(way.shape == (8,) for way in ways.values())
    fresh = sample_z(64, small_weights.generator.config, torch.Generator().manual_seed(9))
    drawn = module.draw_samples(small_weights, 200, 1)
    moved = module.label_changes(small_weights, drawn, ways, fresh)
    assert all(moved[label][label] > 0.1 for label in LABELS)
    for label, way in ways.items():  # no direction changes another label
        raw = {other: direction(drawn.z, values) for other, values in drawn.values.items() if other != label}
        assert all(abs(float(way @ other)) < 1e-5 for other in raw.values())
    same = directions(small_weights, 200, 1)
    assert all(torch.equal(ways[label], same[label]) for label in LABELS)


def test_arithmetic_in_pixels_clips() -> None:
    faces = np.array([10, 30, 50, 200, 240], dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    one, pair, last = np.array([2]), np.array([0, 1]), np.array([4])
    assert (module.pixel_arithmetic(faces, module.Trial(one, pair, last)) == 255).all()  # 50 - 20 + 240, clipped
    assert (module.pixel_arithmetic(faces, module.Trial(one, last, pair)) == 0).all()
    assert (module.pixel_arithmetic(faces, module.Trial(last, one, pair)) == 210).all()


def test_extremes_ignore_nan() -> None:
    values = np.arange(100.0)
    values[90:] = np.nan
    low, high = module.extremes(values)
    assert sorted(low) == list(range(14)) and sorted(high) == list(range(76, 90))


def test_the_command_writes_pictures_and_numbers(
    tmp_path: Path, small_weights_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "measure", brightness)
    out = tmp_path / "out"
    words = ["--weights", small_weights_file, "--count", 120, "--label", "bright hair", "eyes open"]
    found = explore("arithmetic", out, *words)
    names = ("arithmetic.png", "sweep.png", "turn.png", "arithmetic.json")
    assert capsys.readouterr().out == "".join(f"{out / name}\n" for name in names)
    assert found["faces"] == 120 and list(found["arithmetic"]) == ["bright hair", "eyes open"]
    assert all(score["z_has_label"] > score["c_alone_has_label"] for score in found["arithmetic"].values())
    assert list(found["change_per_unit_in_stds"]) == ["bright hair", "eyes open"]
    assert found["turn"]["turned_right"] > 0.9  # with the stand-in: a brighter third part
    assert read_photo(out / "arithmetic.png").pixels.shape[0] == 2 * 5 * 32
    assert read_photo(out / "sweep.png").pixels.shape[0] > 2 * 2 * 32
    assert read_photo(out / "turn.png").pixels.shape[0] == 4 * 32
