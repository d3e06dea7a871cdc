"""The order in which requests run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ui.service import ServiceError
from ui.turns import Ticket, Turns


@pytest.fixture
def leave() -> Iterator[dict[Ticket, ExitStack]]:
    """For each ticket, what ends its context."""
    stacks: dict[Ticket, ExitStack] = {}
    yield stacks
    for stack in stacks.values():
        stack.close()


@pytest.fixture
def ask(leave: dict[Ticket, ExitStack]) -> Callable[..., Ticket]:
    def asked(turns: Turns, visitor: str, large: bool = False) -> Ticket:
        stack = ExitStack()
        ticket = stack.enter_context(turns.ticket(visitor, large))
        leave[ticket] = stack
        return ticket

    return asked


def test_two_requests_run_at_once_and_the_next_starts_when_one_ends(
    ask: Callable[..., Ticket], leave: dict[Ticket, ExitStack]
) -> None:
    turns = Turns(16)
    first, second, third = (ask(turns, name) for name in ("anna", "bert", "carl"))
    assert first.began and second.began and not third.began and turns.counts == (2, 1)
    assert next(turns.places(third)).ahead == 2
    leave[second].close()
    assert third.began and turns.counts == (2, 0) and list(turns.places(third)) == []


def test_large_requests_run_one_at_a_time_and_leave_a_place_to_small_ones(
    ask: Callable[..., Ticket], leave: dict[Ticket, ExitStack]
) -> None:
    turns = Turns(16)
    first, second = ask(turns, "anna", large=True), ask(turns, "bert", large=True)
    assert first.began and not second.began
    small = ask(turns, "carl")
    assert small.began and not second.began
    waiting = ask(turns, "dora")
    place, behind = next(turns.places(waiting)), next(turns.places(second))
    assert place.ahead == 1 and behind.ahead == 2 and place.seconds < behind.seconds
    leave[first].close()
    assert second.began and not waiting.began


def test_visitors_take_turns(ask: Callable[..., Ticket], leave: dict[Ticket, ExitStack]) -> None:
    turns = Turns(16)
    running = [ask(turns, "anna"), ask(turns, "anna")]
    annas = [ask(turns, "anna") for _ in range(3)]
    bert, carl = ask(turns, "bert"), ask(turns, "carl")
    assert [next(turns.places(ticket)).ahead for ticket in (bert, carl, *annas)] == [2, 3, 4, 5, 6]
    for ticket in running:
        leave[ticket].close()
    assert bert.began and carl.began and not any(ticket.began for ticket in annas)


def test_a_full_queue_refuses_the_next_and_keeps_those_who_wait(
    ask: Callable[..., Ticket], leave: dict[Ticket, ExitStack]
) -> None:
    turns = Turns(1)
    running, waiting = [ask(turns, "anna"), ask(turns, "bert")], ask(turns, "carl")
    with pytest.raises(ServiceError, match="the queue is full: 1"):
        ask(turns, "dora")
    leave[running[0]].close()
    assert waiting.began and turns.counts == (2, 0)


def test_one_who_leaves_the_queue_makes_room(ask: Callable[..., Ticket], leave: dict[Ticket, ExitStack]) -> None:
    turns = Turns(2)
    running = [ask(turns, "anna"), ask(turns, "bert")]
    left, last = ask(turns, "carl"), ask(turns, "dora")
    leave[left].close()
    assert next(turns.places(last)).ahead == len(running)


def test_the_expected_time_follows_what_requests_took(
    ask: Callable[..., Ticket], leave: dict[Ticket, ExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    turns = Turns(16)
    for _ in range(40):
        ticket = ask(turns, "anna")
        clock[0] += 8
        leave[ticket].close()
    ask(turns, "anna")
    ask(turns, "bert")
    assert next(turns.places(ask(turns, "carl"))).seconds == pytest.approx(8, abs=0.1)
