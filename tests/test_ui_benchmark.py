"""The load benchmark of the page: `python -m ui.benchmark`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ui import benchmark
from ui.benchmark import main


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")


def measures(table: str) -> dict[str, str]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: value for name, value in rows[2:]}


def test_everybody_gets_the_own_photo_back(encoder_weights_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--users", "2", "--seconds", "1", "--weights", str(encoder_weights_file), "--device", "cpu"]
    assert main(words) == 0
    found = measures(capsys.readouterr().out)
    assert (found["people at once"], found["errors"], found["photos of others"]) == ("2", "0", "0")
    assert int(found["answered"]) >= 2 and float(found["MiB at the end"]) > 0


class Answers:
    """A client to which the page gives what it is told to."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer

    def predict(self, *_: Any, **named: Any) -> list[str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [str(self.answer)]


def test_photos_of_others_errors_and_a_full_queue_are_told_apart(tmp_path: Path) -> None:
    own, other = benchmark._photos(2)
    hole = np.zeros(own.shape[:2], dtype=bool)
    hole[100:150, 100:150] = True
    for name, pixels in {"own": own, "other": other, "filled": np.where(hole[..., None], 0, own)}.items():
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    found = []
    for answer in (
        tmp_path / "filled.png",
        tmp_path / "other.png",
        RuntimeError("something broke"),
        RuntimeError("Queue is full. Max size is 1 and size is 1."),
    ):
        user = benchmark._User(tmp_path / "own.png", own, Answers(answer))
        benchmark._complete(user, tmp_path / "own.png", hole)
        found.append((len(user.seconds), user.mixed, len(user.errors), user.refused))
    assert found == [(1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]


def test_a_page_that_does_not_start_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--weights", str(tmp_path / "absent.safetensors")]) == 1
    assert "did not start; its exit code is 2" in capfd.readouterr().err


def test_no_two_people_have_photos_alike() -> None:
    assert len({photo.tobytes() for photo in benchmark._photos(16)}) == 16
