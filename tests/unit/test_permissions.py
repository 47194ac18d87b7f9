"""Roles, permission classes, and what is not a valid grant."""

import pytest

from mdtool.core.errors import ConfigError
from mdtool.core.permissions import EVERYTHING, NOTHING, Access, Globs, Grant, GrantError, Roles


@pytest.mark.parametrize("symbol", ["aapl", "Aapl", "AAPL ", " AAPL", "AAPL\0", "AAPLX", "AAP", ""])
def test_what_differs_from_an_allowed_symbol_in_any_way_is_not_allowed(symbol):
    reader = Access.of([Grant(read=("AAPL",))]).reader("quotes")
    assert reader.can_read("AAPL")
    assert not reader.can_read(symbol)


@pytest.mark.parametrize("symbol", ["AAPL", "aapl", "AAPL ", " Aapl"])
def test_what_differs_from_a_denied_symbol_by_case_or_space_is_denied_too(symbol):
    access = Access.of([Grant(read=("*",), write=("*",)), Grant(deny=("aapl ",))])
    assert not access.reader("quotes").can_read(symbol)
    assert not access.can_write(symbol)
    assert access.can_write("MSFT")


def test_a_role_of_some_feeds_adds_no_feeds_to_another_role():
    access = Access.of(
        [Grant(read=("AAPL",), feeds=("quotes",)), Grant(read=("MSFT",), feeds=("trades",))]
    )
    assert access.reader("quotes").can_read("AAPL")
    assert not access.reader("quotes").can_read("MSFT")
    assert not access.reader("trades").can_read("AAPL")
    assert not access.has_feed("bars")


def test_equal_grants_are_one_permission_class_and_a_decision_is_made_once():
    grants = [Grant(read=("A*",)), Grant(read=("B*",))]
    access = Access.of(grants)
    assert Access.of(reversed(grants)) is access
    assert access.reader("quotes") is access.reader("quotes")
    assert EVERYTHING.reader("quotes") is None
    assert EVERYTHING.writes_all
    assert not NOTHING.reader("quotes").can_read("A")
    assert not NOTHING.can_write("A")


def test_patterns_of_many_stars_come_to_an_end():
    # Backtracking would take longer than the universe.
    symbol = "A" * 69 + "B"
    assert symbol not in Globs(["*A" * 120 + "C"])
    assert symbol not in Globs(["*?" * 120])
    assert symbol in Globs(["*A" * 30 + "*"])


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"read": "AAPL"}, "expects a list"),
        ({"read": [""]}, "1 to 256 characters"),
        ({"read": ["*" * 1_000]}, "1 to 256 characters"),
        ({"read": ["A"] * 1_001}, "at most 1,000"),
        ({"read": [1]}, "1 to 256 characters"),
        ({"reads": ["A"]}, "no such permission"),
        ({"rights": ["root"]}, "no such right"),
        ({"quota": ["gold"]}, "1 to 256 characters"),
        ("AAPL", "expects a table"),
    ],
)
def test_what_is_not_a_grant_is_refused(table, reason):
    with pytest.raises(GrantError, match=reason):
        Grant.parse(table)
    with pytest.raises(ConfigError, match=r"roles\.desk"):
        Roles({"desk": table})


def test_a_principal_has_its_roles_together_and_unknown_ones_give_nothing():
    roles = Roles({"a": {"read": ["A"]}, "b": {"read": ["B"], "quota": "gold"}})
    principal = roles.principal("key:x", ["b", "a", "of-another-system"])
    reader = principal.access.reader("quotes")
    assert [reader.can_read(symbol) for symbol in "ABC"] == [True, True, False]
    assert principal.quota == "gold"
    assert roles.principal("key:x", []).access is NOTHING
    own = roles.principal("sub:x", ["b"], Grant(deny=("B",), quota="tin"))
    assert not own.access.reader("quotes").can_read("B")
    assert own.quota == "tin"
