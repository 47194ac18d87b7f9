"""Faults on demand: what their texts mean, and before which records they happen."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.dtypes import TRADE
from mdtool.core.errors import UsageError
from mdtool.core.units import parse_time
from mdtool.services.live_gateway.faults import Fault, SessionFaults, damaged, parse_faults


def records(n: int, begin: int = 0) -> np.ndarray:
    made = np.zeros(n, TRADE)
    made["ts_recv"] = made["ts_event"] = np.arange(begin, begin + n)
    return made


def places(faults: SessionFaults, cuts: list[int]) -> list[int]:
    """Before which records faults happen, of a stream that comes in pieces."""
    found, position = [], 0
    for n in cuts:
        for part, fault in faults.parts(records(n, position)):
            assert part["ts_event"].tolist() == list(range(position, position + len(part)))
            position += len(part)
            if fault is not None:
                found.append(position)
    return found


def test_a_text_of_several():
    assert parse_faults(" reset after=10; error code=3 text=too many  session=2;; ") == [
        Fault("reset", after=10),
        Fault("error", code=3, text="too many", session=2),
    ]
    (stall,) = parse_faults("stall at=2024-05-01T14:30 seconds=0.5")
    assert (stall.at_ns, stall.seconds) == (parse_time("2024-05-01T14:30"), 0.5)
    assert parse_faults("") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("explode", "choose from"),
        ("reset soon", "soon is not one of"),
        ("reset code=3", "code=3 is not one of"),
        ("late-auth after=3", "after=3 is not one of"),
        ("duplicate p=2", "p=2 is not a number from 0 to 1"),
        ("stall seconds=nan", "is not a number"),
        ("skip records=x", "is not a number"),
        ("reset at=noon", "is not a time"),
    ],
)
def test_texts_that_are_not_valid(text, why):
    with pytest.raises(UsageError, match=why):
        parse_faults(text)


@pytest.mark.parametrize("cuts", [[100], [1] * 100, [7, 0, 50, 43]])
def test_places_do_not_depend_on_how_the_stream_is_cut(cuts):
    whole = places(SessionFaults(1, parse_faults("duplicate p=0.1 seed=7")), [100])
    assert len(whole) > 3
    assert places(SessionFaults(1, parse_faults("duplicate p=0.1 seed=7")), cuts) == whole
    assert places(SessionFaults(1, parse_faults("reset after=60; stall at=20")), cuts) == [20, 60]
    assert places(SessionFaults(1, parse_faults("reset")), cuts) == [0]
    assert places(SessionFaults(1, parse_faults("skip p=1")), [2]) == [0, 1]
    assert places(SessionFaults(1, parse_faults("skip p=0; reset after=100")), cuts) == []


def test_seeds_and_sessions_differ():
    def found(session: int, seed: int) -> list[int]:
        return places(SessionFaults(session, [Fault("skip", probability=0.1, seed=seed)]), [300])

    assert found(1, 1) == found(1, 1)
    assert len({tuple(found(session, seed)) for session in (1, 2) for seed in (1, 2)}) == 4


def test_faults_of_another_session_do_not_happen():
    faults = SessionFaults(1, parse_faults("reset session=2; wrong-auth session=2; late-auth"))
    assert places(faults, [5]) == []
    assert [each.kind for each in faults.login()] == ["late-auth"]
    assert list(faults.login()) == []


def test_a_fault_added_in_the_middle_counts_from_there():
    faults = SessionFaults(1)
    assert places(faults, [5]) == []
    faults.add(Fault("reset", after=2))
    found = [len(part) for part, fault in faults.parts(records(10)) if fault is not None]
    assert found == [2]


def test_damaged_records_have_other_bytes():
    sound = records(3)
    spoilt = damaged(sound, seed=1)
    assert (spoilt["rtype"] == 0xFE).all()
    assert (spoilt["length"] == sound["length"]).all()
    assert spoilt.tobytes() == damaged(sound, seed=1).tobytes()
    assert (spoilt["price"] != sound["price"]).any()
