"""Parallel tasks: every result once and in order, even if a worker is killed."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pictures import PORTRAIT, pixels, save

from align import parallel
from align.errors import BackendError, WorkerError
from align.parallel import parallel_map

PROJECT = Path(__file__).parents[1]


def started(folder: Path, do: str) -> Callable[[], Callable[[int], tuple[int, int]]]:
    """A `start` that other processes can unpickle without this file; it leaves a file named after its process."""
    program = (
        "import os, pathlib, signal, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "(folder / f'{os.getpid()}.start').touch(exist_ok=False)\n"
        f"def do(task):\n    {do}\n    return task, os.getpid()"
    )
    return partial(eval, f"(lambda scope: exec({program!r}, scope) or scope['do'])({{}})")


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_are_in_order_and_each_worker_starts_once(tmp_path: Path, jobs: int) -> None:
    # The first task ends when another worker has run the second.
    wait = "while task == 0 and jobs > 1 and not (folder / 'other').exists(): time.sleep(0.01)".replace(
        "jobs", str(jobs)
    )
    results = list(parallel_map(started(tmp_path, f"{wait}\n    (folder / 'other').touch()"), range(12), jobs))
    assert [task for task, _ in results] == list(range(12))
    workers = {worker for _, worker in results}
    assert {int(file.stem) for file in tmp_path.glob("*.start")} == workers and len(workers) == jobs
    assert (os.getpid() in workers) == (jobs == 1)
    assert not multiprocessing.active_children()


def test_exceptions_of_tasks_and_of_the_start_are_raised_unchanged(tmp_path: Path, backend: str) -> None:
    results = parallel_map(started(tmp_path, "1 / (task - 2)"), range(4), 2, backend)
    assert [next(results)[0], next(results)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError) as raised:
        next(results)
    assert type(raised.value) is ZeroDivisionError
    with pytest.raises(LookupError, match="no-such"):
        list(parallel_map(partial("a".encode, "no-such"), range(4), 2, backend))  # type: ignore[arg-type]


def test_without_tasks_no_worker_starts() -> None:
    assert list(parallel_map(lambda: pytest.fail("started"), [], 4, "ray")) == []


def test_a_killed_process_raises_an_error_after_earlier_results_and_ends_the_others(tmp_path: Path) -> None:
    results = parallel_map(started(tmp_path, "task == 7 and os.kill(os.getpid(), 9)"), range(40), 2)
    assert next(results)[0] == 0
    with pytest.raises(WorkerError, match="finished results are kept"):
        list(results)
    assert not multiprocessing.active_children()


def test_abandoned_results_end_the_workers_in_the_middle_of_a_task(tmp_path: Path) -> None:
    results = parallel_map(started(tmp_path, "time.sleep(600 * (task > 1))"), range(40), 2)
    assert next(results)[0] == 0
    workers = multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert workers and not any(worker.is_alive() for worker in workers)


def test_with_ray_a_killed_worker_loses_no_result(tmp_path: Path, ray_of_two: str) -> None:
    once = "if task == 7 and not (folder / 'killed').exists(): (folder / 'killed').touch(); os.kill(os.getpid(), 9)"
    (tmp_path / "start").write_bytes(pickle.dumps(started(tmp_path, once)))
    # In a process of its own, as Ray prints notices about the workers of earlier tests, at any time.
    program = (
        "import json, os, pathlib, pickle\nfrom align.parallel import parallel_map\n"
        "start = pickle.loads(pathlib.Path('start').read_bytes())\n"
        "results = list(parallel_map(start, range(20), 2, 'ray'))\n"
        "pathlib.Path('results').write_text(json.dumps([os.getpid(), results]))"
    )
    environment = os.environ | {"RAY_ADDRESS": ray_of_two, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    process, results = json.loads((tmp_path / "results").read_text())
    assert (tmp_path / "killed").exists() and [task for task, _ in results] == list(range(20))
    assert process not in {worker for _, worker in results}


def test_with_ray_a_task_that_kills_every_worker_raises_an_error(
    tmp_path: Path, ray_of_two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "RETRIES", 0)
    results = parallel_map(started(tmp_path, "task == 3 and os.kill(os.getpid(), 9)"), range(20), 2, "ray")
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(WorkerError, match="workers died over the same task"):
        next(results)


def test_without_ray_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r'pip install -e "\.\[cluster\]"'):
        list(parallel_map(lambda: print, [1], 1, "ray"))


def test_the_cluster_at_ray_address_is_used_and_results_can_be_abandoned(ray_of_two: str, tmp_path: Path) -> None:
    """Workers have the environment in which the cluster was started and the caller's working directory."""
    program = (
        "import os; from align.parallel import parallel_map\n"
        "work = lambda name: (os.getenv(name), os.getcwd())\n"
        "results = parallel_map(lambda: work, ['CLUSTER_OF_THE_TESTS'] * 99, 2, 'ray')\n"
        "print(next(results)); results.close(); print('closed')"
    )
    environment = os.environ | {"RAY_ADDRESS": ray_of_two, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, f"{('it is', str(tmp_path))}\nclosed\n"), done.stderr


def test_a_local_ray_ends_with_the_command(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    first = save(tmp_path / "raw" / "0.png", PORTRAIT)
    for name in range(1, 2000):
        os.link(first, first.with_name(f"{name}.png"))
    command = [sys.executable, "-m", "align", "raw", "aligned", "--jobs", "2", "--backend", "ray"]
    family = {"FAMILY_OF_THE_TEST": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | family
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not list(tmp_path.glob("aligned/*.png")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    if "timed out during startup" in err:
        pytest.skip("Ray did not start within its own 30 s")
    assert process.returncode == 143 and out == "" and "Traceback" not in err, err
    assert all(pixels(crop).shape == (64, 64, 3) for crop in tmp_path.glob("aligned/*.png"))
    deadline = time.monotonic() + 60
    while (left := members(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def members(family: str) -> list[str]:
    """The processes whose environment has the name of a family."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FAMILY_OF_THE_TEST={family}".encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
        except OSError:  # of another user, or ended
            pass
    return found
