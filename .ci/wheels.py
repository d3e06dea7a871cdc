"""Check that every base dependency has a wheel for each supported Python and platform; needs only pip and its index.

Resolves the dependencies as pip would on that machine, and prints a table of the versions of Python by platform.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "Linux x86-64": [f"manylinux_2_{glibc}_x86_64" for glibc in (28, 27, 24, 17)],
    "Linux aarch64": [f"manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 24, 17)],
    "macOS arm64": ["macosx_14_0_arm64"],
    "Windows x86-64": ["win_amd64"],
}
# Pure Python, but published as source only: pip builds it on any machine.
SOURCE = {"face_recognition_models"}


def resolve(dependencies: list[str], python: str, platforms: list[str]) -> str:
    """Return "ok", or pip's reason."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--target", folder, "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        command += [word for platform in platforms for word in ("--platform", platform)]
        command += ["--constraint", str(PROJECT / "constraints.txt"), *dependencies]
        done = subprocess.run(command, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return "ok" if done.returncode == 0 else errors[0] if errors else f"pip exited with {done.returncode}"


def main() -> int:
    """Print the table; return 1 if a wheel is missing."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wheels = [name for name in project["dependencies"] if name not in SOURCE]
    missing = []
    print(f"{'':16}", *(f"{python:>8}" for python in PYTHONS))
    for name, platforms in PLATFORMS.items():
        found = [resolve(wheels, python, platforms) for python in PYTHONS]
        missing += [f"{name}, {python}: {text}" for python, text in zip(PYTHONS, found, strict=True) if text != "ok"]
        print(f"{name:16}", *(f"{text if text == 'ok' else 'missing':>8}" for text in found), flush=True)
    print(*missing, sep="\n", end="\n" if missing else "")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
