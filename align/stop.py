"""SIGINT, SIGTERM and SIGHUP end a command once, with clean-up, in one line and within seconds.

Modules that run as commands call `listen` before any other import; this one imports nothing heavy.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_S = 4.0  # for clean-up; after that the process exits as it is
_RETRY_S = 0.05


class Stop(KeyboardInterrupt):
    """A signal has asked this process to stop.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_received: list[int] = []
_raising = _held = False


def listen(signals: tuple[int, ...] = SIGNALS, idle: Callable[[int], None] | None = None) -> None:
    """Handle signals from now on; the first counts, later ones are ignored.

    Inside of `raising`, it raises Stop; elsewhere there is nothing to clean up, and the process exits.

    Args:
        signals: numbers of the signals.
        idle: called with the number instead of the exit.
    """
    if signal.getsignal(signals[0]) is _handle:
        return
    global _idle
    _idle = idle or _exit
    # The system writes the number of a signal to this pipe at once, even while the main thread runs no Python.
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_enforce, args=(read, signals), daemon=True).start()
    sys.unraisablehook = _retry
    signal.signal(signal.SIGALRM, _attempt)
    for number in signals:
        signal.signal(number, _handle)


@contextmanager
def raising() -> Iterator[None]:
    """Raise Stop inside of this block when a signal arrives, so that clean-up code runs."""
    global _raising
    _raising = True
    try:
        yield
    finally:
        _raising = False


@contextmanager
def held() -> Iterator[None]:
    """Raise Stop only after this block, which starts processes; those block the signals that go to all of a group."""
    global _held
    _held = True
    # The mask alone would not do: it belongs to one thread, and another one can receive the signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _held = False


def ignore() -> None:
    """Ignore signals from now on: at its exit, Python would let them kill the process without its exit code."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _exit(number: int) -> None:
    with suppress(OSError):  # stderr is closed
        os.write(2, b"stopped\n")
    os._exit(128 + number)


_idle: Callable[[int], None] = _exit


def _handle(number: int, frame: FrameType | None) -> None:
    if not _raising:
        if not _received:
            _idle(number)
    elif not _received:
        _received.append(number)
        _attempt(number, frame)


def _attempt(_: int, frame: FrameType | None) -> None:
    # Inside of an extension module that is being imported, the exception could be printed or replaced by another.
    if _held or _importing(frame):
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
    elif _raising:
        raise Stop(_received[0])


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _retry(error: Any) -> None:
    """Raise Stop again if it was raised in a finaliser, which cannot pass it on."""
    if isinstance(error.exc_value, Stop):
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
    else:
        sys.__unraisablehook__(error)


def _enforce(pipe: int, signals: tuple[int, ...]) -> None:
    """Exit if it takes too long, and kill the worker processes; handlers other than `_handle` have all the time."""
    while (number := os.read(pipe, 1)[0]) not in signals:
        pass
    time.sleep(_GRACE_S)
    if not _received and signal.getsignal(number) is not _handle:
        return
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
    if _raising:
        _exit(number)
    os._exit(128 + number)
