import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pictures import NO_FACE, PORTRAIT, save
from test_completion_detail import FACE, LANDMARKS, hole_of, likeness

from align.photo import digest
from completion import FaceCompleter, variants
from completion.references import DISTANCE, References, choose
from dcgan.sampling import generate, sample_z
from dcgan.weights import Weights

HOLES = {name: hole_of(name) for name in ("eye", "middle", "mouth")}


@pytest.fixture(scope="module")
def completer() -> FaceCompleter:
    return FaceCompleter.load(device="cpu")


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("album") / "same.png", PORTRAIT)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of faces that our generator draws."""
    folder = tmp_path_factory.mktemp("strangers")
    generator = Weights.open("faces-128", "cpu").generator
    z = sample_z(4, generator.config, torch.Generator().manual_seed(1))
    for index, face in enumerate(generate(generator, z)):
        save(folder / f"{index}.png", cv2.resize(face, (512, 512), interpolation=cv2.INTER_CUBIC))
    return folder


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


@pytest.mark.slow
def test_faces_of_others_are_not_used(completer: FaceCompleter, strangers: Path) -> None:
    hole = HOLES["eye"]
    without = completer(PORTRAIT, hole, faces=[FACE])
    done = completer(PORTRAIT, hole, faces=[FACE], reference=(strangers,))
    assert References().find((strangers,), "")[0]
    assert any(f"the limit is {DISTANCE}" in note for note in done.notes)
    assert np.array_equal(done.pixels, without.pixels)


def test_a_reference_that_cannot_be_read_is_a_note(completer: FaceCompleter, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    hole = HOLES["eye"]
    done = completer(PORTRAIT, hole, faces=[FACE], reference=(broken, tmp_path / "missing.png"))
    assert sum("cannot be used" in note for note in done.notes) == 2
    assert np.array_equal(done.pixels, completer(PORTRAIT, hole, faces=[FACE]).pixels)


def test_landmarks_are_not_loaded_where_they_bring_nothing(
    completer: FaceCompleter, same: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    predict = variants.predict_aligned
    monkeypatch.setattr(variants, "predict_aligned", lambda *args: found.append(1) or predict(*args))
    plain = completer(PORTRAIT, HOLES["middle"], faces=[FACE])
    assert not found  # the mirror image of the middle is hidden as well
    without = completer(PORTRAIT, HOLES["middle"], faces=[FACE], detail="network")
    assert np.array_equal(plain.pixels, without.pixels)
    completer(PORTRAIT, HOLES["middle"], faces=[FACE], reference=same)
    completer(PORTRAIT, HOLES["eye"], faces=[FACE])
    assert len(found) == 2


def test_one_bad_file_does_not_end_the_search_of_a_folder(completer: FaceCompleter, same: Path) -> None:
    same.with_name("0.pdf").write_bytes(b"%PDF-1.4")
    references, remarks = References().find((same.parent,), "")
    assert len(references) == 1 and len(remarks) == 1 and "0.pdf cannot be used" in remarks[0]
    for form in ([str(same)], (same,), str(same)):
        assert completer._chosen({"reference": form}).reference == (same,)


def test_the_photo_itself_is_no_reference(same: Path) -> None:
    references = References()
    [found], _ = references.find((same,), "")
    assert found.named and not references.find((same.parent,), "")[0][0].named
    assert references.find((same,), digest(same))[0] == []


def test_few_faces_are_remembered_and_a_copy_finds_its_own(same: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = References()
    [found], _ = references.find((same,), "")
    assert references._found and not pickle.loads(pickle.dumps(references))._found
    monkeypatch.setattr("completion.references._KEPT_BYTES", found.portrait.pixels.nbytes)
    other = save(same.parent / "other.png", np.pad(PORTRAIT, ((9, 0), (0, 0), (0, 0)), "edge"))
    assert len(references.find((same, other), "")[0]) == 2 and len(references._found) == 1


def test_the_nearest_person_is_chosen_before_the_pose(same: Path) -> None:
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
