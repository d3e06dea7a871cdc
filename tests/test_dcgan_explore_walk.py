"""python -m dcgan explore walk: the paths, and how jumps show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import explore

from align.photo import read_photo
from dcgan.__main__ import main
from dcgan.explore.walk import largest_step, pixel_steps
from dcgan.sampling import lerp, slerp


@pytest.mark.parametrize("path", [slerp, lerp])
def test_a_walk_from_z_to_itself_is_constant(path) -> None:  # type: ignore[no-untyped-def]
    z = torch.randn(128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(path(z, z, 7), z.expand(7, -1))


@pytest.mark.parametrize("path", [slerp, lerp])
def test_a_walk_includes_both_ends(path) -> None:  # type: ignore[no-untyped-def]
    a, b = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    z = path(a, 3 * b, 5)
    assert z.shape == (5, 128) and z.dtype == torch.float32
    assert torch.allclose(z[0], a) and torch.allclose(z[-1], 3 * b)


def test_slerp_keeps_the_norm_and_the_angle_between_steps() -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 128, generator=torch.Generator().manual_seed(0))) * 11
    z = slerp(a, b, 9)
    assert torch.allclose(z.norm(dim=1), torch.tensor(11.0))
    steps = (z[1:] - z[:-1]).norm(dim=1)
    assert torch.allclose(steps, steps[0], rtol=1e-4)
    assert lerp(a, b, 9).norm(dim=1).min() < 9


def test_slerp_between_opposite_z_is_a_line() -> None:
    z = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(slerp(z, -z, 5), lerp(z, -z, 5))


def test_the_largest_step_reveals_a_jump() -> None:
    even = np.arange(0, 50, 10, dtype=np.uint8)[:, None, None, None].repeat(12, axis=3)
    jump = np.repeat(np.array([10, 210], dtype=np.uint8), [3, 2])[:, None, None, None]
    assert np.array_equal(pixel_steps(even), [10, 10, 10, 10])
    assert largest_step(pixel_steps(even)) == 1
    assert largest_step(pixel_steps(jump)) == 4
    assert largest_step(pixel_steps(even[:1].repeat(3, axis=0))) == 1


def test_the_command_writes_pictures_and_numbers(
    tmp_path: Path, small_weights_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "walk"
    found = explore("walk", out, "--weights", small_weights_file, "--pairs", 2, "--steps", 4)
    names = ("walk.png", "walk.gif", "walk.json")
    assert capsys.readouterr().out == "".join(f"{out / name}\n" for name in names)
    assert found["settings"]["pairs"] == 2 and len(found["walks"]) == 4 and found["a_jump_would_be"] == 3
    assert all(1 <= walk[f"largest_step_{by}"] <= 3 for walk in found["walks"] for by in ("pixels", "embedding"))
    assert read_photo(out / "walk.png").pixels.shape[0] == 4 * 32
    with Image.open(out / "walk.gif") as animation:
        assert animation.n_frames == 6 and animation.size == (64, 32)  # type: ignore[attr-defined]
    assert main(["explore", "walk", "--output", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
