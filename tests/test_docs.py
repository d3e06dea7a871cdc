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
