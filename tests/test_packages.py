"""The packages as a whole: imports, version, types, errors."""

import re
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

import align.errors

PACKAGES = ("align", "completion", "dcgan", "ui", "weights")
HEAVY = {"cv2", "dlib", "numpy", "onnxruntime", "PIL", "torch"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_the_version_of_the_project_and_types(package: str) -> None:
    module = __import__(package)
    assert module.__version__ == version("dcgan-completion")
    assert files(package).joinpath("py.typed").is_file()


def test_importing_the_packages_and_the_help_of_all_commands_import_nothing_heavy() -> None:
    command = f"import sys, {', '.join(PACKAGES)}; from ui.command import main; main([]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split()
    assert set(PACKAGES) <= set(loaded) and not HEAVY & set(loaded)


@pytest.mark.parametrize("package", ["align", "completion"])
def test_every_exported_name_exists(package: str) -> None:
    module = __import__(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(module, "nothing")  # noqa: B009


def test_the_tree_of_errors_is_complete() -> None:
    sources = (file for package in PACKAGES for file in Path(str(files(package))).rglob("*.py"))
    defined = {name for file in sources for name in re.findall(r"^class (\w+)\(\w*Error\b", file.read_text(), re.M)}
    assert align.errors.__doc__ is not None
    assert defined == set(re.findall(r"\w+Error", align.errors.__doc__)) - {"InputError"}
