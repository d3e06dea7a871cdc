"""Photos are decoded, and faces searched for, in processes of their own, which limits on time and memory end."""

import multiprocessing
import queue
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.cli import SIGNALS
from align.errors import InputError, NoFaceError, PhotoError
from align.photo import Photo, read_photo
from align.warp import Alignment
from completion import FaceCompleter
from completion.references import Reference, find_in
from ui.config import Limits

Work = Callable[..., Any]

# Each process takes 90 MB, and a second to start.
_PROCESSES = 2
_START_S = 120  # on a busy machine
# Beyond what a process takes after its start: a photo of 16 bits with alpha, its copies, the detector's pyramid.
_BYTES_PER_PIXEL, _SPARE_BYTES = 48, 2**28


class TooSlowError(PhotoError, TimeoutError):
    """Work on a photo took longer than the limit."""


# What is done in these processes: the first two arguments are theirs, the others come from the page.


def read(completer: FaceCompleter, limits: Limits, path: Path) -> Photo:
    """Read a photo; raises PhotoError if it cannot be read or is too large."""
    return read_photo(path, limits.max_pixels)


def read_with_faces(completer: FaceCompleter, limits: Limits, path: Path) -> Photo:
    """Read a photo, which then remembers its faces; see `read`."""
    photo = read(completer, limits, path)
    with suppress(NoFaceError):
        completer.locate(photo, every=True)
    return photo


def read_reference(completer: FaceCompleter, limits: Limits, path: Path) -> list[Reference]:
    """The faces in a reference photo; see `read`."""
    return find_in(path, limits.max_pixels)


def search(
    completer: FaceCompleter, limits: Limits, pixels: NDArray[np.uint8], hole: NDArray[np.bool_]
) -> tuple[list[Alignment], int]:
    """The faces under a hole, see `FaceCompleter.locate_under`."""
    return completer.locate_under(pixels, hole)


class Reader:
    """Does the work above, at most two pieces at a time; a third waits.

    Args:
        completer: finds the faces.
        limits: the limits on pixels and on seconds.
    """

    def __init__(self, completer: FaceCompleter, limits: Limits) -> None:
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for _ in range(_PROCESSES):
            self._idle.put(_Process(completer, limits))

    def __call__(self, work: Work, *words: Any) -> Any:
        """Do one of the functions above; also raises TooSlowError, and PhotoError if it takes too much memory."""
        process = self._idle.get()
        try:
            return process.do(work, *words)
        finally:
            self._idle.put(process)


class _Process:
    """A process that does one piece after the other; it starts with the first, and again after one that ended it."""

    def __init__(self, completer: FaceCompleter, limits: Limits) -> None:
        self._completer, self._limits = completer, limits
        self._process: Any = None
        self._pipe: Connection

    def do(self, work: Work, *words: Any) -> Any:
        try:
            if self._process is None or not self._process.is_alive():
                self._start()
            self._pipe.send((work, words))
            found: Any = TooSlowError(f"reading it took longer than {self._limits.seconds:g} s; reduce the photo")
            if self._pipe.poll(self._limits.seconds):
                found = self._pipe.recv()
            else:
                self._end()
        except (EOFError, OSError) as error:
            self._end()
            raise PhotoError("it cannot be read within the memory of a photo; save it anew as PNG") from error
        if isinstance(found, Exception):
            raise found
        return found

    def _start(self) -> None:
        # Forked processes would inherit locks of other threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._completer, self._limits), daemon=True)
        process.start()
        self._process = process
        theirs.close()
        if not self._pipe.poll(_START_S):
            self._end()
            raise PhotoError("the machine is busy; try again in a minute")
        self._pipe.recv()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, completer: FaceCompleter, limits: Limits) -> None:
    for number in {*SIGNALS} - {signal.SIGTERM}:  # of the terminal: the page ends this process by SIGTERM
        signal.signal(number, signal.SIG_IGN)
    _limit_memory(_SPARE_BYTES + _BYTES_PER_PIXEL * limits.max_pixels)
    pipe.send("ready")
    while True:
        try:
            work, words = pipe.recv()
        except EOFError:  # the page has ended
            return
        try:
            found = work(completer, limits, *words)
        except InputError as error:
            found = error
        except MemoryError:
            found = PhotoError("it cannot be read within the memory of a photo; save it anew as PNG")
        pipe.send(found)


def _limit_memory(more: int) -> None:
    """Let the memory of this process grow by so many bytes only, where the system can."""
    with suppress(ImportError, OSError, ValueError, StopIteration):
        import resource

        lines = Path("/proc/self/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (1024 * kib + more,) * 2)
