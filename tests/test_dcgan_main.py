"""python -m dcgan as people type it."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import save_all

from align.photo import read_photo
from dcgan import train_all
from dcgan.__main__ import main
from dcgan.run import TrainingStep
from dcgan.weights import Weights

Refused = Callable[..., str]
SMALL = ["--size", "16", "--nz", "4", "--ngf", "4", "--ndf", "4", "--batch", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    return save_all(tmp_path_factory.mktemp("train") / "faces", pixels)


def test_train_export_sample(tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file, samples = tmp_path / "run", tmp_path / "w.safetensors", tmp_path / "samples"
    assert main(["train", str(faces), "--output", str(run), "--kimg", "0.016", *SMALL]) == 0
    assert capsys.readouterr().out == f"{run}\n"
    assert main(["train", str(faces), "--output", str(run), "--kimg", "0.032", *SMALL]) == 0
    assert "resuming at 0.016 kimg" in capsys.readouterr().err
    assert main(["train", str(faces), "--output", str(run), "--kimg", "0.032", *SMALL]) == 0
    told = capsys.readouterr()
    assert told.out == f"{run}\n" and "resuming" not in told.err
    assert "the run has reached 0.032 kimg; a larger --kimg continues it" in told.err
    assert main(["export", str(run), str(file.with_suffix(".onnx"))]) == 2
    assert "expected .safetensors for a run" in capsys.readouterr().err
    assert main(["export", str(run), str(file)]) == 0
    loaded = Weights.open(file, "cpu")
    assert loaded.metadata["images"] == 32
    assert loaded.metadata["data_images"] == 16
    assert loaded.logit_offset == json.loads((run / "stats.jsonl").read_text().splitlines()[-1])["real"]
    assert read_photo(run / "losses.png").pixels.shape[1] == 1200
    assert main(["export", str(run), str(file)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["sample", "--weights", str(file), "--count", "5", "--output", str(samples)]) == 0
    assert capsys.readouterr().out == f"{samples / 'grid.png'}\n"
    assert sorted(path.name for path in samples.iterdir()) == [f"000{index}.png" for index in range(5)] + ["grid.png"]
    grid = read_photo(samples / "grid.png").pixels
    assert np.array_equal(grid[:16, 16:32], read_photo(samples / "0001.png").pixels)
    assert main(["sample", "--weights", str(file), "--output", str(samples)]) == 2


def test_the_paper_preset_can_be_trained_and_changed(tmp_path: Path, faces: Path) -> None:
    run = tmp_path / "run"
    words = ["train", str(faces), "--output", str(run), "--preset", "paper", "--kimg", "0.008", *SMALL]
    assert main(words) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["loss"] == "non-saturating"
    assert config["network"]["d_norm"] == "batch"
    assert config["network"]["ngf"] == 4


def test_a_signal_saves_and_sets_the_exit_code(tmp_path: Path, faces: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "dcgan", "train", str(faces), "--output", str(run), "--kimg", "1000", *SMALL]
    process = subprocess.Popen(
        [*command, "--tick-kimg", "0.016"], stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if line.startswith("kimg"):
                break
        for pause_s in (0, 0.02, 0.05):  # once, or repeatedly
            time.sleep(pause_s)
            process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "run the same command again to resume" in said
    assert len(list(run.glob("checkpoint-*.pt"))) == 1


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", str(faces), "--output", str(run), *SMALL]
    assert main([*words, "--kimg", "0.008"]) == 0
    [checkpoint] = run.glob("checkpoint-*")
    before = checkpoint.read_bytes()
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        assert main([*words, "--kimg", "0.016"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in capsys.readouterr().err.splitlines()[-1]
    assert [path.read_bytes() for path in run.glob("checkpoint-*")] == [before]
    assert not list(run.glob(".*.part"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train absent -o run", "absent is not a folder"),
        ("train absent -o run -q", "absent is not a folder"),
        ("train absent -o run --device cuda:99", "the device cuda:99 is absent"),
        ("train faces -o run --loss hing", "--loss: there is no 'hing'; did you mean 'hinge'?"),
        ("train faces --out run", "the following arguments are required: -o/--output"),
        ("encode face-64 faces -o run", "there are no weights 'face-64'; did you mean 'faces-64'?"),
        ("export absent w.safetensors", "absent has no config.json"),
        ("sample --weights absent.safetensors -o samples", "absent.safetensors is not a file"),
        ("sample --weights dogs -o samples", "there are no weights 'dogs'; expected one of faces-64"),
        ("explore walk --device cuda:99 -o out", "the device cuda:99 is absent"),
        ("explore duplicates absent -o out", "absent is not a folder"),
        ("explore forget --label glasses -o x", "there is no 'glasses'; expected one of mouth open"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(main, words.split())
    assert not list(tmp_path.iterdir())


def test_wrong_settings_are_reported_before_torch_is_imported() -> None:
    words = ["train", "x", "-o", "y", "--size", "17"]
    code = f"import sys; from dcgan.__main__ import main; print(main({words}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n" and len(done.stderr.splitlines()) == 1


def test_training_prints_the_time_and_with_verbose_the_losses(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(faces), "-o", str(tmp_path / "run"), "--tick-kimg", "0.008", *SMALL]
    assert main([*words, "--kimg", "0.016"]) == 0
    told = capsys.readouterr().err.splitlines()[1:]
    assert [re.sub(r"\d+\.\d min", "T", line) for line in told] == [
        f"kimg {kimg} of 0.016, T; about 0 min left" for kimg in ("0.008", "0.016")
    ]
    assert main([*words, "--kimg", "0.024", "-v"]) == 0
    assert re.search(r"^kimg 0\.024  .*loss_g \d", capsys.readouterr().err, re.MULTILINE)


def test_quiet_prints_nothing(tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(faces), "-o", str(tmp_path / "run"), "--kimg", "0.016", *SMALL]
    assert main([*words, "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_training_reads_a_packed_file_as_the_folder(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, leave_out = tmp_path / "faces.npy", tmp_path / "list.txt"
    words = ["--kimg", "0.008", *SMALL]
    assert main(["train", str(faces), "--output", str(tmp_path / "run"), *words]) == 0
    assert main(["pack", str(faces), str(file), "--size", "16"]) == 0
    assert np.load(file).shape == (16, 16, 16, 3)
    assert main(["train", str(file), "--output", str(tmp_path / "run"), *words]) == 0  # resumes: the same images
    assert main(["pack", str(faces), str(file), "--size", "16"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    leave_out.write_text("000.png\n")
    assert main(["pack", str(faces), str(file), "--size", "16", "--dedupe", str(leave_out), "--overwrite"]) == 0
    assert len(np.load(file)) == 15
    assert main(["pack", str(file), str(tmp_path / "b.npy"), "--size", "16", "--dedupe", str(leave_out)]) == 2
    assert "has no file names" in capsys.readouterr().err
    assert main(["train", str(faces), "--output", str(tmp_path / "run"), *words, "--dedupe", str(leave_out)]) == 2
    assert "started with other images" in capsys.readouterr().err
    assert main(["pack", str(faces), str(tmp_path / "b.npy"), "--dedupe", str(tmp_path / "absent.txt")]) == 2
    assert "absent.txt: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), "holds uint8 (4, 8, 8, 3); expected uint8 (N, 16, 16, 3)"),
        (np.zeros((4, 16, 16, 3), np.float32), "holds float32"),
        (np.array([{}]), "unreadable"),
        (b"faces", "unreadable"),
    ],
)
def test_an_unusable_packed_file_is_refused(tmp_path: Path, refused: Refused, array: object, said: str) -> None:
    file = tmp_path / "faces.npy"
    file.write_bytes(array) if isinstance(array, bytes) else np.save(file, array, allow_pickle=True)
    assert said in refused(main, ["train", str(file), "--output", str(tmp_path / "run"), *SMALL])


def test_train_all_passes_its_settings_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_all(tmp_path / "faces", np.zeros((8, 64, 64, 3), dtype=np.uint8))
    called: list[Any] = []

    def recorded(*arguments: Any) -> Iterator[TrainingStep]:
        called.extend(arguments)
        yield TrainingStep(8, {"loss_d": 1.25}, "64")

    monkeypatch.setattr(train_all, "train_all", recorded)
    words = ["train-all", str(folder), "--size", "64", "--hours", "0.5", "--batch", "8", "--seed", "3", "-v"]
    assert main([*words, "--output", str(tmp_path / "all"), "--device", "cpu"]) == 0
    config, encoder, faces, output, seconds, device, template, val = called
    assert (config.batch, encoder.batch, config.seed, encoder.seed) == (8, 8, 3, 3)
    assert faces.shape == (8, 64, 64, 3) and output == tmp_path / "all" and seconds == 1800
    assert (device.type, template, val) == ("cpu", "face", None)
    captured = capsys.readouterr()
    assert "64: kimg 0.008, 0.0 min; about 30 min left" in captured.err and "loss_d 1.25" in captured.err
    assert captured.out.split() == [str(output / "faces.safetensors"), str(output / "faces.onnx")]


@pytest.mark.parametrize(("words", "name"), [(["sample", "--output"], "samples"), (["export", "run"], "w.safetensors")])
def test_a_folder_that_cannot_be_written_is_noticed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, words: list[str], name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"command": "train"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dcgan.sampling.generate", None)
    monkeypatch.setattr("dcgan.export.export_run", None)
    line = refused(main, [*words, str(tmp_path / "file" / name)])
    assert "file" in line and "cannot be written to: " in line


@pytest.mark.parametrize(
    ("words", "work", "output"),
    [
        (["pack", "faces", "{out}/faces.npy", "--size", "32"], "dataset.pack_faces", "faces.npy"),
        (["sample", "--weights", "{weights}", "-o", "{out}", "--count", "2"], "sampling.generate", "grid.png"),
        (["export", "{weights}", "{out}/w.onnx"], "export.export_onnx", "w.onnx"),
        (["evaluate", "{weights}", "faces", "-o", "{out}", "--mre-faces", "1"], "report.write_report", "samples.png"),
        (
            ["explore", "walk", "--weights", "{weights}", "-o", "{out}", "--pairs", "1", "--steps", "3"],
            "explore.files.write_files",
            "walk.json",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_another_command_writes_meanwhile_is_replaced_only_with_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoder_weights_file: Path,
    words: list[str], work: str, output: str,
) -> None:  # fmt: skip
    """The other command ends first."""
    save_all(tmp_path / "faces", np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    module, name = work.rsplit(".", 1)
    inner, theirs = getattr(import_module(f"dcgan.{module}"), name), tmp_path / "out" / output

    def overtaken(*arguments: Any) -> Any:
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_bytes(b"theirs")
        return inner(*arguments)

    monkeypatch.setattr(f"dcgan.{work}", overtaken)
    # Without dlib, which is slow.
    monkeypatch.setattr("dcgan.evaluate.embed", lambda crops, **_: crops.reshape(len(crops), -1)[:, :48] / 255)
    monkeypatch.setattr("dcgan.evaluate.faces_detected", lambda crops: crops.any(axis=(1, 2, 3)))
    words = [word.format(out="out", weights=encoder_weights_file) for word in words]
    assert main(words) == 2
    assert f"{output} exists" in capsys.readouterr().err.splitlines()[-1]
    assert theirs.read_bytes() == b"theirs" and not list(theirs.parent.glob(".*.part"))
    assert main([*words, "--overwrite"]) == 0
    assert theirs.read_bytes() != b"theirs"
