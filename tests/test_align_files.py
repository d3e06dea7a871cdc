"""Files and folders: atomic writes, lists of photos, output names."""

import json
import math
import tempfile
from pathlib import Path

import pytest

from align.errors import PhotoError
from align.files import atomic_write, list_photos, output_names, prepare_folder, write_json, write_text


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as part:
        part.write(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old" and list(file.parent.iterdir()) == [file]


def test_text_is_written_in_utf_8_and_json_without_infinity(tmp_path):
    write_text(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == "grün\n".encode()
    write_json(tmp_path / "a.json", {"a": [1, None]})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", math.inf)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return [root / name for name in names]


def test_photos_of_all_sub_folders_are_listed_in_order(tmp_path):
    make(tmp_path, "b.jpg", "a.PNG", "sub/deep/c.webp", "d.gif", "e.tif")
    make(tmp_path, "faces.jsonl", "notes.txt", ".hidden.png", ".git/x.png", "jpg")
    listed = [path.relative_to(tmp_path).as_posix() for path in list_photos(tmp_path)]
    assert listed == ["a.PNG", "b.jpg", "d.gif", "e.tif", "sub/deep/c.webp"]


def test_a_skipped_folder_inside_the_input_is_not_listed(tmp_path):
    make(tmp_path, "a.jpg", "aligned/a.png", "aligned/sub/b.png")
    assert list_photos(tmp_path, skip=[tmp_path / "sub" / ".." / "aligned"]) == [tmp_path / "a.jpg"]
    assert len(list_photos(tmp_path, skip=[tmp_path])) == 3


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path):
    make(tmp_path, "root/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    listed = list_photos(tmp_path / "root")
    assert sorted(path.name for path in listed) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_the_error_names_a_folder_that_cannot_be_listed(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(PhotoError, match=f"{name} cannot be listed"):
        list_photos(tmp_path / name)


@pytest.mark.parametrize(
    ("numbered", "outputs"),
    [
        (False, {"a.jpg": "a.png", "sub/a.png": "sub/a.png", "sub/b.c.webp": "sub/b.c.png"}),
        (False, {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "b.jpg": "b.png"}),
        (False, {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "a.png.jpg": "a.png.jpg.png"}),
        (False, {"a.jpg": "a.png", "a_1.jpg": "a_1.png"}),
        (True, {"a.jpg": "a.jpg.png", "a_1.jpg": "a_1.jpg.png", "b.jpg": "b.png"}),
        (True, {"a.jpg": "a.png", "sub/a_1.jpg": "sub/a_1.png"}),
        (True, {"a_1.jpg": "a_1.png", "a_2.jpg": "a_2.png"}),
        (True, {"a.jpg": "a.jpg.png", "a_1.png": "a_1.png.png", "a.jpg_1.png": "a.jpg_1.png.png"}),
        (True, {"_1.jpg": "_1.png", "_2.jpg": "_2.png"}),
    ],
)
def test_output_names_keep_sub_folders_and_never_collide(tmp_path, numbered, outputs):
    photos = [tmp_path / name for name in outputs]
    named = output_names(photos, tmp_path, numbered)
    assert {str(photo.relative_to(tmp_path)): str(name) for photo, name in named.items()} == outputs


def test_the_output_folder_must_differ_from_the_input(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "x").mkdir()
    for folder in (tmp_path, tmp_path / "link", tmp_path / "x" / ".."):
        with pytest.raises(PhotoError, match="choose another folder"):
            prepare_folder(folder, tmp_path)
    prepare_folder(tmp_path / "inside" / "deeper", tmp_path)
    assert list((tmp_path / "inside" / "deeper").iterdir()) == []


def test_the_error_names_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "sub", Path("/proc/align")):
        with pytest.raises(PhotoError, match="cannot be written to"):
            prepare_folder(folder)

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(PhotoError, match="Read-only file system; choose another folder"):
        prepare_folder(tmp_path / "output")
