"""Files: written whole or not at all, listed, and named for the output."""

import json
import math
import tempfile
from pathlib import Path

import pytest

from align.errors import PhotoError
from align.files import atomic_write, list_photos, output_names, prepare_folder, write_json, write_text


def test_fault_40_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as part:
        part.write(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old" and list(file.parent.iterdir()) == [file]


def test_text_and_json_are_written_in_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == "grün\n".encode()
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", math.inf)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return [root / name for name in names]


def test_photos_are_listed_below_the_folder_in_order(tmp_path):
    make(tmp_path, "b.jpg", "a.PNG", "sub/deep/c.webp", "d.gif", "e.tif")
    make(tmp_path, "faces.jsonl", "notes.txt", ".hidden.png", ".git/x.png", "jpg")
    listed = [path.relative_to(tmp_path).as_posix() for path in list_photos(tmp_path)]
    assert listed == ["a.PNG", "b.jpg", "d.gif", "e.tif", "sub/deep/c.webp"]


def test_an_output_folder_inside_the_input_is_stepped_over(tmp_path):
    make(tmp_path, "a.jpg", "aligned/a.png", "aligned/sub/b.png")
    assert list_photos(tmp_path, skip=[tmp_path / "sub" / ".." / "aligned"]) == [tmp_path / "a.jpg"]
    assert len(list_photos(tmp_path, skip=[tmp_path])) == 3


def test_fault_36_folders_that_hold_themselves_are_listed_once(tmp_path):
    make(tmp_path, "root/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    listed = list_photos(tmp_path / "root")
    assert sorted(path.name for path in listed) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_cannot_be_listed_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(PhotoError, match=f"{name} cannot be listed"):
        list_photos(tmp_path / name)


def named(root, *names, numbered=False):
    outputs = output_names([root / name for name in names], root, numbered)
    return {photo.relative_to(root).as_posix(): output.as_posix() for photo, output in outputs.items()}


def test_outputs_keep_sub_folders(tmp_path):
    assert named(tmp_path, "a.jpg", "sub/a.png", "sub/b.c.webp") == {
        "a.jpg": "a.png",
        "sub/a.png": "sub/a.png",
        "sub/b.c.webp": "sub/b.c.png",
    }


@pytest.mark.parametrize(
    ("photos", "outputs"),
    [
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["a.jpg", "a.png", "a.png.jpg"], ["a.jpg.png", "a.png.png", "a.png.jpg.png"]),
        (["a.jpg", "a_1.jpg"], ["a.png", "a_1.png"]),
    ],
)
def test_fault_38_photos_of_one_stem_are_both_kept(tmp_path, photos, outputs):
    assert list(named(tmp_path, *photos).values()) == outputs


@pytest.mark.parametrize(
    ("photos", "outputs"),
    [
        (["a.jpg", "a_1.jpg", "b.jpg"], ["a.jpg.png", "a_1.jpg.png", "b.png"]),
        (["a.jpg", "sub/a_1.jpg"], ["a.png", "sub/a_1.png"]),
        (["a_1.jpg", "a_2.jpg"], ["a_1.png", "a_2.png"]),
        (["a.jpg", "a_1.png", "a.jpg_1.png"], ["a.jpg.png", "a_1.png.png", "a.jpg_1.png.png"]),
        (["_1.jpg", "_2.jpg"], ["_1.png", "_2.png"]),
    ],
)
def test_fault_38_numbered_crops_meet_no_other_photo(tmp_path, photos, outputs):
    assert list(named(tmp_path, *photos, numbered=True).values()) == outputs


def test_fault_37_the_output_folder_may_not_be_the_input(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link", tmp_path / "x" / ".."):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(PhotoError, match="choose another folder"):
            prepare_folder(folder, tmp_path)
    prepare_folder(tmp_path / "inside" / "deeper", tmp_path)
    assert list((tmp_path / "inside" / "deeper").iterdir()) == []


def test_fault_39_a_folder_that_cannot_be_written_is_named_first(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "sub", Path("/proc/align")):
        with pytest.raises(PhotoError, match="cannot be written to"):
            prepare_folder(folder)

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(PhotoError, match="Read-only file system; choose another folder"):
        prepare_folder(tmp_path / "output")
