"""Fair turns: which requests run now, and where the others stand in the queue."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ui.service import ServiceError

_SLOTS = 2  # requests that run at once, at most one of them large
_LOOK_S = 1.0  # a waiting request looks this often whether its visitor has left
_SECONDS = {False: 1.0, True: 20.0}  # first guess of the duration of a small and a large request


@dataclass(eq=False)
class Ticket:
    """A request that waits or runs."""

    visitor: str
    large: bool  # whether it takes long
    turn: int  # the waiting ticket with the least turn is next
    began: float | None = None  # when it started to run, by time.monotonic; None while it waits


class Place(NamedTuple):
    """A place in the queue."""

    ahead: int  # requests that run or come first
    seconds: float  # expected time until it is this request's turn


class Turns:
    """A queue in which visitors take turns: the second request of one comes after the first of every other.

    Large requests run one at a time and leave a slot to small ones, which therefore never wait for them.

    Args:
        waiting: most requests that wait.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting
        self._tickets: list[Ticket] = []
        self._turn = 0  # of the ticket that started last
        self._last: dict[str, int] = {}  # visitor -> turn of the last ticket
        self._changed = threading.Condition()
        self._seconds = dict(_SECONDS)

    @property
    def counts(self) -> tuple[int, int]:
        """Number of requests that run and that wait."""
        with self._changed:
            return len(self._running()), len(self._waiting())

    @contextmanager
    def ticket(self, visitor: str, large: bool) -> Iterator[Ticket]:
        """Queue a request; leaving the context gives its place to the next.

        Raises:
            ServiceError: the queue is full.
        """
        with self._changed:
            turn = max(self._turn, self._last.get(visitor, 0) + 1)
            ticket = Ticket(visitor, large, turn)
            self._tickets.append(ticket)
            self._start()
            if len(self._waiting()) > self._most:
                self._tickets.remove(ticket)
                raise ServiceError(f"the queue is full: {self._most} requests are waiting; try again in a minute")
            self._last = {who: last for who, last in self._last.items() if last >= self._turn} | {visitor: turn}
        try:
            yield ticket
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                if ticket.began is not None:
                    self._seconds[large] += (time.monotonic() - ticket.began - self._seconds[large]) / 4
                self._start()

    def places(self, ticket: Ticket) -> Iterator[Place]:
        """Wait for the turn of a ticket; meanwhile, yield its place about once a second."""
        while True:
            with self._changed:
                if ticket.began is not None:
                    return
                place = self._place(ticket)
            yield place
            with self._changed:
                self._changed.wait_for(lambda: ticket.began is not None, _LOOK_S)

    def _start(self) -> None:
        while (ticket := self._next()) is not None:
            ticket.began = time.monotonic()
            self._turn = max(self._turn, ticket.turn)
        self._changed.notify_all()

    def _running(self) -> list[Ticket]:
        return [ticket for ticket in self._tickets if ticket.began is not None]

    def _waiting(self) -> list[Ticket]:
        """The tickets that wait, in the order of their turns."""
        return sorted((ticket for ticket in self._tickets if ticket.began is None), key=lambda ticket: ticket.turn)

    def _next(self) -> Ticket | None:
        """The ticket that may start now."""
        running = self._running()
        if len(running) >= _SLOTS:
            return None
        busy = any(ticket.large for ticket in running)
        return next((ticket for ticket in self._waiting() if not (ticket.large and busy)), None)

    def _place(self, ticket: Ticket) -> Place:
        waiting = self._waiting()
        before = [*self._running(), *waiting[: waiting.index(ticket)]]
        if not ticket.large:  # large ones leave a slot
            before = [other for other in before if not other.large]
        return Place(len(before), sum(self._seconds[other.large] for other in before) / _SLOTS)
