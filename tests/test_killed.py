"""kill -9 at random moments of batches, training and the page; `make kill` does so 50 times each."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from pictures import FACE, files, save

from dcgan.checkpoint import load_checkpoint
from ui.benchmark import served_page

KILLS = int(os.environ.get("KILLS", "1"))


def started(*words: object, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def finished(*words: object) -> float:
    """Run a command to its end; how long it took in seconds."""
    began = time.monotonic()
    process = started(*words)
    _, told = process.communicate()
    assert process.returncode == 0, told.decode()
    return time.monotonic() - began


def killed(moment_s: float, *words: object) -> None:
    process = started(*words)
    time.sleep(moment_s)
    process.kill()
    process.communicate()


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_a_batch_that_is_killed_leaves_whole_files_and_completes_at_last(
    tmp_path: Path, onnx_weights_file: Path
) -> None:
    rng = random.Random(KILLS)
    for number in range(12):
        save(tmp_path / "raw" / f"{number}.png", np.roll(FACE, number, axis=0))
    words = ["completion", "--aligned", "--mask=center", "--candidates=2", "--strip", "--weights", onnx_weights_file]
    took_s = finished(*words, "-o", tmp_path / "whole", tmp_path / "raw")
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in files(tmp_path / "whole")}
    done, out = 0, tmp_path / "out"
    for _ in range(KILLS):
        killed(rng.uniform(0.3, 1) * took_s, *words, "-o", out, tmp_path / "raw")
        found = {name for name in (files(out) if out.exists() else []) if not Path(name).parts[0].startswith(".")}
        assert all((out / name).read_bytes() == whole[name] for name in found) and len(found) >= done
        done = len(found)
    finished(*words, "-o", out, tmp_path / "raw")
    assert {name: (out / name).read_bytes() for name in files(out)} == whole and not leftovers(out)


def test_training_that_is_killed_goes_on_from_a_whole_checkpoint(tmp_path: Path) -> None:
    rng = random.Random(KILLS)
    faces = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "faces.npy", faces)
    words = ["dcgan", "train", tmp_path / "faces.npy", "--size", 16, "--ngf", 4, "--ndf", 4, "--batch", 8]
    words += ["--save-minutes", 0.001, "--sample-kimg", 0.1, "-o", tmp_path / "run", "--kimg"]
    took_s, images = finished(*words, 0.1), 100
    for _ in range(KILLS):
        killed(rng.uniform(0.3, 1.5) * took_s, *words, 1000)
        checkpoints = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
        assert 1 <= len(checkpoints) <= 3 and all(name.endswith(".pt") for name in checkpoints)
        assert load_checkpoint(tmp_path / "run") is not None and int(checkpoints[-1][11:21]) >= images
        images = int(checkpoints[-1][11:21])
    finished(*words, images / 1000 + 0.1)
    assert not leftovers(tmp_path / "run") and len(list((tmp_path / "run").glob("checkpoint-*"))) == 2


def test_a_page_that_is_killed_leaves_nothing_after_the_next_one(tmp_path: Path, onnx_weights_file: Path) -> None:
    rng = random.Random(KILLS)
    for last in [False] * KILLS + [True]:
        with served_page(str(onnx_weights_file), "cpu", temporary=tmp_path) as (url, process):
            assert len(list(tmp_path.iterdir())) == 1  # its own folder
            stored = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", bytes(2**20))}, timeout=120)
            assert Path(stored.raise_for_status().json()[0]).is_relative_to(tmp_path)
            if not last:
                time.sleep(rng.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
                process.wait()
    process.wait()
    assert not list(tmp_path.iterdir())


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
