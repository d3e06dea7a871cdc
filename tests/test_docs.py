"""The examples of the documentation run."""

import re
from pathlib import Path

import pytest
from pictures import PORTRAIT, box, pixels, save

DOCS = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_the_python_examples_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hole = box(PORTRAIT.shape[:2], 90, 120, 80, 150)
    save(tmp_path / "photo.jpg", PORTRAIT)
    save(tmp_path / "hole.png", hole * 255)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.+?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    names: dict[str, object] = {}
    for example in examples:
        exec(example, names)
    assert pixels(tmp_path / "completed.png").shape == PORTRAIT.shape
