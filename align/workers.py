"""Spread tasks over this process, several processes or Ray: one result for each task, in the order of the tasks."""

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
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeVar

import cv2

from align.errors import EngineError, WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")
Start = Callable[[], Callable[[Task], Result]]

# Tasks handed out ahead of the one whose result is awaited, for each process.
_AHEAD = 16
# Rows of tasks for each of Ray's workers. Results come row by row, a killed worker's row is done again, and each costs
# Ray some 20 ms.
_ROWS = 32
# How often Ray begins a row whose workers get killed.
_TRIES = 4


def spread(
    start: Start[Task, Result], tasks: Sequence[Task], jobs: int = 1, engine: str = "processes", gpu: bool = False
) -> Iterator[Result]:
    """Do tasks side by side.

    Args:
        start: runs once in each worker, before its first task, and returns the function that does one task. With
            several processes, and with Ray, it is pickled, and so are tasks and results.
        tasks: each may be done more than once by Ray, when its worker was killed.
        jobs: workers; a single process is this one.
        engine: "processes"; or "ray", which is the cluster of RAY_ADDRESS, or without it the cores of this machine. All
            machines of a cluster need the same packages, and the same files under the same paths.
        gpu: each worker of Ray's gets a GPU of its own instead of a core.
    Yields:
        one result per task, in their order. A task's exception, or that of `start`, is raised here.
    Raises:
        WorkerError: a process died; or, with Ray, those with the same tasks died time after time.
        EngineError: Ray is not installed.
    """
    jobs = min(jobs, len(tasks))
    if not tasks:
        return
    if engine == "ray":
        yield from _on_ray(start, tasks, jobs, gpu)
    elif jobs > 1:
        yield from _in_processes(start, tasks, jobs)
    else:
        yield from map(start(), tasks)


class _Worker(Generic[Task, Result]):
    """What a worker keeps from task to task; it starts with its first, so that an exception finds its way back."""

    def __init__(self, start: Start[Task, Result]) -> None:
        self._start = start
        cv2.setNumThreads(1)

    @cached_property
    def do(self) -> Callable[[Task], Result]:
        return self._start()


# Processes


def _in_processes(start: Start[Task, Result], tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    # Forked workers would inherit the state of OpenCV's and other threads; spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(jobs, context, _begin_process, (start, ended))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            # Ctrl-C reaches every process of a terminal, SIGTERM every one of a service; the workers inherit that both
            # are blocked, and leave them to us.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
            try:
                waiting.append(pool.submit(_do_in_process, task))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if len(waiting) > jobs * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        # The pool asks the other workers to terminate, a signal that they block, and waits for them, who wait for a
        # lock of the dead one's.
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.kill()
        raise WorkerError(
            "a worker process died, perhaps for want of memory; what was done so far is kept: "
            "run the same command again, or with fewer jobs"
        ) from error
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)


_worker: _Worker[Any, Any]
_ended: Event


def _begin_process(start: Start[Any, Any], ended: Event) -> None:
    global _worker, _ended
    _worker, _ended = _Worker(start), ended
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do_in_process(task: Any) -> Any:
    # The pool's queue holds a few tasks that it cannot cancel any more.
    return None if _ended.is_set() else _worker.do(task)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
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
        # Pickled, since a path that is no UTF-8 is no text to Arrow.
        size = math.ceil(len(tasks) / (jobs * _ROWS))
        rows = [{"first": at, "tasks": pickle.dumps(tasks[at : at + size])} for at in range(0, len(tasks), size)]
        tries = ray.remote(num_cpus=0)(_Tries).remote()
        # Ray starts killed actors again, and gives them their rows again, without end.
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(start, os.getcwd(), tries, _TRIES),
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
    """Do it while what Ray says of workers that died goes to stderr, since stdout is for a command's data."""
    with redirect_stdout(sys.stderr):
        return do(*args)


def _close(results: Any) -> None:
    results.close()
    # Ray Data waits two seconds for one of its threads and not at all for others, and a thread that asks something of
    # Ray when that has been shut down ends the process.
    for thread in threading.enumerate():
        if thread.name.startswith(("StreamingExecutor", "iter_threaded", "ray-data")):
            thread.join(timeout=30)


@contextmanager
def _ray(jobs: int) -> Iterator[Any]:
    """Ray as the caller has started it, or the cluster of RAY_ADDRESS, or one on this machine until the block ends."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError('the engine ray needs Ray; run: pip install "dcgan-completion[cluster]"') from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # which tells the time that every run took, and more
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
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own, with another exit code
        yield ray
    finally:
        _to_stderr(ray.shutdown)


class _Tries:
    """Counts how often each row was begun; an actor, since it outlives the workers."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def add(self, first: int) -> int:
        self._count[first] += 1
        return self._count[first]


class _Actor(_Worker[Any, Any]):
    """A worker for Ray Data, which maps rows to rows."""

    def __init__(self, start: Start[Any, Any], folder: str, tries: Any, most: int) -> None:
        super().__init__(start)
        self._tries, self._most = tries, most
        os.chdir(folder)  # relative paths mean here what they mean to the caller

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        outcomes: list[Any] = []
        try:
            if ray.get(self._tries.add.remote(row["first"])) > self._most:
                raise WorkerError(
                    f"{self._most} workers died over the same tasks, perhaps for want of memory; "
                    "what was done so far is kept"
                )
            for task in pickle.loads(row["tasks"]):
                outcomes.append(self.do(task))
        except Exception as error:  # raised where the result is awaited, as itself and not in Ray's wrapping
            outcomes.append(error)
        return {"outcomes": pickle.dumps(outcomes)}
