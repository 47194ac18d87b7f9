"""The circuit breaker, against a plain reading of its rules over the whole history of calls."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.breaker import BreakerRules, Circuit, CircuitBreaker

rules = st.builds(
    BreakerRules,
    window=st.integers(5, 12),
    least=st.integers(1, 5),
    failed_share=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    open_s=st.just(5.0),
    trials=st.integers(1, 4),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("succeed"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("give up"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 6)),
    ),
    max_size=80,
)


class Plain:
    """The rules as they are told: a list of (call, failed) since the present state began."""

    def __init__(self, rules):
        self.rules = rules
        self.state, self.since = Circuit.CLOSED, 0
        self.ended, self.under_way = [], set()

    def become(self, state, now):
        self.state, self.since = state, now
        self.ended, self.under_way = [], set()

    def may_begin(self, now):
        if self.state is Circuit.OPEN and now - self.since >= self.rules.open_s:
            self.become(Circuit.HALF_OPEN, now)
        trials = len(self.ended) + len(self.under_way)
        return self.state is Circuit.CLOSED or (
            self.state is Circuit.HALF_OPEN and trials < self.rules.trials
        )

    def end(self, call, now, failed):
        if call not in self.under_way:
            return
        self.under_way.discard(call)
        self.ended.append(failed)
        seen = self.ended[-self.rules.window :]
        share = Fraction(sum(seen), len(seen))
        if self.state is Circuit.HALF_OPEN:
            share = Fraction(sum(self.ended), len(self.ended))
            if len(self.ended) == self.rules.trials:
                is_failing = share >= self.rules.failed_share
                self.become(Circuit.OPEN if is_failing else Circuit.CLOSED, now)
        elif len(self.ended) >= self.rules.least and share >= self.rules.failed_share:
            self.become(Circuit.OPEN, now)


@given(rules, steps)
def test_it_does_what_its_rules_say(rules, steps):
    breaker, plain = CircuitBreaker(rules), Plain(rules)
    now, calls, last = 0, [], 0
    for kind, number in steps:
        if kind == "wait":
            now += number
        elif kind == "begin":
            ticket = breaker.acquire(now)
            assert (ticket is not None) == plain.may_begin(now)
            if ticket is not None:
                last += 1
                calls.append((last, ticket))
                plain.under_way.add(last)
        elif calls:
            call, ticket = calls.pop(number % len(calls))
            if kind == "give up":
                breaker.release(ticket)
                plain.under_way.discard(call)
            else:
                breaker.report(ticket, now, failed=kind == "fail")
                plain.end(call, now, kind == "fail")
        plain_state = plain.state
        if plain_state is Circuit.OPEN and now - plain.since >= rules.open_s:
            plain_state = Circuit.HALF_OPEN
        assert breaker.circuit(now) is plain_state
