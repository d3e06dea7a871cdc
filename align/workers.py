"""Run tasks in this process, in several processes or on a Ray cluster, with results in the order of the tasks."""

import logging
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

import cv2

from align import stop
from align.config import cores
from align.errors import EngineError, WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")
Start = Callable[[], Callable[[Task], Result]]

# Tasks per process that are submitted ahead of the next result.
_AHEAD = 16
_END_S = 1.0  # for workers to end their tasks, which Python cannot interrupt everywhere
# More processes would only take memory.
_PER_CORE = 2
# Rows of tasks per Ray worker. Ray returns results and retries by the row, and a row costs about 20 ms.
_ROWS = 32
# How often Ray starts a row before it is given up because its workers die.
TRIES = 4


def spread(
    start: Start[Task, Result], tasks: Sequence[Task], jobs: int = 1, engine: str = "processes", gpu: bool = False
) -> Iterator[Result]:
    """Run tasks in parallel.

    Args:
        start: called once per worker, before its first task; returns the function that runs a task. It is pickled,
            like tasks and results, unless there is only this process.
        tasks: the tasks. Ray may run one more than once, if its worker is killed.
        jobs: number of workers, of which at most two processes per core are started; 1 runs everything in this
            process, unless the engine is Ray.
        engine: "processes" on this machine, or "ray": the cluster at RAY_ADDRESS or, without that, a local Ray. All
            machines of a cluster need the same packages and the same files under the same paths.
        gpu: reserve a GPU instead of a core for each Ray worker.
    Yields:
        One result per task, in order. Exceptions of `start` and of tasks are raised here.
    Raises:
        WorkerError: a process died; with Ray, workers died repeatedly over the same tasks.
        EngineError: Ray is not installed.
    """
    jobs = min(jobs, len(tasks))
    if engine == "processes":
        jobs = min(jobs, _PER_CORE * cores())
    if not tasks:
        return
    if engine == "ray":
        yield from _on_ray(start, tasks, jobs, gpu)
    elif jobs > 1:
        yield from _in_processes(start, tasks, jobs)
    else:
        yield from map(start(), tasks)


class _Worker(Generic[Task, Result]):
    """The state of a worker. `start` runs with the first task, so that its exception is raised like that of a task."""

    def __init__(self, start: Start[Task, Result]) -> None:
        self._start = start
        cv2.setNumThreads(1)

    @cached_property
    def do(self) -> Callable[[Task], Result]:
        return self._start()


# Processes


def _in_processes(start: Start[Task, Result], tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    # Forked workers would inherit the state of other threads, such as OpenCV's.
    context = multiprocessing.get_context("spawn")
    with stop.held():
        ended = context.Event()
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(jobs, context, _begin_process, (start, ended))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            with stop.held():
                waiting.append(pool.submit(_do_in_process, task))
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        # The pool would send SIGTERM, which only ends tasks, and wait for the workers while they wait for a lock that
        # the dead worker holds.
        _kill(others)
        raise WorkerError(
            "a worker process died, possibly out of memory; finished results are kept: "
            "run the same command again, perhaps with fewer jobs"
        ) from error
    finally:
        ended.set()
        last = threading.Timer(_END_S, _kill, [others])
        last.start()
        if waiting:
            for worker in _workers(others):
                worker.terminate()  # only ends its task
        pool.shutdown(cancel_futures=True)
        last.cancel()


def _workers(others: Sequence[BaseProcess]) -> list[BaseProcess]:
    return [worker for worker in multiprocessing.active_children() if worker not in others]


def _kill(others: Sequence[BaseProcess]) -> None:
    for worker in _workers(others):
        worker.kill()


_worker: _Worker[Any, Any]
_ended: Event


def _begin_process(start: Start[Any, Any], ended: Event) -> None:
    global _worker, _ended
    _worker, _ended = _Worker(start), ended
    stop.listen((signal.SIGTERM,), idle=lambda number: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do_in_process(task: Any) -> Any:
    # The pool cannot cancel the few tasks that are already in its queue.
    with stop.raising():
        return None if _ended.is_set() else _worker.do(task)


def _end_with_parent() -> None:
    """Exit when the parent process is killed; otherwise the worker would wait forever for its next task."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# Ray


def _on_ray(start: Start[Task, Result], tasks: Sequence[Task], jobs: int, gpu: bool) -> Iterator[Result]:
    with _ray(jobs) as ray:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        # Pickled, because Arrow rejects paths that are not valid UTF-8.
        size = math.ceil(len(tasks) / (jobs * _ROWS))
        rows = [{"first": at, "tasks": pickle.dumps(tasks[at : at + size])} for at in range(0, len(tasks), size)]
        tries = ray.remote(num_cpus=0)(_Tries).remote()
        # Ray itself would restart killed actors and retry their rows without limit.
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(start, os.getcwd(), tries, TRIES),
            compute=ray.data.ActorPoolStrategy(size=jobs),
            **({"num_gpus": 1} if gpu else {"num_cpus": 1}),
        )
        results = iter(done.iter_rows())
        try:
            while row := _to_stderr(next, results, None):
                for outcome in pickle.loads(row["outcomes"]):
                    if isinstance(outcome, Exception):
                        raise outcome
                    yield outcome
        finally:
            _to_stderr(_close, results)


def _to_stderr(do: Callable[..., Any], *args: Any) -> Any:
    """Call a function with stdout redirected to stderr: Ray prints to stdout, which is for a command's results."""
    with redirect_stdout(sys.stderr):
        return do(*args)


def _close(results: Any) -> None:
    results.close()
    # Ray Data barely waits for its threads, and a thread that calls Ray after the shutdown kills the process.
    for thread in threading.enumerate():
        if thread.name.startswith(("StreamingExecutor", "iter_threaded", "ray-data")):
            thread.join(timeout=30)


@contextmanager
def _ray(jobs: int) -> Iterator[Any]:
    """The running Ray, else the cluster at RAY_ADDRESS, else a local Ray that is shut down at the end of the block."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError('Ray is not installed; run in the project folder: pip install -e ".[cluster]"') from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs statistics of every run
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it by one with another exit code
        yield ray
    finally:
        _to_stderr(ray.shutdown)


class _Tries:
    """An actor that counts how often each row was started; it outlives the workers."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def add(self, first: int) -> int:
        self._count[first] += 1
        return self._count[first]


class _Actor(_Worker[Any, Any]):
    """A worker for Ray Data, which maps a row of tasks to a row of results or exceptions."""

    def __init__(self, start: Start[Any, Any], folder: str, tries: Any, most: int) -> None:
        super().__init__(start)
        self._tries, self._most = tries, most
        os.chdir(folder)  # relative paths are relative to the caller's folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        outcomes: list[Any] = []
        try:
            if ray.get(self._tries.add.remote(row["first"])) > self._most:
                raise WorkerError(
                    f"{self._most} workers died over the same tasks, possibly out of memory; "
                    "finished results are kept: run the same command again, perhaps with fewer jobs"
                )
            for task in pickle.loads(row["tasks"]):
                outcomes.append(self.do(task))
        except Exception as error:  # raised by the caller, without Ray's wrapper
            outcomes.append(error)
        return {"outcomes": pickle.dumps(outcomes)}
