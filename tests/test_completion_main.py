"""Tests of the command line `python -m completion`."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from pictures import CENTER, FACE, NO_FACE, PORTRAIT, box, contents, files, pixels, save
from PIL import Image

from align import locate
from align.cli import settings_from
from align.errors import LandmarkModelError
from align.photo import read_photo
from completion import batch
from completion.__main__ import build_parser, main
from completion.config import SOLVERS, FileOptions, FillOptions, LoadOptions
from dcgan import holes

PROJECT = Path(__file__).parents[1]

Complete = Callable[..., int]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, solver in SOLVERS.items():
        steps = 0 if solver.start == "encoder" else 2
        monkeypatch.setitem(SOLVERS, name, replace(solver, steps=steps, samples=4, candidates=2))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The only photo of a folder."""
    return save(tmp_path / "raw" / "a.png")


@pytest.fixture
def complete(small_weights_file: Path, done: Path) -> Complete:
    def run(*arguments: object, mask: object = "center", output: object = done) -> int:
        options = ["--weights", small_weights_file, "--device", "cpu", "--output", output, "--mask", mask, "--aligned"]
        return main([str(argument) for argument in [*options, *arguments]])

    return run


def strict(path: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


# Masks, faces and solvers


def test_success_returns_0_and_prints_only_the_path(
    complete: Complete, photo: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(photo) == 0
    assert capsys.readouterr() == (f"{done / 'a.png'}\n", "")  # no progress bar without a terminal
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[~CENTER], FACE[~CENTER]) and (completed[CENTER] != FACE[CENTER]).any()


def test_half_hides_another_side_in_other_photos_and_the_same_again(
    complete: Complete, tmp_path: Path, done: Path
) -> None:
    raw = tmp_path / "raw"
    for number in range(12):
        save(raw / f"{number}.png", FACE + number)
    assert complete(raw, mask="half") == 0
    before, sides = contents(done), set()
    for name in before:
        seed = int(hashlib.sha256((raw / name).read_bytes()).hexdigest()[:15], 16)
        hole = holes.named_hole("half", 32, np.random.default_rng(seed))
        changed = (pixels(done / name) != pixels(raw / name)).any(axis=2)
        assert not changed[~hole].any() and changed[hole].mean() > 0.9
        sides.add(hole.tobytes())
    assert len(sides) > 2
    assert complete(raw, "--overwrite", mask="half") == 0 and contents(done) == before


@pytest.mark.parametrize("kind", ["area", "scratch"])
def test_a_mask_that_touches_no_face_is_filled_from_its_surroundings(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    ramp = np.linspace(40, 200, 100).astype(np.uint8)[None, :, None].repeat(100, axis=0).repeat(3, axis=2)
    raw = save(tmp_path / "raw" / "a.png", ramp).parent
    hole = box(ramp.shape, 30, 70, 20, 60) if kind == "area" else box(ramp.shape, 50, 53, 10, 90)
    file, report = save(tmp_path / "mask.png", np.where(hole, 255, 0)), tmp_path / "report.json"
    assert complete(raw, "--history", "--strip", "--candidates", 2, "--report", report, mask=file) == 0
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[~hole], ramp[~hole])
    error, of_mean = (np.abs(fill - ramp[hole]).mean() for fill in (completed[hole].astype(float), ramp[~hole].mean()))
    assert error < of_mean  # nearer than the mean colour of the surroundings
    [record] = strict(report)["photos"]
    assert record["sources"] == {"surroundings": 1.0} and record["figures"]["faces"] == 0
    assert sorted(record["outputs"]) == [str(done / name) for name in files(done)]
    for words in ([raw, "--no-face", "fail"], [raw / "a.png"]):
        assert complete(*words, mask=file, output=tmp_path / "none") == (3 if "fail" in words else 2)
        told = capsys.readouterr().err
        assert "no face was found under the hole" in told and "(--landmarks, --box or --eyes)" in told
    assert complete(raw / "a.png", "--no-face", "fill", mask=file, output=tmp_path / "one.png") == 0
    assert np.array_equal(pixels(tmp_path / "one.png"), completed)


def test_faces_all_places_a_named_mask_on_every_face(complete: Complete, tmp_path: Path, done: Path) -> None:
    photo, halves = save(tmp_path / "a.png", np.hstack([PORTRAIT, PORTRAIT])), {}
    for faces in ("largest", "all"):
        assert complete(photo, "--faces", faces, "--overwrite") == 0
        changed = (pixels(done / "a.png") != pixels(photo)).any(axis=2)
        halves[faces] = sorted([bool(changed[:, :230].any()), bool(changed[:, 230:].any())])
        assert 0 < changed.mean() < 0.15
    assert halves == {"largest": [False, True], "all": [True, True]}


@pytest.mark.parametrize("mask", ["file", "mouth"])
def test_a_photo_is_opened_twice_at_most_and_its_faces_are_found_once(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    photo = save(tmp_path / "a.png", PORTRAIT)
    file = save(tmp_path / "mask.png", np.where(box(PORTRAIT.shape, 140, 165, 95, 135), 255, 0))
    opened, searched, open_image, find_faces = [], [], Image.open, locate.find_faces
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a[0].getvalue()) or open_image(*a, **k))
    monkeypatch.setattr(locate, "find_faces", lambda *a, **k: searched.append(a) or find_faces(*a, **k))
    assert complete(photo, mask=file if mask == "file" else mask) == 0
    assert 1 <= opened.count(photo.read_bytes()) <= 2 and len(searched) == 1
    assert opened.count(file.read_bytes()) <= 2


@pytest.mark.parametrize(
    ("solver", "blend"),
    [("fast", "poisson"), ("thorough", "alpha"), ("search", "none"), ("paper", "poisson"), ("bamos", "alpha")],
)
def test_every_solver_and_blend_works(
    complete: Complete, encoder_weights_file: Path, photo: Path, done: Path, solver: str, blend: str
) -> None:
    assert complete(photo, "--blend", blend, "--solver", solver, "--weights", encoder_weights_file) == 0
    completed = pixels(done / "a.png")
    assert np.array_equal(completed[~CENTER], FACE[~CENTER]) and (completed[CENTER] != FACE[CENTER]).any()


def test_the_prior_weight_defaults_to_the_solvers_and_the_seed_repeats_a_completion(
    complete: Complete, photo: Path, tmp_path: Path
) -> None:
    data = []
    default = ("--prior-weight", SOLVERS["search"].prior_weight)
    for words in ([], default, ("--prior-weight", 1e6), ("--seed", 0), ("--seed", 2**63 - 1)):
        output = tmp_path / f"{len(data)}.png"
        assert complete(photo, "--solver", "search", *words, output=output) == 0
        data.append(output.read_bytes())
    assert data[0] == data[1] == data[3] and len(set(data)) == 3


@pytest.mark.parametrize("how", ["--eyes", "--box", "--landmarks"])
def test_an_undetected_face_is_completed_at_a_given_position(
    complete: Complete, tmp_path: Path, done: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, hole = save(tmp_path / "raw" / "a.png", NO_FACE), box(NO_FACE.shape, 50, 60, 45, 55)
    line = {"source": "a.png", "landmarks": [[60, 40], [56, 40], [36, 40], [40, 40], [48, 50]]}
    (tmp_path / "faces.jsonl").write_text(json.dumps(line))
    where = {"--eyes": "38,40,58,40", "--box": "24,26,48,48", "--landmarks": tmp_path / "faces.jsonl"}[how]
    for mask in (save(tmp_path / "hole.png", np.where(hole, 255, 0)), "center"):
        assert complete(photo, mask=mask, output=tmp_path / "none") == 2 and how in capsys.readouterr().err
        assert complete(photo, how, where, "--report", tmp_path / "r.json", "--overwrite", mask=mask) == 0
        [record] = strict(tmp_path / "r.json")["photos"]
        assert record["sources"] == {"face 1": 1.0}
        assert mask == "center" or np.array_equal(pixels(done / "a.png")[~hole], NO_FACE[~hole])


def test_a_folder_of_masks_can_be_inverted_and_a_mask_is_resized_with_a_note(
    complete: Complete, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, masks = tmp_path / "raw", tmp_path / "masks"
    for name in ("a.png", "sub/a.png", "sub/alone.png"):
        save(raw / name)
    save(masks / "a.bmp", np.where(CENTER, 255, 0)[::2, ::2])
    save(masks / "sub" / "a.png", np.where(CENTER.T[::-1] & (np.arange(32) < 16), 0, 255))
    assert complete(raw, mask=masks) == 3
    told = capsys.readouterr().err
    assert "no mask for this photo; expected one image named sub/alone.*" in told
    assert f"{raw / 'a.png'}: the mask was resized from 16x16 to the photo's 32x32" in told
    assert np.array_equal(pixels(done / "a.png")[~CENTER], FACE[~CENTER])
    assert complete(raw / "sub" / "a.png", "--invert-mask", mask=masks / "sub", output=tmp_path / "i.png") == 0
    changed = (pixels(tmp_path / "i.png") != FACE).any(axis=2)
    assert changed.any() and not changed[:, 16:].any() and not changed[:8].any()
    assert complete(raw / "a.png", "--invert-mask", "--overwrite") == 2 and "inverted" in capsys.readouterr().err


# Results


def test_the_report_has_settings_means_and_a_record_per_photo(
    complete: Complete, photo: Path, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photo.with_name("b.png"), 255 - FACE)
    photo.with_name("c.png").write_text("text")
    report = tmp_path / "reports" / "done.json"
    assert complete(photo.parent, "--report", report, "--seed", 5) == 3
    found = strict(report)
    expected = {"mask": "center", "seed": 5, "blend": "poisson", "device": "cpu", "no_face": "fill", "landmarks": None}
    assert found["settings"] | expected == found["settings"] and len(found["settings"]["weights_sha256"]) == 1
    first, second, third = found["photos"]
    assert (first["status"], first["outputs"], first["reason"]) == ("completed", [str(done / "a.png")], "")
    assert (third["status"], third["outputs"], third["figures"]) == ("failed", [], {})
    assert "not an image" in third["reason"] and "hole_psnr" in first["figures"]
    for name, mean in found["summary"].items():
        assert mean == pytest.approx((first["figures"][name] + second["figures"][name]) / 2)
    assert re.search(r"^2 completed, 1 failed in \d+\.\d s$", capsys.readouterr().err, re.MULTILINE)


def test_verbose_prints_figures_notes_are_printed_once_and_quiet_prints_nothing(
    complete: Complete, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photo.with_name("b.png"), 255 - FACE)
    for mask, notes in (("center", 0), ("lowres", 0), ("full", 2)):
        assert complete(photo.parent, "-v", mask=mask) == 0
        told = capsys.readouterr().err
        assert f"{photo}: hole share {0.25 if mask == 'center' else 1}, faces 1" in told and "psnr" not in told
        assert told.count("was generated at random") == notes
    assert re.search(r"^2 completed, 0 failed in \d+\.\d s; means: hole share 1, faces 1", told, re.MULTILINE)
    assert complete(photo.parent, "-v", mask="full") == 0
    told = capsys.readouterr().err
    assert f"{photo}: already completed" in told and "0 completed, 0 failed, 2 skipped in " in told
    assert complete(photo.parent, "-q", "--overwrite", mask="full") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [["--seed", 7], ["--mask", "full"], ["--candidates", 2], ["--strip"]],
)
def test_other_settings_and_weights_redo_earlier_results(
    complete: Complete, photo: Path, tmp_path: Path, done: Path, encoder_weights_file: Path, change: list[object],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    raw = photo.parent
    for words in ([], change, []):
        fresh = tmp_path / f"fresh{len(words)}"
        assert complete(raw, *words, output=fresh) == 0 and complete(raw, *words) == 0
        assert contents(fresh).items() <= contents(done).items()
        capsys.readouterr()
        assert complete(raw, *words) == 0
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("0 completed, 0 failed, 1 skipped")
    before = contents(done)
    assert complete(raw, "--weights", encoder_weights_file) == 0 and contents(done) != before


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (LandmarkModelError("dlib is not installed; run: pip install dlib-bin"), 1, "pip install dlib-bin"),
        (KeyboardInterrupt(), 130, "photos are kept"),
    ],
)
def test_an_aborted_run_gives_one_line_its_exit_code_and_a_partial_report(
    complete: Complete, photo: Path, tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str,
) -> None:  # fmt: skip
    save(photo.with_name("b.png"))

    def read_or_end(path: Path) -> object:
        if path.name == "b.png":
            raise error
        return read_photo(path)

    monkeypatch.setattr(batch, "read_photo", read_or_end)
    assert complete(photo.parent, "--report", tmp_path / "report.json") == code
    told = capsys.readouterr()
    assert words in told.err and len(told.err.splitlines()) == 1
    assert files(done) == ["a.png"] and len(strict(tmp_path / "report.json")["photos"]) == 1


# Workers and signals


def test_two_workers_give_the_same_files_as_one(
    complete: Complete, onnx_weights_file: Path, photo: Path, tmp_path: Path, done: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.undo()  # workers do not see patched solvers
    for number in range(1, 4):
        save(photo.with_name(f"{number}.png"), FACE + number)
    photo.with_name("5.png").write_text("text")
    records = []
    given = [photo.parent, "--weights", onnx_weights_file, "--history", "--report", tmp_path / "r.json"]
    for folder, jobs in ((done, 2), (tmp_path / "one", 1)):
        assert complete(*given, "--jobs", jobs, output=folder) == 3
        found = strict(tmp_path / "r.json")["photos"]
        records.append([(record["photo"], record["status"], record["figures"].get("psnr")) for record in found])
    assert records[0] == records[1] and len(files(done)) == 12 and contents(done) == contents(tmp_path / "one")


def test_sigterm_ends_all_processes_and_leaves_no_partial_file(
    onnx_weights_file: Path, photo: Path, done: Path
) -> None:
    for number in range(1, 2000):
        os.link(photo, photo.with_name(f"{number}.png"))
    command = [sys.executable, "-W", "error", "-m", "completion", "--mask", "center", "--aligned", "--device", "cpu"]
    command += ["--weights", onnx_weights_file, "--output", done, "--strip", "--jobs", "2", photo.parent]
    process = subprocess.Popen(
        command, cwd=PROJECT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not list(done.glob("*.png")) and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 143
        assert err == "completion: stopped; completed photos are kept; repeat the command to resume\n"
        with pytest.raises(ProcessLookupError):
            for _ in range(400):
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    finally:
        process.kill()
    assert 0 < len(files(done)) < 3000 and all(name.endswith(".png") for name in files(done))
    assert all(pixels(done / name).shape[0] in (32, 256) for name in files(done))
    assert set(out.splitlines()) <= {str(done / name) for name in files(done)}


# Files, stdin and stdout


NAMES = ["grüße 脸.png", "line\nbreak.png", "\x1b]0;title\x07\n.png", "--mask.png", "./-", os.fsdecode(b"\xff.png")]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_file_name_works(
    complete: Complete, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, name: str
) -> None:
    monkeypatch.chdir(save(tmp_path / "raw" / "photo.png").rename(tmp_path / "raw" / name).parent)
    assert complete("-q", "--", name) == 0
    [result] = files(done)
    assert Path(result).stem == Path(name).stem
    (done / result).write_text("edited")
    Path(name).write_text("text")
    for output, words in ((tmp_path / "2", "not an image"), (done, "made from another photo")):
        line = refused(complete, "--", name, output=output)
        assert words in line and line.isprintable()


def stream(content: bytes = b"") -> io.TextIOWrapper:
    """A text stream in memory."""
    return io.TextIOWrapper(io.BytesIO(content))


def test_a_photo_comes_from_stdin_and_goes_to_stdout(
    complete: Complete, photo: Path, tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complete(photo) == 0
    for given, output in (("-", "-"), (photo, "-"), ("-", tmp_path / "file.png"), ("-", tmp_path / "folder")):
        monkeypatch.setattr(sys, "stdin", stream(photo.read_bytes()))
        monkeypatch.setattr(sys, "stdout", stream())
        assert complete(given, output=output) == 0
        written = {"-": None, tmp_path / "folder": tmp_path / "folder" / "stdin.png"}.get(output, output)
        sys.stdout.flush()
        told = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
        assert (told if written is None else written.read_bytes()) == (done / "a.png").read_bytes()
        assert written is None or told == f"{written}\n".encode()


def test_stdin_goes_to_stdout_by_default_and_errors_name_it(
    small_weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--weights", str(small_weights_file), "--device", "cpu", "--mask", "center", "--aligned", "-"]
    monkeypatch.setattr(sys, "stdin", stream(b"text"))
    assert refused(main, words).startswith("stdin: not an image") and not list(tmp_path.iterdir())
    for extra in (["--strip"], ["--candidates", "2"], ["a.png"]):
        assert "several" in refused(main, [*words, *extra])


def test_endless_input_is_refused(complete: Complete, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("align.photo.MAX_BYTES", 1000)
    with open("/dev/zero") as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        assert "stdin has more than 1,000 bytes" in refused(complete, "-")


# Usage


def test_unusable_input_exits_with_2_and_one_line(
    complete: Complete, photo: Path, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "text.safetensors").write_text("text")
    before = files(tmp_path)
    for arguments, mask, words in (
        ([tmp_path / "gone.png"], "center", "does not exist"),
        ([photo], "centre", "no mask named 'centre'; did you mean 'center'?"),
        ([photo], "center:2", "center takes a number above 0 and below 0.5"),
        ([photo], "alpha", "without alpha"),
        ([photo, "--solver", "encoder"], "center", "no encoder; train one (python -m dcgan encode)"),
        ([photo, "--device", "cuda:99"], "center", "the device cuda:99 is absent"),
        ([photo, "--weights", tmp_path / "gone.safetensors"], "center", "gone.safetensors is not a file"),
        ([photo, "--weights", tmp_path / "text.safetensors"], "center", "not a readable safetensors file"),
        ([photo, "--box", "1,2,3,4", "--eyes", "1,2,3,4"], "center", "both box and eyes are given"),
        ([photo, "--box", "1,2,3,4", "--landmarks", photo], "center", "landmarks and a box or eyes are given"),
    ):
        assert words in refused(complete, *arguments, mask=mask)
    assert files(tmp_path) == before


@pytest.mark.parametrize("more", ["", "--solver none", f"--seed {2**63}", "--device tpu", "--weights face-64", "-q -v"])
def test_wrong_usage_exits_with_2(more: str, refused: Refused) -> None:
    line = refused(main, ["a.png", *more.split()] if more else [])
    assert line.startswith("python -m completion: ") and line.endswith(" (see --help)")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("a.png", "give --mask, or a photo and a mask file"),
        ("a.png b.png c.png -o done", "the outputs c.png and done are given"),
        ("--mask eyes a.png mouth", "--mask eyes,mouth"),
        ("--mask eyes a.png out.png", "give --output out.png"),
        ("--mask eyes https://example.org/a.jpg", "download it first"),
        ("--mask eyes @list.txt", "xargs -a list.txt"),
    ],
)
def test_what_people_write_instead_gets_advice(
    photo: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, words: str, advice: str
) -> None:
    monkeypatch.chdir(photo.parent)
    photo.rename("a.png")
    assert advice in refused(main, words.split())


def test_a_photo_and_a_mask_file_need_no_flag_and_parts_are_joined(
    small_weights_file: Path, tmp_path: Path, photo: Path
) -> None:
    loading = ["--weights", str(small_weights_file), "--device", "cpu", "--aligned"]
    mask = save(tmp_path / "hole.png", np.where(CENTER, 255, 0))
    assert main([*loading, str(photo), str(mask), str(tmp_path / "one.png")]) == 0
    apart = ["--mask", str(mask), "--mask=center:0.3", "--eyes", "11", "13", "20", "13"]
    joined = ["--mask", f"{mask},center:0.3", "--eyes", "20,13,11,13"]
    points = ["--mask", f"{mask},center:0.3", "--eyes", "(20;13),", "(11 13)"]
    for words, name in ((apart, "two.png"), (joined, "three.png"), (points, "four.png")):
        assert main([*loading, *words, str(photo), "-o", str(tmp_path / name)]) == 0
        assert np.array_equal(pixels(tmp_path / "two.png"), pixels(tmp_path / name))


def test_wrong_names_are_reported_before_torch_is_imported(photo: Path) -> None:
    commands = [["--mask", "centre"], *(["--mask", "center", *words] for words in (["--weights", "x"], ["-d", "tpu"]))]
    code = f"""
import sys
from completion.__main__ import main
for words in {commands}:
    try:
        print(main([*words, {str(photo)!r}]))
    except SystemExit as ended:
        print(ended.code)
print("torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout == "2\n2\n2\nFalse\n" and len(done.stderr.splitlines()) == 3


def test_the_options_are_those_of_the_settings_classes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and all(name in told for name in holes.HOLES) and "(default: poisson)" in told
    arguments = build_parser().parse_args(["a.png", "--mask", "center"])
    assert settings_from(arguments, FillOptions) == FillOptions()
    assert settings_from(arguments, LoadOptions) == LoadOptions()
    assert settings_from(arguments, FileOptions) == FileOptions("center")
    for settings in (FillOptions, LoadOptions, FileOptions):
        for item in fields(settings):
            assert f"--{'faces' if item.name == 'on' else item.name.replace('_', '-')} " in told
