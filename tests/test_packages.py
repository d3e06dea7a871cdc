"""The packages as a whole: imports, version, types."""

import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files

import pytest

PACKAGES = ("align", "completion", "dcgan", "ui", "weights")
HEAVY = {"cv2", "dlib", "numpy", "onnxruntime", "PIL", "torch"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_the_version_of_the_project_and_types(package: str) -> None:
    module = __import__(package)
    assert module.__version__ == version("dcgan-completion")
    assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_nothing_heavy(package: str) -> None:
    command = f"import sys, {package}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split()
    assert package in loaded and not HEAVY & set(loaded)


@pytest.mark.parametrize("package", ["align", "completion"])
def test_every_exported_name_exists(package: str) -> None:
    module = __import__(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(module, "nothing")  # noqa: B009
