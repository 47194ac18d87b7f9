"""Permissions: every decision as the plain reference has it."""

from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.permissions import Access, Globs, Grant
from tests.reference.permissions import matches, may_read, may_write

LETTERS = st.sampled_from("ABab .")
SYMBOLS = st.text(LETTERS, min_size=1, max_size=6)
PATTERNS = st.text(st.one_of(LETTERS, st.sampled_from("*?")), min_size=1, max_size=6)
LISTS = st.lists(PATTERNS, max_size=3).map(tuple)
FEEDS = st.sampled_from([("*",), ("quotes",), ("trades", "bars"), ()])
GRANTS = st.lists(st.builds(Grant, read=LISTS, write=LISTS, deny=LISTS, feeds=FEEDS), max_size=3)


@given(PATTERNS, SYMBOLS)
def test_a_pattern_matches_what_the_reference_does(pattern, symbol):
    assert (symbol in Globs([pattern])) == matches(pattern, symbol)


@given(GRANTS, st.sampled_from(["quotes", "trades"]), st.lists(SYMBOLS, max_size=5))
def test_what_may_be_read_and_written_is_what_the_reference_says(grants, feed, symbols):
    access = Access(grants)
    reader = access.reader(feed)
    for symbol in [*symbols, *symbols]:  # the second time, decisions are known
        can_read = reader is None or reader.can_read(symbol)
        assert can_read == may_read(grants, feed, symbol)
        assert access.can_write(symbol) == may_write(grants, symbol)
