"""The throttle, against buckets whose tokens are counted as fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.throttle import Throttle

NS = 10**9
clients = st.sampled_from("abc")
waits_ns = st.one_of(
    st.integers(0, 3 * NS), st.integers(0, 10**6), st.sampled_from([10**8, 10**8 - 1, 10**8 + 1])
)
rates = st.sampled_from([1, 2, 5, 8, 10, 100, 1_000])  # whose periods are whole nanoseconds


@given(rates, st.integers(1, 30), st.lists(st.tuples(clients, waits_ns), max_size=100))
def test_it_gives_what_a_token_bucket_gives(rate, burst, requests):
    throttle, now = Throttle(rate, burst), 0
    buckets: dict[str, tuple[Fraction, int]] = {}
    for client, wait_ns in requests:
        now += wait_ns
        tokens, at = buckets.get(client, (Fraction(burst), now))
        tokens = min(Fraction(burst), tokens + Fraction(now - at) * rate / NS)
        assert throttle.left(client, now) == int(tokens)
        refused_ns = throttle.spend(client, now)
        if tokens >= 1:
            assert refused_ns == 0
            tokens -= 1
        else:
            assert refused_ns == (1 - tokens) * NS / rate
        buckets[client] = (tokens, now)


@given(st.integers(1, 5_000), st.integers(1, 50), st.lists(waits_ns, max_size=200))
def test_no_client_ever_gets_more_than_its_burst_and_rate(rate, burst, waits):
    throttle, now, granted = Throttle(rate, burst), 0, 0
    for wait_ns in waits:
        now += wait_ns
        granted += throttle.spend("a", now) == 0
    assert granted <= burst + Fraction(now) * rate / NS


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, NS)), max_size=300))
def test_what_is_remembered_is_bounded(requests):
    throttle, now = Throttle(1, 1, max_clients=16), 0
    for client, wait_ns in requests:
        now += wait_ns
        throttle.spend(str(client), now)
        assert len(throttle) <= 16


@given(rates, st.integers(1, 30), st.lists(st.tuples(waits_ns, st.integers(0, 90)), max_size=100))
def test_what_is_charged_beyond_what_there_is_has_to_be_waited_for(rate, burst, charges):
    throttle, now, tokens = Throttle(rate, burst), 0, Fraction(burst)
    for wait_ns, charged in charges:
        now += wait_ns
        tokens = min(Fraction(burst), tokens + Fraction(wait_ns) * rate / NS)
        assert throttle.wait_ns("a", now) == max(0, (1 - tokens) * NS / rate)
        assert throttle.left("a", now) == max(0, int(tokens))
        throttle.charge("a", now, charged)
        tokens -= charged


def test_who_is_refused_may_come_back_when_it_was_told():
    throttle = Throttle(10, 20)
    assert [throttle.spend("a", 0) for _ in range(20)] == [0] * 20
    wait_ns = throttle.spend("a", 0)
    assert wait_ns == 10**8
    assert throttle.spend("a", wait_ns - 1) == 1
    assert throttle.spend("a", wait_ns) == 0
    assert throttle.spend("b", 0) == 0


def test_clients_whose_buckets_are_full_are_forgotten():
    throttle = Throttle(1_000, 5)
    for second in range(10_000):
        throttle.spend(str(second), second * NS)
    assert len(throttle) <= 1_025
