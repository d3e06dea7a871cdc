"""Files and folders: atomic writes, lists of photos, output names."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from pictures import files

from align.errors import PhotoError
from align.files import (
    atomic_write,
    check_outputs,
    list_photos,
    lock_folder,
    output_names,
    parse_json,
    prepare_folder,
    prepare_report,
    publish,
    read_file,
    read_json_lines,
    read_text,
    remove_leftovers,
    write_json,
    write_text,
)


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


def test_the_output_folder_must_be_outside_the_input(tmp_path):
    photos = tmp_path / "photos"
    make(photos, "sub/a.jpg")
    (tmp_path / "link").symlink_to(photos)
    for folder in (photos, tmp_path / "link", photos / "sub" / "..", photos / "new" / "deeper"):
        with pytest.raises(PhotoError, match="is in the input folder"):
            prepare_folder(folder, photos)
    prepare_folder(tmp_path / "photos2" / "deeper", photos)
    assert list((tmp_path / "photos2" / "deeper").iterdir()) == [] and not (photos / "new").exists()


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path):
    photo, mask = make(tmp_path, "photo.jpg", "masks/photo.png")
    (tmp_path / "soft").symlink_to(photo)
    os.link(photo, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(tmp_path / "masks")
    for name in ("photo.jpg", "masks/../photo.jpg", "soft", "hard", "masks/photo.png", "masks/new.png", "folder/x.png"):
        with pytest.raises(PhotoError, match="is also an input|is in the input folder"):
            check_outputs([tmp_path / "fine.png", tmp_path / name], [photo, tmp_path / "gone", mask.parent])
    check_outputs([tmp_path / "masks2" / "new.png"], [photo, mask.parent])


def test_an_output_behind_a_link_inside_the_output_folder_is_refused(tmp_path):
    make(tmp_path, "done/a.png", "elsewhere/b.png")
    (tmp_path / "done" / "sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "done")
    with pytest.raises(PhotoError, match="behind a link"):
        check_outputs([tmp_path / "done" / "sub" / "b.png"], [], tmp_path / "done")
    check_outputs([tmp_path / "link" / "new" / "a.png"], [], tmp_path / "link")  # the user chose this link


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "/dev/null", "a" * 256])
def test_nothing_but_a_regular_file_is_replaced(tmp_path, kind):
    path = tmp_path / kind
    if kind == "link":
        path.symlink_to(*make(tmp_path, "target"))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    before = os.path.lexists(path) and path.lstat()
    with pytest.raises(PhotoError, match="is a link|is a folder|is not a regular file|File name too long"):
        write_text(path, "new")
    assert (os.path.lexists(path) and path.lstat()) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("gone", "cannot be read: No such file"),
        ("large", "too large: 11 bytes, the limit is 10"),
        ("a" * 256, "cannot be read: File name too long"),
        ("zero\0byte", "cannot be read"),
    ],
)
def test_only_regular_files_of_limited_size_are_read(tmp_path, kind, words):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"12345678901")
    with pytest.raises(PhotoError, match=words):
        read_file(tmp_path / kind, 10)
    (tmp_path / "large").write_bytes(b"1234567890")
    assert read_file(tmp_path / "large", 10) == b"1234567890"


def test_the_lock_of_a_folder_excludes_other_processes_and_ends_with_its_process(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from align.files import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(PhotoError, match="another run is writing to .* too; wait until"), lock_folder(tmp_path):
            pass
        other.kill()
    for _ in range(2):
        with lock_folder(tmp_path), pytest.raises(PhotoError, match="another run"), lock_folder(tmp_path):
            pass


def test_a_wait_for_a_lock_is_logged_and_ends(tmp_path, caplog):
    with lock_folder(tmp_path):
        with pytest.raises(PhotoError, match="after 0.1 s too"), lock_folder(tmp_path, 0.1):
            pass
        [line] = caplog.messages
        assert line == f"another run is writing to {tmp_path}; waiting for up to 0.1 s"
    with lock_folder(tmp_path, 0):
        pass


def test_a_new_file_never_replaces_another_and_a_replaced_one_keeps_its_permissions(tmp_path, monkeypatch):
    new, old = make(tmp_path, "new", "old")
    old.write_bytes(b"old")
    old.chmod(0o600)
    for link in (os.link, lambda *_: os.stat("/nowhere")):  # the second is a file system without hard links
        monkeypatch.setattr(os, "link", link)
        new.write_bytes(b"new")
        with pytest.raises(PhotoError, match="old exists; overwrite it"):
            publish(new, old, False)
        with pytest.raises(PhotoError, match="old exists; overwrite it"), atomic_write(old, False) as file:
            file.write(b"new")
        assert old.read_bytes() == b"old"
        publish(new, tmp_path / "other", False)
        assert (tmp_path / "other").read_bytes() == b"new" and not new.exists()
        (tmp_path / "other").unlink()
    with atomic_write(old) as file:
        file.write(b"new")
    assert old.read_bytes() == b"new" and old.stat().st_mode & 0o777 == 0o600
    assert files(tmp_path) == ["old"]


def test_a_report_replaces_only_a_report(tmp_path):
    report = tmp_path / "r.json"
    for content, ours in (('{"mine": 1}', False), ("text", False), ('[{"photo": "a", "status": "failed"}]', True)):
        report.write_text(content)
        if not ours:
            with pytest.raises(PhotoError, match="is no report of this program"):
                prepare_report(report)
            prepare_report(report, overwrite=True)
        else:
            prepare_report(report)


def test_a_folder_that_cannot_be_locked_is_reported(tmp_path):
    [file] = make(tmp_path, "file")
    with pytest.raises(PhotoError, match="cannot be locked"), lock_folder(file):
        pass


def test_only_the_temporary_files_of_this_program_are_removed(tmp_path):
    kept = [".part", ".notes.part", ".0123456789abcdef.part.png", "0123456789abcdef.part", "sub/.0123456789abcdef.part"]
    make(tmp_path, *kept, ".0123456789abcdef.part")
    make(tmp_path, ".fedcba9876543210.part/a.png")
    remove_leftovers([tmp_path, tmp_path / "gone"])
    assert files(tmp_path) == sorted(kept) and not list(tmp_path.glob(".fed*"))
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "file"):
        [part] = set(tmp_path.glob(".*.part")) - {tmp_path / name for name in kept}
        remove_leftovers([tmp_path])
        assert not part.exists()
        raise KeyboardInterrupt


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


DEEP = "[" * 10**5 + "]" * 10**5


def test_text_may_begin_with_a_byte_order_mark_and_hold_names_that_are_no_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfgr\xc3\xbcn\n\xff")
    assert read_text(tmp_path / "a.txt") == "gr\u00fcn\n\udcff"
    write_text(tmp_path / "b.txt", "\udcff")
    assert (tmp_path / "b.txt").read_bytes() == b"\xff"


def test_only_line_feeds_separate_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('\ufeff"a\u2028b\u0085c"\r\n\n[1]', encoding="utf-8", newline="")
    assert list(read_json_lines(tmp_path / "a.jsonl")) == ["a\u2028b\u0085c", [1]]


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999", DEEP, '{"a":' * 10**5, "", b"\0", b"\xff", "1" * 5000])
def test_json_is_limited_in_depth_and_to_finite_numbers(text):
    with pytest.raises(ValueError):
        parse_json(text)
    assert parse_json('{"a": [1, -2.5e3]}') == {"a": [1, -2500.0]}
