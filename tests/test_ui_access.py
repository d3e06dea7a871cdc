"""Budgets of visitors."""

import pytest

from ui.access import Budget, visitor_of


def test_a_budget_is_reserved_given_back_and_fills_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    budget, held = Budget(10, 60), Budget(2)
    assert budget.take("anna", 10) and not budget.take("anna", 1) and budget.take("bert", 5)
    clock[0] = 30
    assert (budget.left("anna"), budget.left("bert"), budget.left("carl")) == (5, 10, 10)
    assert budget.take("anna", 5) and not budget.take("anna", 0.1)
    assert held.take("anna") and held.take("anna") and not held.take("anna")
    clock[0] = 1e6
    assert not held.take("anna")
    held.give_back("anna")
    assert held.take("anna") and not held.take("anna")
    monkeypatch.setattr("ui.access._MOST_VISITORS", 3)
    for number in range(1000):
        clock[0] += 60
        assert budget.take(f"visitor {number}")
    assert len(budget._left) <= 4


def test_a_network_of_ipv6_addresses_is_one_visitor() -> None:
    assert visitor_of("2001:db8:1:2::7") == visitor_of("2001:db8:1:2:ffff::1") != visitor_of("2001:db8:1:3::7")
    assert visitor_of("::ffff:10.0.0.1") == visitor_of("10.0.0.1") != visitor_of("10.0.0.2")
