"""Signals end a command once, with clean-up, in one line and within seconds, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
ROOT = Path(__file__).parents[1]

# A command whose work is one of the bodies below; it prints "ready" when the signal may come.
COMMAND = """
from align.stop import listen
listen()
import sys, threading, time
from pathlib import Path
from align.cli import run_main, run_program
from align.files import atomic_write

def ready():
    print("ready", flush=True)

def work():
{body}

run_program(lambda: run_main("command", work))
"""
BODIES = {
    "waiting": "ready(); time.sleep(60)",
    "writing": "with atomic_write(Path('out')) as file:\n    file.write(b'half'); ready(); time.sleep(60)",
    "cleaning up": "try:\n    ready(); time.sleep(60)\nfinally:\n    time.sleep(0.5); Path('cleaned').touch()",
    "importing": "Path('slow.py').write_text('import time; time.sleep(1)')\n"
    "sys.path.insert(0, '.'); ready()\nimport slow\ntime.sleep(60)",
    "in a finaliser": "class Slow:\n    def __del__(self):\n        ready(); time.sleep(1)\nSlow(); time.sleep(60)",
    "starting a process": "from align import stop\nwith stop.held():\n"
    "    ready(); time.sleep(1); Path('cleaned').touch()\ntime.sleep(60)",
    "in C": "import hashlib; ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "hanging": "try:\n    ready(); time.sleep(60)\nfinally:\n    threading.Lock().acquire() and time.sleep(60)",
}


def start(folder: Path, body: str) -> "subprocess.Popen[str]":
    code = COMMAND.format(body="\n".join(f"    {line}" for line in body.split("\n")))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("body", BODIES)
def test_a_signal_ends_a_command_in_one_line(tmp_path: Path, body: str, number: signal.Signals) -> None:
    process = start(tmp_path, BODIES[body])
    for pause_s in (0, 0.02, 0.05, 0.2):  # repeatedly
        time.sleep(pause_s)
        process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "")
    assert error == ("stopped\n" if body in ("in C", "hanging") else "command: stopped\n")
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "out").exists()
    assert body not in ("cleaning up", "starting a process") or (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("program", ["align", "completion", "dcgan", "ui", "completion.benchmark"])
def test_a_signal_during_the_start_of_a_program_is_one_line(program: str, tmp_path: Path) -> None:
    """The program is stopped at an import, where the signal waits for it."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import signal, sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'argparse':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hook())\n"
    )
    command = [sys.executable, "-m", program, "--help"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_signal_ends_a_command_whose_stderr_is_closed(tmp_path: Path) -> None:
    code = "from align.stop import listen\nlisten()\nimport os, signal, time\nos.close(2)\n"
    code += "signal.raise_signal(signal.SIGTERM)\ntime.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")
