"""Tests of completing photos in files: outputs, records of failures, resumed runs and the manifest."""

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, PORTRAIT, box, contents, differences, files, pixels, save
from PIL import ExifTags, Image, ImageCms

from align import locate
from align.errors import LandmarkModelError, NoFaceError, PhotoError
from align.files import list_photos, lock_folder, read_json_lines
from align.photo import Photo, read_photo
from completion import batch, mask_files
from completion.batch import FillResult, complete_folder, complete_photo, summary
from completion.completer import FaceCompleter
from completion.config import SOLVERS, FileOptions, FillOptions
from completion.plan import plan_outputs
from dcgan.weights import Weights

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SHORT = replace(SOLVERS["search"], steps=2, samples=4, candidates=2)
Fill = Callable[..., list[FillResult]]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with the photo a.png."""
    return save(tmp_path / "raw" / "a.png").parent


@pytest.fixture
def fill(small_weights: Weights, done: Path) -> Fill:
    """Complete photos: a folder, or a single photo if `inputs` is a file."""
    completer = FaceCompleter(small_weights)

    def run(inputs: Path, mask: object = "center", output: Path = done, fill: Any = None, **settings: Any) -> Any:
        options = FillOptions(**{"solver": SHORT, "aligned": True} | (fill or {}))
        planned = plan_outputs([inputs], output, options, FileOptions(str(mask), **settings))
        planned = replace(planned, settings=asdict(planned.options))
        if inputs.is_dir():
            return list(complete_folder(lambda: completer, planned))
        return [item for item in complete_photo(completer, planned, inputs) if isinstance(item, FillResult)]

    return run


def statuses(results: list[FillResult]) -> dict[str, str]:
    """Reason of each photo that was not completed, by its name; "" for the others."""
    assert all((result.status == "completed") == (not result.reason) for result in results)
    return {result.photo.name: result.reason for result in results}


# Outputs


def test_strip_and_history_are_written_beside_the_photo(fill: Fill, raw: Path, done: Path) -> None:
    [result] = fill(raw, strip=True, history=True)
    written = ["a.png", "a.strip.png", "a.history.gif", "a.history.jsonl"]
    assert result.outputs == tuple(done / name for name in written) and files(done) == sorted(written)
    strip = pixels(done / "a.strip.png")
    assert strip.shape == (256, 3 * 256, 3)
    assert np.array_equal(strip[::8, :256:8], FACE) and np.array_equal(strip[::8, 512::8], pixels(done / "a.png"))
    middle = strip[::8, 256:512:8]
    assert np.array_equal(middle[~CENTER], FACE[~CENTER]) and (middle[CENTER] == (255, 0, 255)).all()
    with Image.open(done / "a.history.gif") as animation:
        assert animation.format == "GIF" and animation.n_frames == 4 and animation.size == (256, 256)
    lines = [json.loads(line) for line in (done / "a.history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert line["face"] == 0 and len(line["context"]) == len(line["prior"]) == 2 and line["best"] in (0, 1)


def test_candidates_are_written_with_a_contact_sheet(fill: Fill, raw: Path, done: Path) -> None:
    fill(raw, fill={"candidates": 3})
    assert files(done) == ["a.2.png", "a.3.png", "a.candidates.png", "a.png"]
    found = [pixels(done / name) for name in ("a.png", "a.2.png", "a.3.png")]
    for index, candidate in enumerate(found):
        assert np.array_equal(candidate[~CENTER], FACE[~CENTER])
        assert not any(np.array_equal(candidate, other) for other in found[:index])
    sheet = pixels(done / "a.candidates.png")
    cells = sheet.reshape(2, sheet.shape[0] // 2, 2, sheet.shape[1] // 2, 3).swapaxes(1, 2).reshape(4, -1, 3)
    times = sheet.shape[0] // 64
    for cell, candidate in zip(cells[1:], found, strict=True):
        assert np.array_equal(cell, candidate.repeat(times, axis=0).repeat(times, axis=1).reshape(-1, 3))


def test_figures_are_measured_for_the_report_of_a_named_mask(fill: Fill, raw: Path, done: Path) -> None:
    [result] = fill(raw, report=raw.parent / "r.json")
    difference = pixels(done / "a.png")[CENTER].astype(float) - FACE[CENTER]
    psnr = 10 * np.log10(255**2 / (difference**2).mean())
    expected = {"hole_share": 0.25, "faces": 1, "outside_share": 0, "hole_psnr": psnr, "psnr": psnr + 10 * np.log10(4)}
    assert {name: result.figures[name] for name in expected} == pytest.approx(expected)
    mask = save(raw.parent / "mask.png", np.where(CENTER, 255, 0))
    assert "psnr" not in fill(raw, mask, raw.parent / "2", report=raw.parent / "r.json")[0].figures
    assert "psnr" not in fill(raw, output=raw.parent / "3")[0].figures


def test_infinite_figures_are_null_in_the_record_and_left_out_of_the_means() -> None:
    one, two = (FillResult(Path("a"), "completed", figures={"psnr": db, "ssim": 1.0}) for db in (np.inf, 20.0))
    assert one.record()["figures"] == {"psnr": None, "ssim": 1.0}
    assert summary([one, two, FillResult(Path("b"), "failed")]) == {"psnr": 20.0, "ssim": 1.0}
    assert summary([one]) == {"ssim": 1.0}


def test_a_search_at_its_time_limit_gives_the_best_result_so_far(fill: Fill, raw: Path, done: Path) -> None:
    for seconds, steps in ((0.0, 1), (1000.0, 3)):
        [result] = fill(raw, fill={"seconds": seconds}, history=True)
        assert len((done / "a.history.jsonl").read_text().splitlines()) == steps
        assert any("stopped after 0 s" in note for note in result.notes) == (steps == 1)


# Masks, alpha, colour modes and metadata


def test_photos_that_differ_only_under_the_mask_give_identical_files(fill: Fill, tmp_path: Path, done: Path) -> None:
    hole = box(PORTRAIT.shape, 140, 165, 95, 135)
    raw = save(tmp_path / "raw" / "a.png", PORTRAIT).parent
    save(raw / "b.png", np.where(hole[..., None], 255 - PORTRAIT, PORTRAIT))
    fill(raw, save(tmp_path / "mask.png", np.where(hole, 255, 0)))
    assert not differences(done / "a.png", done / "b.png")


@pytest.mark.parametrize(("content", "words"), [(b"text", "not an image"), (None, "not a regular file")])
def test_an_unreadable_mask_is_reported(fill: Fill, raw: Path, content: bytes | None, words: str) -> None:
    mask = raw.parent / "mask.png"
    os.mkfifo(mask) if content is None else mask.write_bytes(content)
    [reason] = statuses(fill(raw / "a.png", mask)).values()
    assert reason.startswith(f"the mask {mask}: {words}")


def test_with_alpha_only_the_hole_becomes_opaque(fill: Fill, raw: Path, done: Path) -> None:
    rgba = np.dstack([FACE, np.where(CENTER, 0, 255).astype(np.uint8)])
    save(raw / "a.png", rgba)
    save(raw / "b.png", np.where(CENTER[..., None], np.uint8([9, 8, 7, 0]), rgba))  # other colours without opacity
    fill(raw, "alpha")
    found = pixels(done / "a.png")
    assert np.array_equal(found[~CENTER], rgba[~CENTER]) and (found[..., 3] == 255).all()
    assert not differences(done / "a.png", done / "b.png")
    fill(raw, "alpha", invert_mask=True, overwrite=True)
    found = pixels(done / "a.png")
    assert (found[~CENTER] != rgba[~CENTER]).any() and np.array_equal(found[CENTER], rgba[CENTER])


def test_mode_exif_and_colour_profile_are_kept_without_orientation_and_position(fill: Fill, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    photo, output = save(tmp_path / "a.jpg", FACE, exif=exif, icc_profile=SRGB), tmp_path / "done.png"
    fill(photo, output=output)
    with Image.open(output) as completed:
        found = completed.getexif()
        assert completed.info["icc_profile"] == SRGB and found[ExifTags.Base.Make] == "Maker"
        assert ExifTags.Base.Orientation not in found and ExifTags.Base.GPSInfo not in found
        assert np.array_equal(np.asarray(completed)[~CENTER], read_photo(photo).pixels[~CENTER])
    grey = save(tmp_path / "grey.png", FACE[..., 0])
    fill(grey, output=tmp_path / "grey.done.png")
    assert np.array_equal(pixels(tmp_path / "grey.done.png")[~CENTER], FACE[~CENTER][:, 0])


def test_masks_are_listed_and_landmarks_read_once_for_all_photos(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, folder, lines = tmp_path / "raw", tmp_path / "masks", []
    for number in range(6):
        save(raw / f"{number}.png", NO_FACE)
        save(folder / f"{number}.png", np.where(np.pad(CENTER, 34), 255, 0))
        points = [[60, 40], [56, 40], [36, 40], [40, 40], [48, 50]]
        lines.append(json.dumps({"source": f"{number}.png", "landmarks": points}))
    (tmp_path / "faces.jsonl").write_text("\n".join(lines))
    listed: list[Path] = []
    read: list[Path] = []
    monkeypatch.setattr(mask_files, "list_photos", lambda folder: listed.append(folder) or list_photos(folder))
    monkeypatch.setattr(locate, "read_json_lines", lambda path: read.append(path) or read_json_lines(path))
    results = fill(raw, folder, landmarks=tmp_path / "faces.jsonl")
    assert listed == [folder] and read == [tmp_path / "faces.jsonl"]
    assert all("face 1" in result.sources for result in results)


# Failures


def encoded(kind: str, pixels: NDArray[np.uint8] = FACE, **settings: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **settings)
    return stream.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")
BROKEN = {
    "text.png": (b"<html>no photo</html>", "a web page"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "crc.png": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "damaged"),
    "animated.webp": (encoded("WEBP", save_all=True, append_images=[Image.fromarray(255 - FACE)]), "animation"),
    "wide.png": (encoded("PNG", np.zeros((1, 65500, 3), dtype=np.uint8)), "no face"),
    "no-face.png": (encoded("PNG", NO_FACE), "no face"),
}


def test_each_unusable_file_is_reported_and_the_batch_continues(fill: Fill, raw: Path, done: Path) -> None:
    for name, (data, _) in BROKEN.items():
        (raw / name).write_bytes(data)
    (raw / "png-really.jpg").write_bytes(PNG)
    (raw / "dangling.png").symlink_to("nowhere.png")
    (raw / "loop").symlink_to(raw)
    os.mkfifo(raw / "fifo.png")
    save(raw / "z.png")
    words = {name: words for name, (_, words) in BROKEN.items()}
    words |= {"dangling.png": "cannot be read", "fifo.png": "not a regular file"}
    reasons = statuses(fill(raw))
    assert {name for name, reason in reasons.items() if reason} == words.keys()
    assert all(words[name] in reasons[name] for name in words)
    assert files(done) == ["a.png", "png-really.png", "z.png"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("first line\nsecond line"), "unexpected RuntimeError: first line; please report it"),
        (RecursionError("too deep"), "unexpected RecursionError: too deep"),
        (OSError(errno.EIO, "Input/output error"), "cannot be written: Input/output error"),
        (NoFaceError("no face"), "no face"),
        (LandmarkModelError("dlib is not installed"), None),  # it ends the run
        (KeyboardInterrupt(), None),
    ],
)
def test_whatever_goes_wrong_with_a_photo_is_reported_and_the_batch_continues(
    fill: Fill, raw: Path, done: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str | None
) -> None:
    save(raw / "b.png")

    def fail(path: Path) -> Photo:
        if path.name == "a.png":
            raise error
        return read_photo(path)

    monkeypatch.setattr(batch, "read_photo", fail)
    if words is None:
        with pytest.raises(type(error)):
            fill(raw)
    else:
        reasons = statuses(fill(raw))
        assert reasons["a.png"].startswith(words) and not reasons["b.png"] and files(done) == ["b.png"]


def test_an_absurd_face_fails_its_photo_without_allocating_it(fill: Fill, raw: Path) -> None:
    points = [[200_060, 40], [200_056, 40], [36, 40], [40, 40], [48, 50]]
    (raw.parent / "far.jsonl").write_text(json.dumps({"source": "a.png", "landmarks": points}))
    assert "the given face has a side of" in statuses(fill(raw, landmarks=raw.parent / "far.jsonl"))["a.png"]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "long"])
def test_an_output_that_cannot_be_replaced_is_reported(fill: Fill, raw: Path, done: Path, kind: str) -> None:
    name = "a" * 250 + ".png" if kind == "long" else "a.png"
    save(raw / name)
    save(raw / "b.png")
    done.mkdir()
    mine = save(raw.parent / "mine.png", NO_FACE)
    {"folder": os.mkdir, "pipe": os.mkfifo, "link": lambda path: path.symlink_to(mine)}.get(kind, str)(done / name)
    reasons = statuses(fill(raw, strip=True))
    assert reasons[name].startswith(f"the output {done}") or "too long" in reasons[name]
    assert not reasons["b.png"] and {"b.png", "b.strip.png"} <= set(files(done))
    assert np.array_equal(pixels(mine), NO_FACE)


@pytest.mark.parametrize("full_at", [0, 1, 2, 3])
def test_a_full_disk_or_a_signal_keeps_all_old_files_and_leaves_no_new_ones(
    fill: Fill, raw: Path, done: Path, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    outputs = ["a.history.gif", "a.history.jsonl", "a.png", "a.strip.png"]
    for name in outputs:
        save(done / "old.png").rename(done / name)
    save(raw / "b.png")
    old, sync = contents(done), os.fsync
    errors: tuple[BaseException, ...] = (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt())
    for error in errors:
        writes = iter(range(100))

        def fsync(_: int, error: BaseException = error, writes: Any = writes) -> None:
            if next(writes) == full_at:
                raise error

        monkeypatch.setattr(os, "fsync", fsync)
        if isinstance(error, OSError):
            reasons = statuses(fill(raw, overwrite=True, strip=True, history=True))
            assert reasons == {"a.png": "cannot be written: No space left on device", "b.png": ""}
            assert old.items() <= contents(done).items() and len(files(done)) == 8
        else:
            with pytest.raises(KeyboardInterrupt):
                fill(raw, output=done / "2", strip=True, history=True)
            assert files(done / "2") == []
    monkeypatch.setattr(os, "fsync", sync)
    assert not any(statuses(fill(raw, output=done / "2", strip=True, history=True)).values())
    assert len(files(done / "2")) == 8


def test_a_result_edited_after_a_killed_run_is_kept(fill: Fill, raw: Path, done: Path) -> None:
    fill(raw)
    lines = (done / ".completions.jsonl").read_text().splitlines()
    for line in (lines[0], '{"output": "a.png", "files": ["a.png"]}'):  # of this version, of earlier ones
        (done / ".completions.jsonl").write_text(line + "\n")
        assert fill(raw, fill={"seed": 1})[0].status == ("completed" if line == lines[0] else "failed")
    (done / ".completions.jsonl").write_text(lines[0] + "\n")
    (done / "a.png").write_bytes(b"edited")
    assert "was changed since" in statuses(fill(raw))["a.png"] and (done / "a.png").read_bytes() == b"edited"


def test_what_appears_during_the_work_is_kept(
    fill: Fill, raw: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path) -> Photo:
        save(done / "a.png", NO_FACE)
        return read_photo(path)

    monkeypatch.setattr(batch, "read_photo", late)
    for inputs in (raw, raw / "a.png"):
        assert "a.png exists; overwrite it" in statuses(fill(inputs))["a.png"]
        assert np.array_equal(pixels(done / "a.png"), NO_FACE) and files(done) == ["a.png"]
        (done / "a.png").unlink()


def test_a_single_photo_locks_the_folder_too(fill: Fill, raw: Path, done: Path) -> None:
    done.mkdir()
    with lock_folder(done), pytest.raises(PhotoError, match="another run is writing to"):
        fill(raw / "a.png")
    assert files(done) == []


def test_no_output_overwrites_another_photos_completion(fill: Fill, raw: Path, done: Path) -> None:
    save(raw / "a.strip.png", 255 - FACE)
    reasons = statuses(fill(raw, strip=True, overwrite=True))
    assert reasons["a.png"].startswith(f"{done / 'a.strip.png'} is the output of another photo")
    assert files(done) == ["a.strip.png", "a.strip.strip.png"]


# Runs on a folder that has results


def test_a_batch_locks_its_folder_and_removes_temporary_files_of_a_killed_run(
    fill: Fill, tmp_path: Path, done: Path
) -> None:
    raw = save(tmp_path / "raw" / "sub" / "a.png").parents[1]
    part = save(done / "sub" / "x.png").rename(done / "sub" / ".0123456789abcdef.part")
    with lock_folder(done), pytest.raises(PhotoError, match="another run is writing to"):
        fill(raw)
    assert part.exists()
    fill(raw)
    assert files(done) == ["sub/a.png"]


def test_a_second_run_completes_only_missing_outputs(fill: Fill, raw: Path, done: Path) -> None:
    for number, name in enumerate(("b.png", "c.png"), 1):
        save(raw / name, FACE + number)
    fill(raw, strip=True)
    first = contents(done)
    (done / "b.png").unlink()
    (done / "c.strip.png").unlink()
    results = fill(raw, strip=True)
    skipped = {"a.png": "already completed", "c.png": "already completed"}
    assert statuses(results) == skipped | {"b.png": ""}
    assert results[-1].outputs == (done / "b.png", done / "b.strip.png")
    assert contents(done) == {name: data for name, data in first.items() if name != "c.strip.png"}
    # The result of a single photo is made again, unless it was edited or is that of another photo.
    other = save(raw.parent / "other" / "b.png", 255 - FACE)
    assert "was made from another photo" in statuses(fill(other))["b.png"]
    assert statuses(fill(raw / "b.png", strip=True)) == {"b.png": ""}
    (done / "b.png").write_bytes((done / "a.png").read_bytes())
    assert statuses(fill(raw / "b.png"))["b.png"].endswith("since; overwrite it or choose another output")
    assert statuses(fill(raw / "b.png", strip=True, overwrite=True)) == {"b.png": ""}


def test_a_changed_mask_redoes_a_result_and_a_changed_photo_keeps_it(fill: Fill, raw: Path, done: Path) -> None:
    for left in (4, 8):
        hole = (np.arange(32) >= left) & (np.arange(32) < left + 8) & CENTER
        save(raw.parent / "masks" / "a.png", np.where(hole, 255, 0))
        fill(raw, raw.parent / "masks")
        changed = (pixels(done / "a.png") != FACE).any(axis=2)
        assert changed.any() and not changed[~hole].any()
    before = contents(done)
    save(raw / "a.png", 255 - FACE)
    assert "was made from another photo" in statuses(fill(raw, raw.parent / "masks"))["a.png"]
    assert contents(done) == before
    fill(raw, raw.parent / "masks", overwrite=True)
    assert contents(done) != before


def test_files_of_others_and_edited_results_are_replaced_only_with_overwrite(fill: Fill, raw: Path, done: Path) -> None:
    for number, name in enumerate(("foreign.png", "side.png", "sound.png"), 1):
        save(raw / name, FACE + number)
    for name in ("foreign.png", "side.strip.png"):
        save(done / name, NO_FACE)
    before = contents(done)
    reasons = statuses(fill(raw, strip=True))
    for name, file in (("foreign.png", "foreign.png"), ("side.png", "side.strip.png")):
        assert reasons[name].startswith(f"the output {done / file} exists, and was not made by this program")
    assert before.items() <= contents(done).items() and (done / "sound.png").exists()
    save(done / "a.png", NO_FACE)
    assert statuses(fill(raw, strip=True))["a.png"] == "already completed"
    reasons = statuses(fill(raw, strip=True, fill={"seed": 1}))
    assert reasons["a.png"].startswith(
        f"the output {done / 'a.png'} exists, and was not made by this program or was changed"
    )
    assert np.array_equal(pixels(done / "a.png"), NO_FACE)
    assert not any(statuses(fill(raw, strip=True, fill={"seed": 1}, overwrite=True)).values())
    assert not any(np.array_equal(pixels(done / name), NO_FACE) for name in files(done))


def test_a_single_output_file_is_not_replaced_and_nothing_false_is_said_of_it(fill: Fill, raw: Path) -> None:
    output = raw.parent / "one.png"
    assert [fill(raw / "a.png", output=output)[0].status for _ in range(2)] == ["completed", "failed"]
    [result] = fill(raw / "a.png", output=output)
    assert result.reason == f"the output {output} exists; overwrite it or choose another output"


def test_the_manifest_has_files_and_fingerprints_and_broken_lines_are_ignored(
    fill: Fill, raw: Path, done: Path
) -> None:
    mask = save(raw.parent / "mask.png", np.where(CENTER, 255, 0))
    fill(raw, mask, strip=True, fill={"seed": 3})
    begun, finished = map(json.loads, (done / ".completions.jsonl").read_text().splitlines())
    assert begun == {name: finished[name] for name in ("output", "files")} and begun["output"] == "a.png"
    sha256 = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (raw / "a.png", mask)}
    assert finished["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in contents(done).items()}
    expected = {"photo": sha256[raw / "a.png"], "mask": sha256[mask], "seed": 3, "landmarks": None}
    assert finished["request"] | expected == finished["request"] and "algorithm" in finished["request"]
    with (done / ".completions.jsonl").open("a") as file:
        file.write(
            '[]\n{"output": 3}\n{"output": "a.png", "files": 7}\n\ufeff\n{"output": "a.png", "files": ["a.png"]}\n'
        )
        file.write('{"output": "a.png", "files": {"a.png": null}, "request": {}}\n{"output": "b.png", "fil')
    save(raw / "b.png", 255 - FACE)
    for reason in ("", "already completed"):
        reasons = statuses(fill(raw, mask, strip=True, fill={"seed": 3}))
        assert reasons == {"a.png": "already completed", "b.png": reason}


def test_a_square_that_align_recorded_is_an_aligned_face(fill: Fill, raw: Path, tmp_path: Path) -> None:
    [failed] = fill(raw / "a.png", fill={"aligned": False})
    assert "no face was found" in failed.reason
    crop = save(tmp_path / "aligned" / "sub" / "a.png")
    line = {"crop": "sub/a.png", "source": "sub/a.jpg", "face": 0, "template": "face", "size": 32}
    (tmp_path / "aligned" / "faces.jsonl").write_text(json.dumps(line) + "\n")
    [completed] = fill(crop, fill={"aligned": False})
    assert completed.status == "completed"
