"""Photos are decoded, and faces searched for, in processes of their own, which limits on time and memory end."""

import queue
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.errors import NoFaceError, PhotoError
from align.parallel import Pool
from align.photo import Photo, read_photo
from align.warp import Alignment
from completion import FaceCompleter
from completion.references import Reference, find_in
from ui.config import Limits

Work = Callable[..., Any]

# Each process takes 90 MB, and a second to start.
_PROCESSES = 2
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
        self._start, self._seconds = partial(_limited, completer, limits), limits.seconds
        self._idle: queue.SimpleQueue[Pool] = queue.SimpleQueue()
        for _ in range(_PROCESSES):
            self._idle.put(Pool(self._start, 1))

    def __call__(self, work: Work, *words: Any) -> Any:
        """Do one of the functions above; also raises TooSlowError, and PhotoError if it takes too much memory."""
        pool = self._idle.get()
        if pool.dead:  # as memory was short, perhaps
            pool.end()
            pool = Pool(self._start, 1)
        try:
            pool.run((_nothing, ())).result()  # the start of its process does not count
            return pool.run((work, words)).result(self._seconds)
        except (TimeoutError, BrokenProcessPool, MemoryError) as error:
            pool.end()
            pool = Pool(self._start, 1)
            if isinstance(error, TimeoutError):
                raise TooSlowError(f"reading it took longer than {self._seconds:g} s; reduce the photo") from error
            raise PhotoError("it cannot be read within the memory of a photo; save it anew as PNG") from error
        finally:
            self._idle.put(pool)


def _nothing(completer: FaceCompleter, limits: Limits) -> None:
    pass


def _limited(completer: FaceCompleter, limits: Limits) -> Callable[[tuple[Work, tuple[Any, ...]]], Any]:
    _limit_memory(_SPARE_BYTES + _BYTES_PER_PIXEL * limits.max_pixels)
    return lambda piece: piece[0](completer, limits, *piece[1])


def _limit_memory(more: int) -> None:
    """Let the memory of this process grow by so many bytes only, where the system can."""
    with suppress(ImportError, OSError, ValueError, StopIteration):
        import resource

        lines = Path("/proc/self/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (1024 * kib + more,) * 2)
