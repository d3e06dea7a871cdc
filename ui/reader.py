"""Photos are decoded, and their faces searched for, in processes of their own, which limits on time and memory end."""

import multiprocessing
import queue
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from align.cli import SIGNALS
from align.errors import InputError, NoFaceError, PhotoError
from align.photo import Photo, read_photo
from completion import FaceCompleter
from ui.config import Limits

# Each process takes 90 MB, and a second to start.
_PROCESSES = 2
_START_S = 120  # on a busy machine
# Beyond what a process takes after its start: a photo of 16 bits with alpha, its copies, the detector's pyramid.
_BYTES_PER_PIXEL, _SPARE_BYTES = 48, 2**28


def read_with_faces(path: Path, completer: FaceCompleter, limits: Limits, faces: bool = True) -> Photo:
    """Read a photo, which then remembers its faces, unless those are not asked for.

    Raises:
        PhotoError: the file cannot be read, or the photo is too large.
    """
    photo = read_photo(path, limits.max_pixels)
    with suppress(NoFaceError):
        if faces:
            completer.locate(photo, every=True)
    return photo


class Reader:
    """Reads photos as `read_with_faces` does, at most two at a time; a third waits.

    Args:
        completer: finds the faces.
        limits: the limits on pixels and on seconds.
    """

    def __init__(self, completer: FaceCompleter, limits: Limits) -> None:
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for _ in range(_PROCESSES):
            self._idle.put(_Process(completer, limits))

    def __call__(self, path: Path, faces: bool = True) -> Photo:
        """Read a photo; also raises PhotoError if that takes too much time or memory."""
        process = self._idle.get()
        try:
            return process.read(path, faces)
        finally:
            self._idle.put(process)


class _Process:
    """A process that reads one photo after the other; it starts with the first, and again after one that ended it."""

    def __init__(self, completer: FaceCompleter, limits: Limits) -> None:
        self._completer, self._limits = completer, limits
        self._process: Any = None
        self._pipe: Connection

    def read(self, path: Path, faces: bool) -> Photo:
        try:
            if self._process is None or not self._process.is_alive():
                self._start()
            self._pipe.send((path, faces))
            if not self._pipe.poll(self._limits.seconds):
                self._end()
                raise PhotoError(f"reading it took longer than {self._limits.seconds:g} s; reduce the photo")
            found = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise PhotoError("it cannot be read within the memory of a photo; save it anew as PNG") from error
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Photo)
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
            path, faces = pipe.recv()
        except EOFError:  # the page has ended
            return
        found: Photo | Exception
        try:
            found = read_with_faces(path, completer, limits, faces)
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
