"""The rules of the house: imports run one way, functions stay short, and what the documents name exists."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["weights", "align", "dcgan", "completion", "ui"]  # each imports from those before it
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
DOCUMENTS = ["CHANGELOG.md", "CONTRIBUTING.md", "README.md", "weights/README.md"]
DOCUMENTS += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
MAX_LINES = 90


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax tree of a file, flattened."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(module: str) -> set[str]:
    """Modules of the project that a module imports: on top, in its functions, and for its types."""
    found = set()
    for node in nodes(SOURCES[module]):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module} has a relative import in line {node.lineno}"
            # "from align import photo" imports the module align.photo, "from align import __version__" only align.
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in SOURCES else node.module for name in names}
    return found & SOURCES.keys()


def test_no_package_imports_a_later_one() -> None:
    rank = {module: PACKAGES.index(module.split(".")[0]) for module in SOURCES}
    upward = [f"{module} imports {name}" for module in SOURCES for name in imports(module) if rank[name] > rank[module]]
    assert not upward, f"imports run {' -> '.join(PACKAGES)}: {upward}"


def test_no_imports_form_a_circle() -> None:
    try:
        TopologicalSorter({module: imports(module) for module in SOURCES}).prepare()
    except CycleError as error:
        pytest.fail(f"each of these modules is imported by the next: {' <- '.join(error.args[1])}")


def test_no_function_is_too_long() -> None:
    paths = [*SOURCES.values(), *(ROOT / "tests").glob("*.py")]
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in paths
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_LINES
    ]
    assert not long, f"more than {MAX_LINES} lines: {long}"


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> Iterator[str]:
    """The names that GitHub gives to the headings of a document."""
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", without_code(document.read_text(encoding="utf-8")), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\]\(.*?\)", "", heading).lower()).replace(" ", "-")
        yield f"{name}-{seen[name]}" if name in seen else name
        seen[name] = seen.get(name, 0) + 1


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(\s*([^)\s]+)", without_code(path.read_text(encoding="utf-8"))):
        if not target.startswith(("https://", "http://")):
            file, _, anchor = target.partition("#")
            linked = path.parent / file if file else path
            assert linked.exists(), f"there is no {target}"
            assert not anchor or anchor in anchors(linked), f"{linked.name} has no heading #{anchor}"


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_files_that_a_document_names_exist(document: str) -> None:
    """Capital letters stand for something: tests/test_dcgan_explore_NAME.py."""
    folders, suffixes = "|".join([*PACKAGES, "docs", "tests"]), "css|html|js|jpg|md|onnx|png|py|safetensors"
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.-])(?:{folders})/[a-z0-9_/-]+\.(?:{suffixes})\b", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_map_shows_every_file() -> None:
    """CONTRIBUTING.md has a line "FOLDER/" for each folder, and below it a line "  FILE  purpose" for each file."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown, folder = set(), ""
    for line in text.partition("## Map")[2].split("```")[1].strip().splitlines():
        if line.startswith(" "):
            name, purpose = line.split(maxsplit=1)  # fails without a purpose
            shown.add(folder + name)
        elif line:
            folder = line
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".css", ".html", ".js", ".py")
    }
    assert shown == files


def test_every_promise_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| (?!promise )(.+) \| (.+) \|$", text, re.MULTILINE)
    assert promises
    for promise, cell in promises:
        cited = re.findall(r"`(test_\w+\.py)(?:: (test_\w+))?`", cell)
        assert cited, f"no test: {promise}"
        for file, name in cited:
            tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert not name or f"\ndef {name}(" in tests, f"{file} has no {name}"
