"""python -m dcgan explore duplicates: copies are found, other images are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from runs import explore, returned

from align.photo import read_photo
from dcgan.dataset import DatasetError, load_faces, load_named_faces
from dcgan.explore import duplicates as module
from dcgan.explore.duplicates import (
    KINDS,
    Autoencoder,
    altered,
    best_correlation,
    centre_crops,
    codes,
    learn,
    near_pairs,
)


def pictures(count: int, seed: int = 0, size: int = 64) -> NDArray[np.uint8]:
    """Smooth random images, no two of them alike."""
    import cv2

    rough = np.random.default_rng(seed).integers(20, 200, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in rough]).astype(np.uint8)


def write(folder: Path, images: dict[str, NDArray[np.uint8]]) -> Path:
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_near_pairs_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**64, (count, 2), dtype=np.uint64) for count in (600, 50))
    b[7] = a[580] ^ np.array([1, 2**63], dtype=np.uint64)  # two bits apart
    assert near_pairs(a, b, 2).tolist() == [[580, 7]]
    assert near_pairs(a, b, 1).shape == (0, 2)
    bits = [np.unpackbits(part.view(np.uint8), axis=1).astype(int) for part in (a, b)]
    table = np.abs(bits[0][:, None] - bits[1]).sum(axis=2)
    assert np.array_equal(near_pairs(a, b, 60), np.argwhere(table <= 60))


def test_codes_are_the_units_above_0() -> None:
    torch.manual_seed(0)
    network, crops = Autoencoder().eval(), torch.randn(5, 3072)
    bits = np.unpackbits(codes(network, crops).view(np.uint8), axis=1)
    assert np.array_equal(bits, (network.encode(crops) > 0).numpy())
    assert 0.2 < bits.mean() < 0.8


def test_the_autoencoder_learns_to_remove_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 16)
    monkeypatch.setattr(module, "_SHIFT_PX", 0)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    crops = centre_crops(np.tensordot(shares, pictures(4), 1).astype(np.uint8))  # mixtures of four pictures
    steps, network = returned(learn(crops, 8, 0))
    assert len(steps) == 8 and not network.training
    torch.manual_seed(0)
    noisy = torch.nn.functional.dropout(crops, 0.2)  # a mean square of 0.25
    assert float((network(noisy) - crops).square().mean()) < 0.1


def test_crops_do_not_depend_on_brightness_and_contrast() -> None:
    images = pictures(4)
    crops = centre_crops(images)
    assert crops.shape == (4, 3072)
    assert torch.allclose(crops.mean(dim=1), torch.zeros(4), atol=1e-5)
    assert torch.allclose(crops.square().mean(dim=1), torch.ones(4), atol=1e-4)
    assert torch.allclose(centre_crops((images // 2) + 20), crops, atol=0.05)
    assert torch.equal(centre_crops(np.full((1, 32, 32, 3), 7, dtype=np.uint8)), torch.zeros(1, 3072))


def test_the_command_lists_copies(tmp_path: Path) -> None:
    images = {f"{index:03d}.png": image for index, image in enumerate(pictures(60))}
    for name, source, kind in (
        ("more/a.png", "003.png", "shift 1 px"),
        ("more/b.png", "003.png", "brighter"),
        ("x.png", "010.png", "mirrored"),
    ):
        images[name] = altered(images[source][None], kind)[0]
    folder, out = write(tmp_path / "faces", images), tmp_path / "out"
    found = explore("duplicates", out, folder, "--planted", 30)
    assert found["groups"] == [["003.png", "more/a.png", "more/b.png"], ["010.png", "x.png"]]
    assert found["left_out"] == 3 and found["images"] == 63
    assert (out / "duplicates.txt").read_text() == "more/a.png\nmore/b.png\nx.png\n"
    scores = found["planted"]
    assert all(score["taken_for_another"] == 0 for score in scores.values())
    assert all(scores[kind]["found"] == 1 for kind in KINDS if kind != "shift 2 px")
    assert read_photo(out / "duplicates.png").pixels.shape[0] == 2 * 64


def test_different_images_are_not_duplicates(tmp_path: Path) -> None:
    images = {f"{index}.png": image for index, image in enumerate(pictures(40, 5))}
    folder = write(tmp_path / "faces", images)
    found = explore("duplicates", tmp_path, folder)
    assert found["groups"] == [] and found["left_out"] == 0 and "planted" not in found
    assert (tmp_path / "duplicates.txt").read_text() == ""


def test_images_are_compared_at_the_best_shift() -> None:
    images = torch.from_numpy(pictures(3).mean(axis=3)).float()
    moved = images[0].roll((2, -1), (0, 1))
    apart = images[0].roll(5, 0)
    others = torch.stack([images[0] / 2 + 9, moved, apart, images[1], 255 - images[0]])
    found = best_correlation(images[0], others)
    assert torch.allclose(found[:2], torch.ones(2), atol=1e-4)
    assert float(found[2:].max()) < 0.95 and float(found[4]) < 0
    middles = [image[8:56, 8:56].flatten().numpy() for image in (images[0], images[1])]
    assert float(found[3]) >= np.corrcoef(*middles)[0, 1] - 1e-4


def test_groups_are_connected_components() -> None:
    assert module.connected_groups(np.array([[0, 3], [3, 5], [2, 7]]), 9) == [[0, 3, 5], [2, 7]]
    assert module.connected_groups(np.empty((0, 2), dtype=np.int64), 3) == []


def test_files_are_left_out_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "faces", {"a.png": pictures(1)[0], "b/c.png": pictures(1, 1)[0]})
    said: list[str] = []
    names, faces = load_named_faces(folder, 64, said.append)
    assert names == ["a.png", "b/c.png"] and len(faces) == 2 and not said
    assert np.array_equal(load_faces(folder, 64, said.append, {"a.png", "gone.png"}), faces[1:])
    assert said == ["1 files left out, 1 on the list are absent"]
    with pytest.raises(DatasetError, match="none of the 1 files to leave out"):
        load_faces(folder, 64, said.append, {"c.png"})
