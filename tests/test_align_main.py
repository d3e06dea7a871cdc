"""The command `python -m align`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import NO_FACE, PORTRAIT, files, save

from align.__main__ import main
from align.folder import MANIFEST
from align.photo import read_photo

PROJECT = Path(__file__).parents[1]


def align(*args):
    return main([*map(str, args), "--jobs", "1"])


def test_success_is_0_and_prints_the_path_of_the_records(raw, aligned, capsys):
    save(raw / "sub" / "a.png", PORTRAIT)
    assert align(raw, aligned) == 0
    # No progress bar, because stderr is not a terminal.
    assert capsys.readouterr() == (f"{aligned / MANIFEST}\n", "1 photos: 1 aligned; 1 crops written\n")
    assert read_photo(aligned / "sub" / "a.png").pixels.shape == (64, 64, 3)


def test_failed_photos_are_3_and_listed_with_the_reason(raw, aligned, capsys):
    save(raw / "a.png", PORTRAIT)
    save(raw / "b.png", NO_FACE)
    (raw / "c\nd.jpg").write_text("text")
    assert align(raw, aligned) == 3
    *lines, counts = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{raw / 'b.png'}: no face: ")
    assert "c\\nd.jpg': failed: not an image" in lines[1] and len(lines) == 2
    assert counts == "3 photos: 1 aligned, 1 failed, 1 no face; 1 crops written"


def test_photos_without_a_face_or_with_several_are_no_failure(raw, aligned, capsys):
    photo = np.full((250, 500, 3), 128, dtype=np.uint8)
    photo[10:240, 10:240] = photo[10:240, 260:490] = PORTRAIT
    save(raw / "none.png", NO_FACE)
    save(raw / "two.png", photo)
    assert align(raw, aligned, "--faces", "single") == 0
    assert "two.png: several faces: 2 faces found, expected one" in capsys.readouterr().err
    for _ in range(2):  # aligned, then skipped
        assert align(raw, aligned, "--faces", "all") == 0
    assert files(aligned) == [MANIFEST, "two.png", "two_1.png"]


def test_verbose_lists_all_photos_and_quiet_none(raw, aligned, capsys):
    save(raw / "a.png", PORTRAIT)
    save(raw / "b.png", NO_FACE)
    for line in (f"{raw / 'a.png'}: aligned\n", f"{raw / 'a.png'}: skipped: "):
        assert align(raw, aligned, "-v") == 0
        assert line in capsys.readouterr().err
    assert align(raw, aligned, "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_the_report_has_one_record_per_photo(raw, aligned, tmp_path):
    save(raw / "a.png", PORTRAIT)
    save(raw / "b.png", NO_FACE)
    report = tmp_path / "reports" / "align.json"
    assert align(raw, aligned, "--report", report) == 0
    first, second = json.loads(report.read_text())
    crop = str(aligned / "a.png")
    assert first == {"photo": str(raw / "a.png"), "status": "aligned", "reason": "", "crops": [crop]}
    assert (second["status"], second["crops"]) == ("no face", []) and "no face" in second["reason"]


def test_a_single_photo_is_aligned_alone_and_its_crop_may_be_written_beside_it(raw):
    photo = save(raw / "a.jpg", PORTRAIT)
    save(raw / "b.jpg", PORTRAIT)
    before = photo.read_bytes()
    assert align(photo, raw) == 0
    assert files(raw) == ["a.jpg", "a.png", "b.jpg", MANIFEST] and photo.read_bytes() == before


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_neither_crops_nor_the_report_replace_an_input_or_another_output(raw, aligned, tmp_path, refused, overwrite):
    photo = save(raw / "a.png", PORTRAIT)
    hard = tmp_path / "aligned" / "a.png"
    hard.parent.mkdir()
    os.link(photo, hard)
    (tmp_path / "link.json").symlink_to(photo)
    for words, message in (
        ([raw, tmp_path, "--report", photo], "is in the input folder"),
        ([photo, tmp_path, "--report", photo], "is also an input"),
        ([photo, tmp_path / "crops", "--report", tmp_path / "link.json"], "is also an input"),
        ([photo, aligned], "is also an input"),
        ([photo, tmp_path / "crops", "--report", tmp_path / "crops" / MANIFEST], "expected .json"),
    ):
        before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
        assert message in refused(align, *words, *overwrite)
        assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_unusable_input_is_2_with_one_line(raw, aligned, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for arguments, words in (
        ((tmp_path / "gone", aligned), "does not exist"),
        ((tmp_path / "empty", aligned), "contains no photos"),
        ((save(raw / "a.png", PORTRAIT).parent, raw), "is in the input folder"),
        ((raw, tmp_path / "file"), "cannot be written to"),
        ((raw, aligned, "--report", tmp_path / "file" / "report.json"), "cannot be written to"),
    ):
        assert words in refused(align, *arguments)
    assert not aligned.exists()


@pytest.mark.parametrize("words", ["", "out --template none", "out --size 0", "out -q -v"])
def test_wrong_usage_is_2(words, refused):
    line = refused(main, ["raw", *words.split()])
    assert line.startswith("python -m align: ") and line.endswith(" (see --help)")


def wait_until_gone(group, seconds=20):
    """Fail if a process of the group is left after some seconds."""
    with pytest.raises(ProcessLookupError):
        for _ in range(seconds * 20):
            os.killpg(group, 0)
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGHUP, True, 129),
        (signal.SIGKILL, False, -9),
    ],
)
def test_signals_end_all_processes_and_leave_no_partial_file(raw, aligned, number, whole_group, code):
    first = save(raw / "0.png", np.tile(PORTRAIT, (2, 2, 1)))
    for name in range(1, 2000):
        os.link(first, raw / f"{name}.png")
    command = [sys.executable, "-W", "error", "-m", "align", str(raw), str(aligned), "--jobs", "2"]
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Processes started from a background job inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not list(aligned.glob("*.png")) and process.poll() is None:
            time.sleep(0.02)
        for pause_s in (0, 0.02, 0.05):  # once, or repeatedly
            time.sleep(pause_s)
            (os.killpg if whole_group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        wait_until_gone(process.pid)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    stopped = "align: stopped; run the same command again to resume\n"
    assert (out, err) == ("", "" if number == signal.SIGKILL else stopped)
    recorded = [json.loads(line)["crop"] for line in (aligned / MANIFEST).read_text().splitlines()]
    crops = [path.name for path in aligned.glob("*.png")]
    assert 0 < len(crops) < 400 and set(recorded) <= set(crops)
    assert all(read_photo(path).pixels.shape == (64, 64, 3) for path in aligned.glob("*.png"))
    if number != signal.SIGKILL:
        assert recorded == sorted(recorded) and len(files(aligned)) == len(crops) + 1


@pytest.mark.shared
def test_faces_are_found_in_the_shared_photos_and_none_in_dogs(shared, raw, aligned, capsys):
    faces = {"dogs.jpg": 0, "small_face.jpg": 1, "2008_002079.jpg": 6, "portrait_rgba.png": 1, "couple_dark.jpg": 2}
    raw.mkdir()
    for name in faces:
        os.symlink(shared / "photos" / name, raw / name)
    assert align(raw, aligned, "--faces", "all") == 0
    assert "dogs.jpg: no face" in capsys.readouterr().err
    assert {name: len(list(aligned.glob(f"{Path(name).stem}*.png"))) for name in faces} == faces


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_do_not_stop_the_command(raw, aligned, tmp_path, closed):
    photo = save(raw / "a.png", PORTRAIT)
    before = photo.read_bytes()
    report = tmp_path / "report.json"
    command = [sys.executable, "-W", "error", "-m", "align", raw, aligned, "--jobs", "1", "--report", report, "-v"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command], cwd=PROJECT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert files(aligned) == ["a.png", MANIFEST] and photo.read_bytes() == before
    assert read_photo(aligned / "a.png").pixels.shape == (64, 64, 3)
    assert json.loads(report.read_text())[0]["status"] == "aligned"


def test_any_name_can_be_printed_whatever_the_encoding(raw, aligned):
    for name in ("grün 脸.png", os.fsdecode(b"\xff.png")):
        save(raw / name, NO_FACE)
    command = [sys.executable, "-W", "error", "-m", "align", raw, aligned / "ö", "--jobs", "1", "-v"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, env=environment)
    assert done.returncode == 0 and done.stdout == os.fsencode(aligned / "ö" / MANIFEST) + b"\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 3 and "grün 脸.png: no face".encode() in done.stderr
