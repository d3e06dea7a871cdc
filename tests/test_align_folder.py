"""Folders of photos: crops, records, errors of single photos, resumed runs, workers."""

import hashlib
import json
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
from pictures import NO_FACE, PORTRAIT, differences, files, save
from PIL import Image

from align import crop as crop_module
from align.config import AlignOptions
from align.errors import LandmarkModelError, PhotoError
from align.files import list_photos
from align.folder import MANIFEST, align_folder
from align.landmarks import find_faces
from align.photo import read_photo
from align.template import TEMPLATES
from align.warp import Alignment

ONE = AlignOptions(jobs=1)


# Two faces; the right one is larger.
TWO_FACES = np.full((300, 520, 3), 128, dtype=np.uint8)
TWO_FACES[10:240, 10:240] = PORTRAIT
TWO_FACES[10:286, 240:516] = Image.fromarray(PORTRAIT).resize((276, 276), Image.Resampling.BICUBIC)


def run(raw, aligned, **options):
    photos = list_photos(raw)
    return {
        result.photo.relative_to(raw).as_posix(): result
        for result in align_folder(photos, raw, aligned, replace(ONE, **options))
    }


def statuses(results):
    return {name: result.status for name, result in results.items()}


def crops(aligned):
    return sorted(path.relative_to(aligned).as_posix() for path in aligned.rglob("*") if path.suffix == ".png")


def records(aligned):
    """The lines of faces.jsonl, read without the code under test."""
    return [json.loads(line) for line in (aligned / MANIFEST).read_text().splitlines()]


def check_records(aligned):
    """Every crop has one record, and no temporary file is left."""
    assert [record["crop"] for record in records(aligned)] == crops(aligned)
    assert not list(aligned.rglob("*.part"))


def test_a_crop_is_written_with_its_record(raw, aligned):
    photo = save(raw / "sub" / "a.jpg", PORTRAIT)
    [result] = run(raw, aligned).values()
    assert (result.status, result.crops, result.reason) == ("aligned", (aligned / "sub" / "a.png",), "")
    [record] = records(aligned)
    expected = {"crop": "sub/a.png", "source": "sub/a.jpg", "face": 0, "template": "face", "size": 64}
    assert record | expected == record
    assert record["sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    pixels = read_photo(photo).pixels
    assert np.array_equal(record["landmarks"], find_faces(pixels)[0])
    crop = read_photo(aligned / "sub" / "a.png").pixels
    assert np.array_equal(crop, Alignment(np.array(record["matrix"]), 64).warp(pixels))


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_and_size_are_applied_and_recorded(raw, aligned, template):
    save(raw / "a.png", PORTRAIT)
    run(raw, aligned, template=template, size=48)
    assert read_photo(aligned / "a.png").pixels.shape == (48, 48, 3)
    [record] = records(aligned)
    assert (record["template"], record["size"]) == (template, 48)
    assert len(record["landmarks"]) == TEMPLATES[template].points


def test_by_default_the_largest_face_is_cut_out_and_photos_without_one_are_reported(raw, aligned):
    save(raw / "none.png", NO_FACE)
    save(raw / "one.png", PORTRAIT)
    save(raw / "two.png", TWO_FACES)
    results = run(raw, aligned)
    assert statuses(results) == {"none.png": "no face", "one.png": "aligned", "two.png": "aligned"}
    assert "no face found" in results["none.png"].reason
    assert crops(aligned) == ["one.png", "two.png"]
    assert np.array(records(aligned)[1]["landmarks"])[:, 0].min() > 240


def test_all_faces_are_cut_out_the_largest_first(raw, aligned):
    save(raw / "two.png", TWO_FACES)
    [result] = run(raw, aligned, faces="all").values()
    assert [path.name for path in result.crops] == ["two.png", "two_1.png"]
    assert [record["face"] for record in records(aligned)] == [0, 1]
    largest, other = (np.array(record["landmarks"]) for record in records(aligned))
    assert other[:, 0].max() < 240 < largest[:, 0].min()
    check_records(aligned)


def test_single_skips_photos_with_several_faces(raw, aligned):
    save(raw / "one.png", PORTRAIT)
    save(raw / "two.png", TWO_FACES)
    results = run(raw, aligned, faces="single")
    assert statuses(results) == {"one.png": "aligned", "two.png": "several faces"}
    assert "2 faces" in results["two.png"].reason
    assert crops(aligned) == ["one.png"]


def test_an_aligned_crop_can_be_aligned_again_with_upsampling(raw, aligned, tmp_path):
    save(raw / "a.png", PORTRAIT)
    run(raw, aligned)
    assert statuses(run(aligned, tmp_path / "again")) == {"a.png": "aligned"}
    assert statuses(run(aligned, tmp_path / "plain", upsample=0)) == {"a.png": "no face"}


def test_copies_of_photos_without_a_face_have_no_location_and_are_replaced_only_on_request(raw, aligned, tmp_path):
    exif = Image.Exif()
    exif[0x8825] = {29: "1999:09:09"}
    save(raw / "sub" / "none.jpg", NO_FACE, exif=exif)
    save(raw / "one.jpg", PORTRAIT)
    missing = tmp_path / "missing"
    run(raw, aligned, missing=missing)
    assert files(missing) == ["sub/none.png"]
    copy = missing / "sub" / "none.png"
    assert np.array_equal(read_photo(copy).pixels, read_photo(raw / "sub" / "none.jpg").pixels)
    assert b"1999:09:09" not in copy.read_bytes()
    copy.write_bytes(b"mine")
    run(raw, aligned, missing=missing)
    assert copy.read_bytes() == b"mine"
    run(raw, aligned, missing=missing, overwrite=True)
    assert copy.read_bytes() != b"mine"


def test_broken_photos_links_and_pipes_do_not_stop_the_others(raw, aligned):
    save(raw / "b.png", PORTRAIT)
    (raw / "a.png").write_text("text")
    (raw / "c.gif").write_bytes(b"GIF89a")
    (raw / "dangling.png").symlink_to(raw / "gone.png")
    (raw / "loop.png").symlink_to(raw / "loop.png")
    (raw / "folder").symlink_to(raw)
    os.mkfifo(raw / "pipe.jpg")
    results = run(raw, aligned)
    assert results.pop("b.png").status == "aligned" and set(statuses(results).values()) == {"failed"}
    assert "not an image" in results["a.png"].reason and "expected JPEG" in results["c.gif"].reason
    assert results["pipe.jpg"].reason == "not a regular file; expected a file" and len(results) == 5


def test_an_unexpected_error_fails_only_its_photo(raw, aligned, monkeypatch):
    save(raw / "a.png", PORTRAIT)
    save(raw / "b.png", NO_FACE)

    def find(pixels, *_):
        if pixels.shape == NO_FACE.shape:
            raise MemoryError("too much")
        return find_faces(pixels)

    monkeypatch.setattr(crop_module, "find_faces", find)
    results = run(raw, aligned)
    assert statuses(results) == {"a.png": "aligned", "b.png": "failed"}
    assert results["b.png"].reason == "MemoryError: too much"


def test_a_missing_landmark_model_ends_the_run(raw, aligned, monkeypatch):
    save(raw / "a.png", PORTRAIT)

    def find(*_):
        raise LandmarkModelError("dlib is not installed")

    monkeypatch.setattr(crop_module, "find_faces", find)
    with pytest.raises(LandmarkModelError):
        run(raw, aligned)


def test_landmarks_without_a_fit_are_no_face(raw, aligned, monkeypatch):
    save(raw / "a.png", PORTRAIT)
    monkeypatch.setattr(crop_module, "find_faces", lambda *_: [np.ones((5, 2))])
    assert statuses(run(raw, aligned)) == {"a.png": "no face"}


def test_unusual_file_names_are_kept(raw, aligned):
    names = ["-v.png", "new\nline.png", "sp ace/grün 😀.png", os.fsdecode(b"\xff.png")]
    for name in names:
        save(raw / name, PORTRAIT)
    assert set(statuses(run(raw, aligned)).values()) == {"aligned"}
    assert crops(aligned) == sorted(names)
    assert [record["crop"] for record in records(aligned)] == sorted(names)
    assert set(statuses(run(raw, aligned)).values()) == {"skipped"}


def test_input_output_and_missing_folders_must_differ(raw, aligned):
    before = save(raw / "a.png", PORTRAIT).read_bytes()
    for options in ({}, {"overwrite": True}):
        for output, missing in ((raw, None), (raw / "sub", None), (aligned, raw), (aligned, aligned)):
            with pytest.raises(PhotoError, match="choose a"):
                run(raw, output, missing=missing, **options)
    assert [path.name for path in raw.iterdir()] == ["a.png"] and (raw / "a.png").read_bytes() == before


@pytest.mark.parametrize("folder", ["output", "missing"])
def test_an_output_folder_above_the_input_is_refused_where_outputs_would_replace_photos(raw, aligned, tmp_path, folder):
    before = save(raw / "a.png", NO_FACE).read_bytes()
    save(raw / "raw" / "a.png", PORTRAIT if folder == "output" else NO_FACE)
    above = {"missing": tmp_path} if folder == "missing" else {}
    with pytest.raises(PhotoError, match="is in the input folder"):
        run(raw, aligned if folder == "missing" else tmp_path, overwrite=True, **above)
    assert (raw / "a.png").read_bytes() == before


def test_an_output_folder_above_the_input_is_accepted_where_nothing_collides(raw, tmp_path):
    save(raw / "a.png", PORTRAIT)
    photos = list_photos(raw)
    assert [result.status for result in align_folder(photos, raw, tmp_path, ONE)] == ["aligned"]
    assert (tmp_path / "a.png").exists()


def test_the_folder_of_a_linked_photo_folder_is_an_input_too(raw, tmp_path):
    photo = save(tmp_path / "album" / "a.jpg", PORTRAIT)
    save(raw / "b.jpg", PORTRAIT)
    (raw / "linked").symlink_to(photo.parent)
    with pytest.raises(PhotoError, match="is in the input folder"):
        run(raw, photo.parent)
    assert files(photo.parent) == ["a.jpg"]


def test_a_folder_is_aligned_into_by_one_run_at_a_time(raw, aligned):
    photos = [save(raw / name, PORTRAIT) for name in ("a.png", "b.png")]
    first = align_folder(photos, raw, aligned, ONE)
    assert next(first).status == "aligned"
    with pytest.raises(PhotoError, match="another run is writing to"):
        run(raw, aligned)
    assert [result.status for result in first] == ["aligned"]
    check_records(aligned)
    assert set(statuses(run(raw, aligned)).values()) == {"skipped"}


def test_temporary_files_of_a_killed_run_are_removed_by_the_next(raw, aligned):
    save(raw / "sub" / "a.png", PORTRAIT)
    parts = [save(aligned / name / "x.png").rename(aligned / name / f".{'0a' * 8}.part") for name in ("", "sub")]
    mine = save(aligned / "x.png").rename(aligned / ".notes.part")
    run(raw, aligned)
    assert mine.exists() and not any(part.exists() for part in parts)


def test_a_numbered_crop_does_not_replace_that_of_another_photo(raw, aligned):
    save(raw / "a.png", TWO_FACES)
    save(raw / "a_1.png", PORTRAIT)
    run(raw, aligned, faces="all")
    assert crops(aligned) == ["a.png.png", "a.png_1.png", "a_1.png.png"]
    check_records(aligned)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_keeps_the_old_crop_and_record(raw, aligned, overwrite):
    save(raw / "a.png", PORTRAIT)
    if overwrite:
        run(raw, aligned, size=32)
    before = {path: path.read_bytes() for path in aligned.rglob("*.*")}
    # Another template, so that the new record would differ from the old one.
    template = "outer-eyes-nose" if overwrite else "face"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))  # enough for the record, but not for the crop
    try:
        [result] = run(raw, aligned, overwrite=overwrite, template=template, size=32).values()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.status == "failed" and "File too large" in result.reason
    if overwrite:
        assert {path: path.read_bytes() for path in aligned.rglob("*.*")} == before
    check_records(aligned)


# Repeated runs


def test_a_second_run_skips_photos_whose_crop_exists(raw, aligned):
    save(raw / "a.png", PORTRAIT)
    run(raw, aligned)
    (aligned / "a.png").write_bytes(b"mine")
    before = (aligned / MANIFEST).read_bytes()
    save(raw / "b.png", PORTRAIT)
    assert statuses(run(raw, aligned)) == {"a.png": "skipped", "b.png": "aligned"}
    assert (aligned / "a.png").read_bytes() == b"mine"
    assert (aligned / MANIFEST).read_bytes().startswith(before)
    check_records(aligned)


def test_overwrite_replaces_crops_and_records(raw, aligned):
    save(raw / "a.png", PORTRAIT)
    run(raw, aligned)
    first = records(aligned)
    (aligned / "a.png").write_bytes(b"mine")
    save(raw / "a.png", np.roll(PORTRAIT, 3, axis=1))
    assert statuses(run(raw, aligned, overwrite=True)) == {"a.png": "aligned"}
    assert read_photo(aligned / "a.png").pixels.shape == (64, 64, 3)
    [second] = records(aligned)
    assert second["sha256"] != first[0]["sha256"] and second["matrix"] != first[0]["matrix"]


def test_a_foreign_file_is_replaced_only_on_request(raw, aligned):
    save(raw / "a.png", PORTRAIT)
    save(aligned / "a.png", NO_FACE)
    before = (aligned / "a.png").read_bytes()
    [result] = run(raw, aligned).values()
    assert result.status == "failed" and "is not a crop of this photo" in result.reason
    assert (aligned / "a.png").read_bytes() == before
    assert statuses(run(raw, aligned, overwrite=True)) == {"a.png": "aligned"}
    check_records(aligned)


@pytest.mark.parametrize("change", [{"template": "outer-eyes-nose"}, {"size": 32}, {"faces": "all"}, {"upsample": 0}])
def test_crops_of_other_settings_are_refused_unless_overwritten(raw, aligned, change):
    save(raw / "a.png", PORTRAIT)
    run(raw, aligned)
    [name] = change
    with pytest.raises(PhotoError, match=f"made with {name} {getattr(ONE, name)}, not {change[name]}"):
        run(raw, aligned, **change)
    assert statuses(run(raw, aligned, overwrite=True, **change)) == {"a.png": "aligned"}
    assert statuses(run(raw, aligned, **change)) == {"a.png": "skipped"}


def test_another_photo_of_the_same_name_is_not_skipped_and_keeps_the_crop(raw, aligned, tmp_path):
    for folder in (raw, tmp_path / "others"):
        save(folder / "IMG_1.png", PORTRAIT if folder == raw else PORTRAIT[:, ::-1].copy())
    run(raw, aligned)
    before = {name: (aligned / name).read_bytes() for name in files(aligned)}
    [result] = run(tmp_path / "others", aligned).values()
    assert result.status == "failed" and "is from another photo of that name" in result.reason
    assert {name: (aligned / name).read_bytes() for name in files(aligned)} == before
    assert statuses(run(tmp_path / "others", aligned, overwrite=True)) == {"IMG_1.png": "aligned"}


def test_a_record_with_an_impossible_name_is_removed(raw, aligned):
    save(raw / "a.png", PORTRAIT)
    run(raw, aligned)
    [good] = records(aligned)
    with (aligned / MANIFEST).open("a") as file:
        for crop in ("x" * 300 + ".png", "zero\0byte.png"):
            file.write(json.dumps({**good, "crop": crop}) + "\n")
    assert statuses(run(raw, aligned)) == {"a.png": "skipped"}
    assert records(aligned) == [good]


def test_an_interrupted_run_is_resumed(raw, aligned):
    for name in "abcd":
        save(raw / f"{name}.png", PORTRAIT)
    results = align_folder(list_photos(raw), raw, aligned, ONE)
    assert [next(results).photo.name, next(results).photo.name] == ["a.png", "b.png"]
    results.close()
    check_records(aligned)
    assert crops(aligned) == ["a.png", "b.png"]
    assert list(statuses(run(raw, aligned)).values()) == ["skipped", "skipped", "aligned", "aligned"]
    check_records(aligned)


def test_an_interrupt_between_two_faces_of_a_photo_loses_neither(raw, aligned, monkeypatch):
    save(raw / "two.png", TWO_FACES)
    saved = Image.Image.save

    def interrupted(image, file, kind):
        if list(aligned.glob("*.png")):
            raise KeyboardInterrupt
        saved(image, file, kind)

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(raw, aligned, faces="all")
    assert crops(aligned) == ["two_1.png"] and records(aligned) == []
    monkeypatch.undo()
    assert statuses(run(raw, aligned, faces="all")) == {"two.png": "aligned"}
    assert crops(aligned) == ["two.png", "two_1.png"]
    check_records(aligned)


def test_lines_that_are_no_records_are_kept_and_never_followed(raw, aligned, tmp_path):
    save(raw / "a.png", PORTRAIT)
    save(raw / "b.png", PORTRAIT)
    run(raw, aligned)
    outside = save(tmp_path / "outside.png", NO_FACE)
    diary = aligned / "diary.txt"
    diary.write_text("diary")
    good = records(aligned)
    foreign = ["my notes", "[]", "5", '{"crop": 3}', '{"crop": NaN}', '"text"', "\0" * 9, "[" * 10_000]
    foreign += [json.dumps({**good[0], "faces": []})]
    foreign += [json.dumps({**good[0], "crop": name}) for name in ("../outside.png", str(outside), "diary.txt")]
    with (aligned / MANIFEST).open("a") as file:
        file.write("\n".join([*foreign, json.dumps(good[0]), json.dumps(good[1])[:40]]))  # killed while writing
    assert statuses(run(raw, aligned, overwrite=True)) == {"a.png": "aligned", "b.png": "aligned"}
    lines = (aligned / MANIFEST).read_text().splitlines()
    assert lines[: len(foreign)] == foreign and [json.loads(line) for line in lines[len(foreign) :]] == good
    assert outside.exists() and diary.exists()


def test_only_crops_that_are_as_they_were_written_are_deleted(raw, aligned, tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        save(raw / name, TWO_FACES)
    run(raw, aligned, faces="all")
    (aligned / "b_1.png").write_bytes(b"mine")
    (tmp_path / "elsewhere").mkdir()
    (aligned / "c_1.png").rename(tmp_path / "elsewhere" / "c_1.png")
    (aligned / "l").symlink_to(tmp_path / "elsewhere")
    (aligned / "d_1.png").rename(tmp_path / "elsewhere" / "d_1.png")
    (aligned / "d_1.png").symlink_to(tmp_path / "elsewhere" / "d_1.png")
    text = (aligned / MANIFEST).read_text()
    (aligned / MANIFEST).write_text(text.replace('"c_1.png"', '"l/c_1.png"'))
    run(raw, aligned, overwrite=True)
    assert not (aligned / "a_1.png").exists() and (aligned / "b_1.png").read_bytes() == b"mine"
    assert files(tmp_path / "elsewhere") == ["c_1.png", "d_1.png"]


# Workers


def test_two_workers_write_the_same_files_as_one(raw, aligned, tmp_path):
    for number in range(5):
        save(raw / f"{number}.png", np.roll(PORTRAIT, number, axis=1))
    (raw / "5.png").write_text("text")
    several = run(raw, aligned, jobs=2)
    one = run(raw, tmp_path / "one")
    assert list(statuses(several).items()) == list(statuses(one).items())  # in the same order
    assert records(aligned) == records(tmp_path / "one")
    for name in crops(aligned):
        assert not differences(aligned / name, tmp_path / "one" / name)


def test_a_crop_without_a_record_or_a_record_without_a_crop_is_made_again(raw, aligned):
    for name in ("a.png", "b.png"):
        save(raw / name, PORTRAIT)
    run(raw, aligned)
    complete = (aligned / MANIFEST).read_text()
    (aligned / MANIFEST).write_text(complete[: len(complete) * 3 // 4])  # as if killed
    assert statuses(run(raw, aligned)) == {"a.png": "skipped", "b.png": "aligned"}
    assert (aligned / MANIFEST).read_text() == complete
    (aligned / "a.png").unlink()
    assert statuses(run(raw, aligned)) == {"b.png": "skipped", "a.png": "aligned"}
    check_records(aligned)
