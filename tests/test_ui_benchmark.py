"""The load test of the page: `python -m ui.benchmark`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import box, save

from align.errors import PhotoError
from align.photo import decode_photo
from ui.attackers import bombs
from ui.benchmark import Visitor, main, tinted_photos


@pytest.fixture(autouse=True)
def no_analytics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")


def test_every_visitor_gets_their_own_photo(encoder_weights_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--users", "2", "--seconds", "1", "--weights", str(encoder_weights_file), "--device", "cpu"]
    assert main(words) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    found = dict(rows[2:])
    assert found["concurrent visitors"] == "2"
    assert found["errors"] == found["answers with another visitor's photo"] == "0"
    assert int(found["answers"]) >= 2 and float(found["most memory (MiB)"]) > 0


class Answers:
    """A client to which the page always gives the same answer."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer

    def predict(self, *_: Any, **named: Any) -> list[str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [str(self.answer)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("filled.png", (1, 0, 0, 0)),
        ("other.png", (1, 1, 0, 0)),
        (RuntimeError("something broke"), (0, 0, 1, 0)),
        (RuntimeError("Queue is full. Max size is 1 and size is 1."), (0, 0, 0, 1)),
    ],
    ids=["own photo", "another's photo", "error", "full queue"],
)
def test_outcomes_are_counted_separately(tmp_path: Path, answer: str | Exception, expected: tuple[int, ...]) -> None:
    own, other = tinted_photos(2)
    hole = box(own.shape[:2], 100, 150, 100, 150)
    photo = save(tmp_path / "own.png", own)
    save(tmp_path / "other.png", other)
    save(tmp_path / "filled.png", np.where(hole[..., None], 0, own))
    client = Answers(tmp_path / answer if isinstance(answer, str) else answer)
    visitor = Visitor(photo, own, client, photo, hole)
    visitor.complete()
    assert (len(visitor.seconds), visitor.mixed, len(visitor.errors), visitor.refused) == expected


def test_a_page_that_does_not_start_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--weights", str(tmp_path / "absent.safetensors")]) == 1
    assert "did not start; its exit code is 2" in capfd.readouterr().err


def test_no_two_photos_are_alike() -> None:
    assert len({photo.tobytes() for photo in tinted_photos(16)}) == 16


def test_bombs_are_refused_or_as_large_as_is_allowed() -> None:
    refused = 0
    for content in bombs():
        try:
            assert decode_photo(content, 16_000_000).pixels.size
        except PhotoError as error:
            assert "which takes too long to read" in str(error)
            refused += 1
    assert refused == 3
