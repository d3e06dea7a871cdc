"""Workers: every result once and in order, even if a worker is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from align.workers import spread
from pictures import PORTRAIT, pixels, save

from align import workers
from align.errors import EngineError, WorkerError

PROJECT = Path(__file__).parents[1]


def started(folder, do):
    """A `start` that other processes can unpickle without this file; it leaves a file named after its process."""
    program = (
        "import os, pathlib, signal, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "(folder / f'{os.getpid()}.start').touch(exist_ok=False)\n"
        f"def do(task):\n    {do}\n    return task, os.getpid()"
    )
    return partial(eval, f"(lambda scope: exec({program!r}, scope) or scope['do'])({{}})")


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_are_in_order_and_each_worker_starts_once(tmp_path, jobs):
    results = list(spread(started(tmp_path, "time.sleep(0.2 * (task in (0, 5)))"), range(12), jobs))
    assert [task for task, _ in results] == list(range(12))
    workers = {worker for _, worker in results}
    assert {int(file.stem) for file in tmp_path.glob("*.start")} == workers and len(workers) == jobs
    assert (os.getpid() in workers) == (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_exception_of_a_task_is_raised_unchanged(tmp_path, jobs):
    results = spread(started(tmp_path, "1 / (task - 2)"), range(4), jobs)
    assert [next(results)[0], next(results)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_exception_of_start_is_raised_unchanged(engine):
    with pytest.raises(LookupError, match="no-such"):
        list(spread(partial("a".encode, "no-such"), range(4), 2, engine))


def test_without_tasks_no_worker_starts():
    assert list(spread(lambda: pytest.fail("started"), [], 4, "ray")) == []


def test_the_death_of_an_idle_worker_ends_the_others(tmp_path):
    def late(*_):
        raise AssertionError("blocked by the other worker")

    # The dead worker holds the lock of the queue, for which the other one would wait forever.
    slow = "(task and (folder / 'slow').write_text(str(os.getpid()))); time.sleep(600 * task)"
    results = spread(started(tmp_path, slow), [0, 1], 2)
    assert next(results)[0] == 0
    while not (tmp_path / "slow").exists():
        time.sleep(0.1)
    time.sleep(2)  # by now the other worker is idle; if it is still starting, the test passes too
    busy = int((tmp_path / "slow").read_text())
    [idle] = [worker for worker in multiprocessing.active_children() if worker.pid != busy]
    idle.kill()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        with pytest.raises(WorkerError, match="a worker process died"):
            next(results)
    finally:
        signal.alarm(0)
    assert not multiprocessing.active_children()


KILL_ONCE = "if task == 7 and not (folder / 'killed').exists(): (folder / 'killed').touch(); os.kill(os.getpid(), 9)"


def test_a_killed_process_raises_an_error_after_earlier_results(tmp_path):
    results = spread(started(tmp_path, KILL_ONCE), range(40), 2)
    assert next(results)[0] == 0
    with pytest.raises(WorkerError, match="finished results are kept"):
        list(results)


def test_with_ray_a_killed_worker_loses_no_result(tmp_path, ray_of_two, capfd):
    results = list(spread(started(tmp_path, f"time.sleep(0.1)\n    {KILL_ONCE}"), range(20), 2, "ray"))
    assert (tmp_path / "killed").exists()
    assert [task for task, _ in results] == list(range(20))
    workers = {int(file.stem) for file in tmp_path.glob("*.start")}
    assert {worker for _, worker in results} <= workers and 2 <= len(workers) <= 3 and os.getpid() not in workers
    assert capfd.readouterr().out == ""


def test_with_ray_a_task_that_kills_every_worker_raises_an_error(tmp_path, ray_of_two, monkeypatch):
    monkeypatch.setattr(workers, "TRIES", 1)
    results = spread(started(tmp_path, "task == 7 and os.kill(os.getpid(), 9)"), range(20), 2, "ray")
    assert [next(results)[0] for _ in range(7)] == list(range(7))
    with pytest.raises(WorkerError, match="workers died over the same tasks"):
        next(results)


def test_without_ray_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r'pip install -e "\.\[cluster\]"'):
        list(spread(lambda: print, [1], 1, "ray"))


def test_the_cluster_at_ray_address_is_used_and_results_can_be_abandoned(ray_of_two, tmp_path):
    """Workers have the environment in which the cluster was started and the caller's working directory."""
    program = (
        "import os; from align.workers import spread\n"
        "work = lambda name: (os.getenv(name), os.getcwd())\n"
        "results = spread(lambda: work, ['CLUSTER_OF_THE_TESTS'] * 99, 2, 'ray')\n"
        "print(next(results)); results.close(); print('closed')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_ADDRESS": ray_of_two, "PYTHONPATH": str(PROJECT)},
    )
    assert (done.returncode, done.stdout) == (0, f"{('it is', str(tmp_path))}\nclosed\n"), done.stderr


def test_only_a_few_tasks_are_submitted_ahead(monkeypatch):
    class Pool:
        open = most = 0

        def __init__(self, *_):
            pass

        def submit(self, work, task):
            Pool.open += 1
            Pool.most = max(Pool.most, Pool.open)
            future = Future()
            future.set_result(task)
            return future

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    for number, result in enumerate(spread(lambda: print, range(1000), 2)):
        Pool.open -= 1
        assert result == number
    assert 2 < Pool.most <= 100


def test_a_local_ray_ends_with_the_command(tmp_path):
    pytest.importorskip("ray")
    first = save(tmp_path / "raw" / "0.png", PORTRAIT)
    for name in range(1, 2000):
        os.link(first, first.with_name(f"{name}.png"))
    command = [sys.executable, "-m", "align", "raw", "aligned", "--jobs", "2", "--engine", "ray"]
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
    assert process.returncode == 143 and out == "" and "Traceback" not in err, err
    assert all(pixels(crop).shape == (64, 64, 3) for crop in tmp_path.glob("aligned/*.png"))
    deadline = time.monotonic() + 20
    while (left := members(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def members(family):
    """The processes whose environment has the name of a family."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FAMILY_OF_THE_TEST={family}".encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
        except OSError:  # of another user, or ended
            pass
    return found


def test_no_more_than_two_processes_per_core_are_started(monkeypatch):
    class Refused(Exception):
        pass

    def count(jobs, *_):
        asked.append(jobs)
        raise Refused

    asked = []
    monkeypatch.setattr(workers, "ProcessPoolExecutor", count)
    monkeypatch.setattr(workers, "cores", lambda: 3)
    for jobs in (2, 6, 7, 1000):
        with pytest.raises(Refused):
            list(workers.spread(partial(int), range(5000), jobs))
    assert asked == [2, 6, 6, 6]
