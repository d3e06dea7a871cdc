"""Tasks spread over this process, several, or Ray: every result comes once and in order, whoever is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from align import workers
from align.errors import EngineError, WorkerError
from align.workers import spread

PROJECT = Path(__file__).parents[1]


def started(folder, do):
    """A start for other processes, which cannot import this file; notes in the folder who ran it."""
    program = (
        "import os, pathlib, signal, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "(folder / f'{os.getpid()}.start').touch(exist_ok=False)\n"
        f"def do(task):\n    {do}\n    return task, os.getpid()"
    )
    return partial(eval, f"(lambda scope: exec({program!r}, scope) or scope['do'])({{}})")


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_order_from_workers_that_start_once(tmp_path, jobs):
    results = list(spread(started(tmp_path, "time.sleep(0.2 * (task in (0, 5)))"), range(12), jobs))
    assert [task for task, _ in results] == list(range(12))
    workers = {worker for _, worker in results}
    assert {int(file.stem) for file in tmp_path.glob("*.start")} == workers and len(workers) == jobs
    assert (os.getpid() in workers) == (jobs == 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_exception_of_a_task_is_raised_as_itself(tmp_path, jobs):
    results = spread(started(tmp_path, "1 / (task - 2)"), range(4), jobs)
    assert [next(results)[0], next(results)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_exception_of_a_start_is_raised_as_itself(engine):
    with pytest.raises(LookupError, match="no-such"):
        list(spread(partial("a".encode, "no-such"), range(4), 2, engine))


def test_no_tasks_start_nothing():
    assert list(spread(lambda: pytest.fail("started"), [], 4, "ray")) == []


def test_a_worker_that_dies_while_it_waits_ends_the_others_too(tmp_path):
    def late(*_):
        raise AssertionError("the other worker is waited for")

    # The dead one has the lock of the queue; the other one works on, and would wait for that lock for ever.
    slow = "(task and (folder / 'slow').write_text(str(os.getpid()))); time.sleep(600 * task)"
    results = spread(started(tmp_path, slow), [0, 1], 2)
    assert next(results)[0] == 0
    while not (tmp_path / "slow").exists():
        time.sleep(0.1)
    time.sleep(2)  # the waiting one waits by then, or starts yet, which does no harm to the test
    [waiting] = [
        worker for worker in multiprocessing.active_children() if worker.pid != int((tmp_path / "slow").read_text())
    ]
    waiting.kill()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        with pytest.raises(WorkerError, match="a worker process died"):
            next(results)
    finally:
        signal.alarm(0)
    assert not multiprocessing.active_children()


KILL_ONCE = "if task == 7 and not (folder / 'killed').exists(): (folder / 'killed').touch(); os.kill(os.getpid(), 9)"


def test_a_killed_process_is_an_error_after_the_results_so_far(tmp_path):
    results = spread(started(tmp_path, KILL_ONCE), range(40), 2)
    assert next(results)[0] == 0
    with pytest.raises(WorkerError, match="what was done so far is kept"):
        list(results)


def test_with_ray_a_killed_worker_loses_nothing(tmp_path, ray_of_two, capfd):
    results = list(spread(started(tmp_path, f"time.sleep(0.1)\n    {KILL_ONCE}"), range(20), 2, "ray"))
    assert (tmp_path / "killed").exists()
    assert [task for task, _ in results] == list(range(20))
    workers = {int(file.stem) for file in tmp_path.glob("*.start")}
    assert {worker for _, worker in results} <= workers and 2 <= len(workers) <= 3 and os.getpid() not in workers
    assert capfd.readouterr().out == ""


def test_with_ray_a_task_that_kills_every_worker_is_given_up(tmp_path, ray_of_two, monkeypatch):
    monkeypatch.setattr(workers, "_TRIES", 1)
    results = spread(started(tmp_path, "task == 7 and os.kill(os.getpid(), 9)"), range(20), 2, "ray")
    assert [next(results)[0] for _ in range(7)] == list(range(7))
    with pytest.raises(WorkerError, match="workers died over the same tasks"):
        next(results)


def test_without_ray_its_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r'pip install "dcgan-completion\[cluster\]"'):
        list(spread(lambda: print, [1], 1, "ray"))


def test_ray_address_names_the_cluster_and_results_need_not_all_be_awaited(ray_of_two, tmp_path):
    """A cluster's workers have the environment that the cluster was started in, and the folder of who asks."""
    program = (
        "import os; from align.workers import spread\n"
        "work = lambda name: (os.getenv(name), os.getcwd())\n"
        "results = spread(lambda: work, ['CLUSTER_OF_THE_TESTS'] * 99, 2, 'ray')\n"
        "print(next(results)); results.close(); print('closed')"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_ADDRESS": ray_of_two, "PYTHONPATH": str(PROJECT)},
    )
    assert (told.returncode, told.stdout) == (0, f"{('it is', str(tmp_path))}\nclosed\n"), told.stderr


def test_a_few_tasks_only_are_handed_out_ahead(monkeypatch):
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


def test_ray_of_one_s_own_ends_with_the_command(tmp_path):
    pytest.importorskip("ray")
    face = Image.fromarray(skimage.data.astronaut()[0:230, 110:340])
    (tmp_path / "raw").mkdir()
    face.save(tmp_path / "raw" / "0.png")
    for name in range(1, 2000):
        os.link(tmp_path / "raw" / "0.png", tmp_path / "raw" / f"{name}.png")
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
    assert all(np.asarray(Image.open(crop)).shape == (64, 64, 3) for crop in tmp_path.glob("aligned/*.png"))
    deadline = time.monotonic() + 20
    while members(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not members(str(tmp_path))


def members(family):
    """The processes that inherited a family's name."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FAMILY_OF_THE_TEST={family}".encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
        except OSError:  # another's, or gone
            pass
    return found
