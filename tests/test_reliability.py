"""docs/reliability.md: the tests that it names exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_promise_names_tests_that_exist() -> None:
    lines = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    promises = [line for line in lines if line.startswith("| ") and "| test |" not in line]
    assert len(promises) > 30
    for line in promises:
        cited = re.findall(r"`(?:(test_\w+\.py)(?:: )?)?(test_\w+)?`", line.rsplit("| ", 1)[1])
        assert cited, f"no test in: {line}"
        text = ""  # of the file that the cell named last
        for file, name in cited:
            text = (TESTS / file).read_text(encoding="utf-8") if file else text
            assert text and (not name or re.search(rf"^def {name}\(", text, re.MULTILINE)), f"no {file} {name}"
