"""Run tasks in this process, in several processes or on a Ray cluster, with results in the order of the tasks."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import Any, TypeVar

import cv2

from align.config import cores
from align.errors import BackendError, WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks per process that are submitted ahead of the next result.
_AHEAD = 16
# More processes would only take memory.
_PER_CORE = 2
# How often Ray starts a task again whose worker died.
RETRIES = 3


def parallel_map(
    start: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    jobs: int = 1,
    backend: str = "processes",
    gpu: bool = False,
) -> Iterator[Result]:
    """Run tasks in parallel, and yield one result per task, in order.

    Exceptions of `start` and of tasks are raised here. Closing the iterator kills the workers.

    Args:
        start: called once per worker, before its first task; returns the function that runs a task. It is pickled,
            like tasks and results, unless there is only this process.
        tasks: the tasks. Ray may run one more than once, if its worker is killed.
        jobs: number of workers, of which at most two processes per core are started; 1 runs everything in this
            process, unless the backend is Ray.
        backend: "processes" on this machine, or "ray": the cluster at RAY_ADDRESS or, without that, a local Ray. All
            machines of a cluster need the same packages and the same files under the same paths.
        gpu: reserve a GPU instead of a core for each Ray worker.
    Raises:
        WorkerError: a process died; with Ray, workers died repeatedly over the same task.
        BackendError: Ray is not installed.
    """
    jobs = min(jobs, len(tasks))
    if not tasks:
        return
    if backend == "ray":
        yield from _on_ray(start, tasks, jobs, gpu)
    elif jobs > 1:
        yield from _in_processes(start, tasks, min(jobs, _PER_CORE * cores()))
    else:
        yield from map(start(), tasks)


# Processes. joblib does not serve: it prints a traceback after a task's exception and a warning after an interrupt, it
# cannot stream results from Ray, and it takes 0.2 s to import.


class Pool(ProcessPoolExecutor):
    """Processes that end with this one, and that `end` ends in the middle of their tasks; see `parallel_map`."""

    def __init__(self, start: Callable[[], Any], jobs: int) -> None:
        with _shielded():
            # Forked workers would inherit the state of other threads, such as OpenCV's.
            super().__init__(jobs, multiprocessing.get_context("spawn"), _begin, (start,))

    @property
    def dead(self) -> bool:
        """Whether a process has died, so that no task can be run."""
        return not all(worker.is_alive() for worker in [*(self._processes or {}).values()])

    def run(self, task: Any) -> Future[Any]:
        """Run a task."""
        with _shielded():
            return self.submit(_do, task)

    def end(self) -> None:
        """End the processes, although it may be minutes before their tasks end."""
        for worker in [*(self._processes or {}).values()]:
            worker.kill()
        self.shutdown(cancel_futures=True)


def _in_processes(start: Callable[[], Any], tasks: Sequence[Any], jobs: int) -> Iterator[Any]:
    pool = Pool(start, jobs)
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.run(task))
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process died, possibly out of memory; finished results are kept: "
            "run the same command again, perhaps with fewer jobs"
        ) from error
    finally:
        pool.end()


@contextmanager
def _shielded() -> Iterator[None]:
    """Start processes that inherit that the signals that a terminal sends to all of a command are blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_start: Callable[[], Callable[[Any], Any]]


def _begin(start: Callable[[], Any]) -> None:
    global _start
    # Called with the first task, so that its exception is raised like that of a task.
    _start = cache(start)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(task: Any) -> Any:
    return _start()(task)


def _end_with_parent() -> None:
    """Exit when the parent process is killed; otherwise the worker would wait forever for its next task."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


# Ray


class _Actor:
    """A worker on Ray."""

    def __init__(self, start: Callable[[], Any], folder: str) -> None:
        os.chdir(folder)  # relative paths are relative to the caller's folder
        cv2.setNumThreads(1)
        self._start = cache(start)  # see `_begin`

    def do(self, task: Any) -> Any:
        return self._start()(task)


def _on_ray(start: Callable[[], Any], tasks: Sequence[Any], jobs: int, gpu: bool) -> Iterator[Any]:
    with _ray(jobs) as ray:
        # Ray itself starts killed workers and their tasks again.
        options = {"max_restarts": -1, "max_task_retries": RETRIES, **({"num_gpus": 1} if gpu else {"num_cpus": 1})}
        workers = [ray.remote(_Actor).options(**options).remote(start, os.getcwd()) for _ in range(jobs)]
        results = ray.util.ActorPool(workers).map(lambda worker, task: worker.do.remote(task), tasks)
        try:
            for _ in tasks:
                with redirect_stdout(sys.stderr):  # Ray prints notices; stdout is for a command's results
                    result = next(results)
                yield result
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise WorkerError(
                f"{RETRIES + 1} workers died over the same task, possibly out of memory; "
                "finished results are kept: run the same command again, perhaps with fewer jobs"
            ) from error
        finally:
            with redirect_stdout(sys.stderr):
                for worker in workers:
                    ray.kill(worker)


@contextmanager
def _ray(jobs: int) -> Iterator[Any]:
    """The running Ray, else the cluster at RAY_ADDRESS, else a local Ray that is shut down at the end of the block."""
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise BackendError('Ray is not installed; run in the project folder: pip install -e ".[cluster]"') from error
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(sys.stderr):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it by one with another exit code
        yield ray
    finally:
        with redirect_stdout(sys.stderr):
            ray.shutdown()
