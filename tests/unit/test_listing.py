"""Arrays of everything: encoded in turns, once for all who ask between two changes."""

from __future__ import annotations

import asyncio

from mdtool.services.gateway.listing import Listing


class Rows:
    """Numbers, each encoded as often as it is asked for."""

    def __init__(self, n: int) -> None:
        self.values = dict.fromkeys(range(n), 0)
        self.encoded = 0
        self.listing = Listing(lambda: sorted(self.values), self._row)

    def _row(self, key: int) -> tuple[bytes, bool]:
        self.encoded += 1
        return b"%d" % self.values[key], self.values[key] < 0

    def change(self, key: int, value: int) -> None:
        self.values[key] = value
        self.listing.forget()


async def test_an_array_is_kept_until_a_row_changes():
    rows = Rows(3)
    assert await rows.listing.read() == await rows.listing.read() == (b"[0,0,0]", False)
    assert rows.encoded == 3
    rows.change(1, -7)
    assert await rows.listing.read() == (b"[0,-7,0]", True)
    assert rows.encoded == 6


async def test_nothing_is_an_empty_array():
    assert await Rows(0).listing.read() == (b"[]", False)


async def test_others_have_their_turn_and_what_they_change_is_told_next_time_at_the_latest():
    rows = Rows(1_000)
    reading = asyncio.create_task(rows.listing.read())
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 2:  # the first rows are encoded, the last ones are not
            assert 0 < rows.encoded < 1_000
            rows.change(0, 1)
            rows.change(999, 2)
    assert turns > 3
    body, _ = reading.result()
    assert (body[:3], body[-3:]) == (b"[0,", b",2]")
    body, _ = await rows.listing.read()
    assert (body[:3], body[-3:]) == (b"[1,", b",2]")
