import threading

import pytest

from mdtool.adapters.read_ahead import ReadAhead


def test_everything_comes_in_order():
    assert list(ReadAhead(iter(range(1000)), depth=3)) == [*range(1000)]


def test_an_end_stays_an_end():
    ahead = ReadAhead(iter([1]), depth=1)
    assert [*ahead] == [1]
    assert [*ahead] == []


def test_what_the_iterator_raises_comes_after_what_it_yielded():
    def broken():
        yield 1
        yield 2
        raise ValueError("broken")

    ahead = ReadAhead(broken(), depth=5)
    assert [next(ahead), next(ahead)] == [1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            next(ahead)


def test_it_is_no_further_ahead_than_it_may_be():
    made = []
    reached = threading.Event()

    def items():
        for item in range(100):
            made.append(item)
            if item == 3:
                reached.set()
            yield item

    ahead = ReadAhead(items(), depth=3)
    assert reached.wait(60), "three are made, and one waits for room"
    assert next(ahead) == 0
    assert len(made) <= 5
    ahead.close()


def test_closing_stops_the_iterator_and_waits_for_it():
    ended = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    ahead = ReadAhead(items(), depth=2)
    next(ahead)
    ahead.close()
    del ahead
    assert ended.wait(60)
