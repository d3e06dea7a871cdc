from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import NO_FACE, PORTRAIT, save
from test_completion_detail import FACE, LANDMARKS, SHAPE, around_eye, likeness

from completion import FaceCompleter
from completion.references import DISTANCE, References, choose


def ellipse(points: slice, width: float, height: float) -> NDArray[np.bool_]:
    hole = np.zeros(SHAPE, dtype=np.uint8)
    cv2.ellipse(hole, (tuple(map(float, LANDMARKS[points].mean(axis=0))), (width, height), 0.0), 1, -1)
    return hole > 0


HOLES = {"eye": around_eye(0), "middle": ellipse(slice(27, 36), 90, 60), "mouth": ellipse(slice(48, 60), 70, 40)}


@pytest.fixture(scope="module")
def completer() -> FaceCompleter:
    return FaceCompleter.load(device="cpu")


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("album") / "same.png", PORTRAIT)


@pytest.fixture
def strangers(completer: FaceCompleter, tmp_path: Path) -> Path:
    """A folder of faces that the networks draw: the portrait with another's features."""
    other = np.ascontiguousarray(PORTRAIT[:, ::-1])
    for index, hole in enumerate((np.ones(SHAPE, dtype=bool),)):
        drawn = completer(other, hole, faces=[FACE], detail="network", seed=index, solver="search")
        save(tmp_path / "strangers" / f"{index}.png", drawn.pixels)
    return tmp_path / "strangers"


@pytest.mark.parametrize("name", HOLES)
def test_a_photo_of_the_person_brings_what_is_missing(completer: FaceCompleter, same: Path, name: str) -> None:
    hole = HOLES[name]
    seen = np.where(hole[..., None], np.uint8(0), PORTRAIT)
    network = completer(seen, hole, faces=[FACE], detail="network")
    done = completer(seen, hole, faces=[FACE], reference=(same,))
    assert done.details["face 1"].source == "same.png"
    assert likeness(done.pixels, PORTRAIT, hole) > likeness(network.pixels, PORTRAIT, hole) + 0.1


def test_a_folder_is_searched_whatever_the_order_of_its_files(completer: FaceCompleter, same: Path) -> None:
    save(same.parent / "a.png", NO_FACE)
    hole = HOLES["eye"]
    one = completer(PORTRAIT, hole, faces=[FACE], reference=(same.parent,))
    other = completer(PORTRAIT, hole, faces=[FACE], reference=(same.parent / "a.png", same))
    assert one.details["face 1"].source == "same.png"
    assert np.array_equal(one.pixels, other.pixels)
    assert any("no face was found in the reference" in note for note in other.notes)


def test_faces_of_others_are_not_used(completer: FaceCompleter, strangers: Path) -> None:
    hole = HOLES["eye"]
    without = completer(PORTRAIT, hole, faces=[FACE])
    done = completer(PORTRAIT, hole, faces=[FACE], reference=(strangers,))
    if References().find((strangers,), "")[0]:
        assert any(f"limit is {DISTANCE}" in note for note in done.notes)
    assert np.array_equal(done.pixels, without.pixels)


def test_a_reference_that_cannot_be_read_is_a_note(completer: FaceCompleter, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    hole = HOLES["eye"]
    done = completer(PORTRAIT, hole, faces=[FACE], reference=(broken, tmp_path / "missing.png"))
    assert sum("cannot be used" in note for note in done.notes) == 2
    assert np.array_equal(done.pixels, completer(PORTRAIT, hole, faces=[FACE]).pixels)


def test_the_photo_itself_is_no_reference(same: Path) -> None:
    references = References()
    [found], _ = references.find((same,), "")
    assert found.named and not references.find((same.parent,), "")[0][0].named
    from align.photo import digest

    assert references.find((same,), digest(same))[0] == []


def test_the_nearest_person_is_chosen_before_the_pose(same: Path) -> None:
    from dataclasses import replace

    [found], _ = References().find((same,), "")
    far = replace(found, embedding=found.embedding + 0.2, portrait=replace(found.portrait, name="far"))  # 2.3 away
    part = HOLES["eye"]
    portraits, remark = choose([far, found], PORTRAIT, FACE, LANDMARKS, part)
    assert [each.name for each in portraits] == ["same.png"] and not remark
    portraits, remark = choose([replace(far, named=False)], PORTRAIT, FACE, LANDMARKS, part)
    assert not portraits and "far" in remark and "name that file" in remark
    turned = found.portrait.landmarks.copy()
    turned[:, 0] *= 0.5
    portraits, remark = choose(
        [replace(found, portrait=replace(found.portrait, landmarks=turned))], PORTRAIT, FACE, LANDMARKS, part
    )
    assert not portraits and "another pose" in remark
