"""Frames drawn: what stands where, at any size."""

# ruff: noqa: RUF001 - the signs that are drawn

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from mdtool.cli.live.drawing import MIN_COLUMNS, MIN_LINES, Layout, draw
from mdtool.cli.live.frame import Frame, Ladder, Level, LiveRates, Print, State
from mdtool.cli.screen import ASCII, UNICODE
from mdtool.core.units import PRICE_SCALE, UNDEF_ORDER_SIZE, UNDEF_PRICE, UNDEF_TIMESTAMP

CENT = PRICE_SCALE // 100
NOON = 1_758_715_200_123_456_789

LADDER = Ladder(
    bids=tuple(Level((6483 - i) * CENT, 12 - i % 9, 3 + i) for i in range(40)),
    asks=tuple(Level((6484 + i) * CENT, 1234 + i, 1) for i in range(40)),
    prints=tuple(Print(NOON - i * 10**9, 6484 * CENT, 1 + i, "BAN"[i % 3]) for i in range(50)),
    bid_levels=61,
    ask_levels=52,
    orders=147,
    records=38_212,
    trades=1_599,
    volume=3_613,
    is_partial=False,
    anomalies=(),
)
FRAME = Frame(
    symbol="CLX5",
    place=1,
    books=1,
    dataset="GLBX.MDP3",
    speed=10.0,
    clock_ns=NOON,
    progress=0.5,
    rates=LiveRates(records=900.0, shown=123.4, trades=5.0, volume=20.0, pace=10.0),
    ladder=LADDER,
)


def changed(frame: Frame = FRAME, ladder: dict | None = None, **values) -> Frame:
    return dataclasses.replace(
        frame, ladder=dataclasses.replace(LADDER, **(ladder or {})), **values
    )


def lines_of(frame: Frame, columns: int = 80, lines: int = 24, **options) -> list[str]:
    layout = Layout.of(columns, lines)
    return [line.plain for line in draw(frame, layout, UNICODE, **options)]


def page_of(frame: Frame, columns: int = 80, lines: int = 24, **options) -> str:
    return "\n".join(lines_of(frame, columns, lines, **options))


def words(line: str) -> str:
    """Return a line without its bars and with single spaces."""
    return " ".join(word for word in line.split() if not set(word) <= set("╺━╸"))


def styles_at(line: Text, text: str) -> set[str]:
    at = line.plain.index(text)
    return {str(span.style) for span in line.spans if span.start <= at < span.end}


def test_eighty_by_twenty_four():
    lines = lines_of(FRAME)
    assert lines[0].split() == [
        "CLX5",
        "GLBX.MDP3",
        "2025-09-24",
        "12:00:00.123",
        "UTC",
        "►",
        "10×",
    ]
    assert lines[1] == "━" * 40 + "─" * 40
    assert words(lines[2]) == "spread 0.01 last 64.84 ▲ mid 64.835"
    assert words(lines[3]) == "orders size bid │ ask size orders"
    assert lines[4].split() == [
        "3",
        "12",
        "╺",
        "64.83",
        "│",
        "64.84",
        lines[4].split()[6],
        "1,234",
        "1",
    ]
    assert lines[15].split()[3] == "64.72"
    assert lines[16].startswith("─ last trades ──")
    assert words(lines[17]) == "12:00:00.123 ▲ 64.84 1 │ records 38,212 123/s"
    assert lines[18].split()[:4] == ["11:59:59.123", "▼", "64.84", "2"]
    assert lines[20].split()[5:] == ["orders", "147", "61+52", "levels"]
    assert lines[21].split()[5:] == ["anomalies", "none"]
    assert words(lines[23]) == "space pause s step + - speed h help q quit"


@given(
    st.integers(0, 250),
    st.integers(0, 80),
    st.sampled_from(State),
    st.booleans(),
    st.booleans(),
    st.sampled_from([UNICODE, ASCII]),
)
def test_a_frame_fills_a_terminal_of_any_size(columns, lines, state, is_help, is_empty, signs):
    crowded = changed(
        state=state,
        books=12,
        publisher_id=43,
        is_live=True,
        lag_ns=10**9,
        notice="x" * 300,
        ladder={
            "is_partial": True,
            "bids": tuple(Level(10**17 + i, 10**12, 10**7) for i in range(99)),
            "anomalies": tuple((f"kind_{i}", 10**9 - i) for i in range(10)),
        },
        decimals=9,
    )
    frame = Frame() if is_empty else crowded
    drawn = draw(frame, Layout.of(columns, lines), signs, is_help=is_help)
    assert [line.cell_len for line in drawn] == [columns] * lines


@given(st.integers(MIN_COLUMNS, 200), st.integers(MIN_LINES, 60))
def test_no_number_is_shown_in_part(columns, lines):
    """Whatever the size, a number on the screen is one of those of the frame, whole."""
    frame = changed(
        clock_ns=None, progress=None, rates=LiveRates(), ladder={"prints": LADDER.prints[:1]}
    )
    known = {f"{price / PRICE_SCALE:.2f}" for price in range(6400 * CENT, 6600 * CENT, CENT)}
    known |= {f"{level.size:,}" for level in (*LADDER.bids, *LADDER.asks)}
    known |= {f"{level.orders:,}" for level in (*LADDER.bids, *LADDER.asks)}
    known |= {"0.01", "64.835", "38,212", "1,599", "3,613", "147", "61+52", "0/s"}
    for line in lines_of(frame, columns, lines)[1:]:
        numbers = [word for word in line.split() if word[0].isdigit() and ":" not in word]
        assert set(numbers) <= known


def test_the_best_level_is_first_and_sides_are_aligned_by_their_prices():
    rows = lines_of(FRAME)[4:16]
    assert {row.index("│") for row in rows} == {39}
    assert {len(row[:39].rstrip()) for row in rows} == {38}
    assert [row[:38].split()[-1] for row in rows[:3]] == ["64.83", "64.82", "64.81"]
    assert [row[40:].split()[0] for row in rows[:3]] == ["64.84", "64.85", "64.86"]


def test_bars_grow_with_sizes_away_from_the_prices():
    levels = tuple(Level((6483 - i) * CENT, size, 1) for i, size in enumerate((1000, 500, 250, 1)))
    mirrored = tuple(Level((6484 + i) * CENT, level.size, 1) for i, level in enumerate(levels))
    rows = lines_of(changed(ladder={"bids": levels, "asks": mirrored}))[4:8]
    lengths = [row[:39].count("━") + 0.5 * row[:39].count("╺") for row in rows]
    assert lengths == [row[39:].count("━") + 0.5 * row[39:].count("╸") for row in rows]
    assert lengths[1:] == pytest.approx([lengths[0] / 2, lengths[0] / 4, 0.5], abs=0.5)
    assert all(" ━" in row[:38] or " ╺" in row[:38] for row in rows)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"speed": 1.0, "rates": LiveRates(pace=1.0)}, "► 1×"),
        ({"speed": 10.0, "rates": LiveRates(pace=4.0)}, "► 10× at 4×"),
        ({"speed": 0.0, "rates": LiveRates(pace=5200.0)}, "► flat out at 5,200×"),
        ({"state": State.PAUSED}, "❚❚ paused 10×"),
        ({"state": State.PAUSED, "is_live": True, "speed": 0.0}, "❚❚ paused"),
        ({"state": State.ENDED}, "■ ended"),
        ({"state": State.BROKEN}, "✗ broken"),
        ({"is_live": True, "speed": 0.0}, "● live"),
        ({"is_live": True, "speed": 0.0, "quiet_s": 7}, "● quiet for 7 s"),
        ({"is_live": True, "speed": 0.0, "lag_ns": 90 * 10**9}, "● live, 90 s behind"),
    ],
)
def test_how_the_stream_moves_stands_in_the_corner(values, said):
    assert lines_of(dataclasses.replace(FRAME, **values))[0].endswith(f"UTC  {said} ")


@pytest.mark.parametrize(
    ("ladder", "badges"),
    [
        ({}, []),
        ({"is_partial": True}, ["PARTIAL"]),
        ({"bids": (Level(65 * PRICE_SCALE, 1, 1),)}, ["CROSSED"]),
        ({"bids": (Level(6484 * CENT, 1, 1),), "is_partial": True}, ["LOCKED", "PARTIAL"]),
    ],
)
@pytest.mark.parametrize("size", [(34, 8), (60, 15), (80, 24), (120, 40)])
def test_badges_of_a_book_are_shown_at_every_size(ladder, badges, size):
    words = page_of(changed(ladder=ladder), *size).split()
    assert [word for word in words if word in {"PARTIAL", "CROSSED", "LOCKED"}] == badges


def test_badges_do_not_live_by_colour_alone():
    drawn = draw(changed(ladder={"is_partial": True}), Layout.of(80, 24), UNICODE)
    assert styles_at(drawn[2], "PARTIAL") == {"warn.badge"}


def test_a_crossed_spread_is_negative():
    assert "spread −0.17 " in page_of(changed(ladder={"bids": (Level(6501 * CENT, 1, 1),)}))


def test_anomalies_stand_by_kind_and_what_does_not_fit_is_summed_up():
    kinds = (("unknown_cancel", 1_224), ("unknown_modify", 216), ("crossed", 172), ("locked", 1))
    page = page_of(changed(ladder={"anomalies": kinds}))
    assert "anomalies       1,224  unknown cancel" in page
    assert "389    3 more kinds" in page
    wide = page_of(changed(ladder={"anomalies": kinds}), 120, 40)
    for count, kind in ((216, "unknown modify"), (172, "crossed"), (1, "locked")):
        assert any(
            line.split()[-len(kind.split()) - 1 :] == [str(count), *kind.split()]
            for line in wide.splitlines()
        )
    assert "1,613 anomalies" in page_of(changed(ladder={"anomalies": kinds}), 60, 15)


def test_values_that_are_none_are_no_numbers():
    odd = (
        Print(UNDEF_TIMESTAMP, UNDEF_PRICE, UNDEF_ORDER_SIZE, "N"),
        Print(NOON, 6484 * CENT, 3, "B"),
    )
    lines = lines_of(changed(ladder={"prints": odd}))
    assert lines[17][:38].split() == ["·", "-", "-"]
    assert lines[2].split()[2:5] == ["last", "-", "·"]


def test_a_top_of_book_quote_has_no_orders():
    row = lines_of(changed(ladder={"bids": (Level(6483 * CENT, 9, 0),)}))[4]
    assert row.split()[:2] == ["·", "9"]


def test_several_books_are_numbered_and_of_several_publishers_named():
    frame = dataclasses.replace(FRAME, books=5, place=2, publisher_id=43, total_records=99_999)
    lines = lines_of(frame, 120, 40)
    assert " CLX5  2/5  GLBX.MDP3  ARCX.PILLAR.ARCX " in lines[0]
    assert any("all books" in line and "99,999" in line for line in lines)
    assert "n next symbol" in lines[-1]
    assert "n next symbol" not in lines_of(FRAME)[-1]


def test_before_the_first_record_it_is_waiting():
    assert lines_of(Frame(dataset="X"))[0].startswith(" waiting for records  X")


def test_keys_that_would_do_nothing_are_not_offered():
    assert lines_of(dataclasses.replace(FRAME, state=State.PAUSED))[-1].startswith(" space resume")
    assert words(lines_of(dataclasses.replace(FRAME, state=State.ENDED))[-1]) == "h help q quit"


def test_a_notice_takes_the_place_of_the_hints_but_quit():
    frame = dataclasses.replace(FRAME, state=State.BROKEN, notice="x.dbn: ends within a record")
    assert words(lines_of(frame)[-1]) == "x.dbn: ends within a record q quit"


def test_help_lists_every_key_below_the_header():
    lines = lines_of(FRAME, is_help=True)
    assert lines[0] == lines_of(FRAME)[0]
    page = "\n".join(lines)
    for key in ("space", "s  right", "+  up", "-  down", "1  0", "n  tab", "p", "h  ?", "q"):
        assert f"   {key:12}" in page
    assert "PARTIAL" in page


def test_a_terminal_without_room_for_a_price_shows_the_required_size():
    assert lines_of(FRAME, 20, 3)[0].strip() == "30x4 at least"


def test_without_more_than_ascii_nothing_else_is_drawn():
    for size in ((60, 15), (80, 24), (120, 40)):
        for state in State:
            frame = changed(state=state, ladder={"bids": (Level(65 * PRICE_SCALE, 1, 1),)})
            page = "".join(line.plain for line in draw(frame, Layout.of(*size), ASCII))
            assert page.isascii()
