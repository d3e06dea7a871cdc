"""The examples of the documentation run."""

import re
from pathlib import Path

import numpy as np
import pytest
from pictures import PORTRAIT, pixels, save

DOCS = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_the_python_examples_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hole = np.zeros(PORTRAIT.shape[:2], dtype=bool)
    hole[90:120, 80:150] = True
    save(tmp_path / "photo.jpg", PORTRAIT)
    save(tmp_path / "hole.png", hole * 255)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.+?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    names: dict[str, object] = {}
    for example in examples:
        exec(example, names)
    assert pixels(tmp_path / "completed.png").shape == PORTRAIT.shape


def test_every_promise_names_tests_that_exist() -> None:
    tests = {path.name: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    rows = [row for row in (DOCS / "docs" / "reliability.md").read_text().splitlines() if row.startswith("| ")]
    named = 0
    for row in rows:
        file = ""
        for found, name in re.findall(r"`(?:(test_\w+\.py)(?:: )?)?(test_\w+)?`", row):
            file = found or file
            assert not name or f"def {name}(" in tests[file], name
            named += file in tests
    assert named > 20
