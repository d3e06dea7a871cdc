"""Tests of the plan: what is completed, where to, and what is refused before any work."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from pictures import CENTER, files, save

from align.errors import MaskError, NoFaceError, PhotoError
from completion.config import FileOptions, FillOptions
from completion.masks import MaskSpec
from completion.plan import Plan, plan_outputs


def plan(*inputs: Path, output: Path, mask: object = "center", fill: Any = None, **settings: Any) -> Plan:
    return plan_outputs(inputs, output, FillOptions(**(fill or {})), FileOptions(str(mask), **settings))


def test_a_plan_has_one_output_for_each_photo(tmp_path: Path) -> None:
    one, two = (save(tmp_path / "raw" / name) for name in ("a.png", "b.png"))
    done = tmp_path / "done"
    planned = plan(tmp_path / "raw", one, output=done, strip=True, history=True, fill={"candidates": 3})
    assert (planned.root, planned.folder) == (tmp_path / "raw", done)
    assert planned.outputs == {one: done / "a.png", two: done / "b.png"}
    sides = ["2.png", "3.png", "candidates.png", "strip.png", "history.gif", "history.jsonl"]
    assert planned.outputs_of(two) == [done / "b.png", *(done / f"b.{side}" for side in sides)]
    assert planned.source(one) == Path("a.png") and planned.mask_of(one) == MaskSpec("center")
    single = plan(one, output=tmp_path / "one.webp")
    assert single.folder is None and single.outputs == {one: tmp_path / "one.webp"}
    with pytest.raises(PhotoError, match=r"one.heic has an unsupported suffix; use one of .png, .jpg"):
        plan(one, output=tmp_path / "one.heic")
    with pytest.raises(PhotoError, match=r"one.png is named like a file, but these photos need a folder"):
        plan(one, two, output=tmp_path / "one.png")


def test_a_mask_without_a_face_fails_for_one_photo_and_is_filled_for_several(tmp_path: Path) -> None:
    photo = save(tmp_path / "raw" / "a.png")
    for inputs, expected in (([photo], "fail"), ([photo.parent], "fill"), ([photo, save(tmp_path / "b.png")], "fill")):
        assert plan(*inputs, output=tmp_path / "done").options.no_face == expected
    assert plan(photo.parent, output=tmp_path / "done", fill={"no_face": "fail"}).options.no_face == "fail"


def test_subfolders_photos_of_one_stem_and_of_parent_folders_have_own_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, done = tmp_path / "raw", tmp_path / "done"
    for name in ("a.png", "a.bmp", "sub/a.png", "sub/deep/b.jpg"):
        save(raw / name)
    found = sorted(str(path.relative_to(done)) for path in plan(raw, output=done).outputs.values())
    assert found == ["a.bmp.png", "a.png.png", "sub/a.png", "sub/deep/b.png"]
    monkeypatch.chdir(raw / "sub")
    save(tmp_path / "above.png")
    planned = plan(Path("../../above.png"), Path("a.png"), output=Path("made"))
    assert [str(path) for path in planned.outputs.values()] == ["made/above.png", "made/raw/sub/a.png"]


def test_masks_of_a_folder_have_the_names_of_the_outputs(tmp_path: Path) -> None:
    raw, masks = tmp_path / "raw", tmp_path / "masks"
    png, bmp, sub = (save(raw / name) for name in ("a.png", "a.bmp", "sub/b.jpg"))
    expected = [save(masks / name) for name in ("a.png.png", "sub/b.bmp")]
    planned = plan(raw, output=tmp_path / "done", mask=masks)
    assert [planned.mask_of(photo).files for photo in (png, sub)] == [(mask,) for mask in expected]
    with pytest.raises(MaskError, match="no mask for this photo; expected one image named a.bmp.*"):
        planned.mask_of(bmp)


@pytest.mark.parametrize("link", [False, True])
def test_an_output_that_is_or_replaces_an_input_is_refused(tmp_path: Path, link: bool) -> None:
    photo, other = save(tmp_path / "raw" / "a.png"), save(tmp_path / "p" / "x.png")
    raw, mask = photo.parent, save(tmp_path / "holes" / "a.png", np.where(CENTER, 255, 0))
    (tmp_path / "link").symlink_to(raw)
    (tmp_path / "faces.jsonl").write_text("{}")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "a.2.png").symlink_to(photo)
    given = tmp_path / "link" if link else raw
    faces = {"landmarks": tmp_path / "faces.jsonl"}
    cases: list[tuple[list[Path], Path, dict[str, Any]]] = [
        ([given], raw, {}),
        ([given / "a.png"], raw, {}),
        ([photo], given / "a.png", {}),
        ([raw], given / "done", {}),
        ([given / "a.png", raw], raw, {}),
        ([raw, other], tmp_path, {}),
        ([raw], mask.parent, {"mask": mask.parent}),
        ([raw], mask.parent, {"mask": mask}),
        ([photo], mask, {"mask": mask}),
        ([raw], tmp_path / "new", {"mask": mask.parent, "report": mask}),
        ([raw], tmp_path / "new", {"report": given / "a.png"}),
        ([raw], tmp_path / "new", {"report": tmp_path / "faces.jsonl", **faces}),
        ([photo], tmp_path / "done" / "a.png", {"fill": {"candidates": 2}}),
    ]
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    for inputs, output, settings in cases:
        for overwrite in (False, True):
            with pytest.raises(PhotoError, match="is also an input|is in the input folder"):
                plan(*inputs, output=output, overwrite=overwrite, **settings)
    side = save(tmp_path / "x.strip.png")
    with pytest.raises(PhotoError, match="is also an input"):
        plan(side, output=tmp_path / "x.png", strip=True, overwrite=True)
    side.unlink()
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save(tmp_path / "a.png")
    for output in (photo / "done", photo / "done.png"):
        with pytest.raises(PhotoError, match="cannot be written to"):
            plan(photo, output=output)
    for report in (photo / "report.json", tmp_path):
        with pytest.raises((PhotoError, OSError)):
            plan(photo, output=tmp_path / "done", report=report)

    def read_only(**_: object) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(PhotoError, match="Read-only file system"):
        plan(photo, output=tmp_path / "done")


@pytest.mark.parametrize("report", ["/dev/null", "link.json", "done/a.png"])
def test_a_report_replaces_only_json_files(tmp_path: Path, report: str) -> None:
    raw = save(tmp_path / "raw" / "a.png").parent
    (tmp_path / "notes.json").write_text('{"photos": []}')
    (tmp_path / "link.json").symlink_to(tmp_path / "notes.json")
    with pytest.raises(PhotoError, match="report|/dev/null"):
        plan(raw, output=tmp_path / "done", report=tmp_path / report)
    assert (tmp_path / "notes.json").read_text() == '{"photos": []}' and Path("/dev/null").is_char_device()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"source": "a.png", "landmarks": [[1e308, -1e308]]}', None])
def test_unusable_landmarks_are_refused(tmp_path: Path, text: str | None) -> None:
    raw, path = save(tmp_path / "raw" / "a.png").parent, tmp_path / "faces.jsonl"
    os.mkfifo(path) if text is None else path.write_text(text)
    with pytest.raises(NoFaceError, match=f"the landmarks file {path}"):
        plan(raw, output=tmp_path / "done", landmarks=path)


def test_inputs_that_are_absent_or_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (("gone", "gone does not exist; give photos or folders"), ("empty", "found no photos in")):
        with pytest.raises(PhotoError, match=words):
            plan(tmp_path / name, output=tmp_path / "done")
    assert not (tmp_path / "done").exists()
