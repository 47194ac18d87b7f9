"""What clients use of several processes counts together."""

from __future__ import annotations

import json

import pytest

from mdtool.adapters.identity.config import NONE
from mdtool.core.permissions import EVERYTHING, NOTHING, Access, Grant, Principal
from mdtool.services.client import Admission
from mdtool.services.limits import LimitError, Limits, QuotaConfig
from mdtool.services.usage import Usage
from tests.support.tokens import Keys

SLOW = QuotaConfig(
    requests_per_s=3,
    upstream_per_s=3,
    upstream_burst=3,
    connections=2,
    subscriptions=2,
    ticks_per_s=100,
    bytes_per_s=1_000,
)
ANN = Principal("key:ann", NOTHING, "slow")
BEN = Principal("key:ben", NOTHING, "slow")


def ignore(_code, _reason):
    pass


class Process:
    """A worker of a service, and what it shares with others."""

    def __init__(self, folder):
        self.admission = Admission(Limits(), Keys(folder).security(NONE, slow=SLOW))
        self.usage = Usage(self.admission)

    def client(self, principal=ANN):
        return self.admission.client("10.0.0.1", principal)


@pytest.fixture
def one(tmp_path, no_refill):
    (tmp_path / "one").mkdir()
    return Process(tmp_path / "one")


@pytest.fixture
def other(tmp_path, no_refill):
    (tmp_path / "other").mkdir()
    return Process(tmp_path / "other")


def exchange(one, other):
    """Pass the news of one process on, as JSON, which has no other types."""
    news = json.loads(json.dumps(one.usage.news()))
    other.usage.apply("one", news, is_worker=True)


@pytest.mark.parametrize("spend", ["spend_request", "spend_upstream"])
def test_requests_count_everywhere(one, other, spend):
    for _ in range(2):
        getattr(one.client(), spend)()
    exchange(one, other)
    getattr(other.client(), spend)()
    with pytest.raises(LimitError):
        getattr(other.client(), spend)()
    getattr(other.client(BEN), spend)()
    assert not one.usage.news()


@pytest.mark.parametrize(("spend", "amount"), [("spend_ticks", 100), ("spend_bytes", 1_000)])
def test_amounts_count_everywhere(one, other, spend, amount):
    assert getattr(other.client(), spend)(0) == 0
    getattr(one.client(), spend)(amount)
    exchange(one, other)
    assert getattr(other.client(), spend)(0) > 0
    assert getattr(other.client(BEN), spend)(0) == 0


def test_connections_count_everywhere_until_they_end_or_their_process_does(one, other):
    with one.client().connected("x", ignore), other.client().connected("x", ignore):
        exchange(one, other)
        assert len(other.admission) == 2
        with pytest.raises(LimitError), other.client().connected("x", ignore):
            pass
    exchange(one, other)
    assert len(other.admission) == 0
    with one.client().connected("x", ignore):
        other.usage.apply("one", one.usage.held(), is_worker=True)
        assert len(other.admission) == 1
        other.usage.forget("one")
        assert len(other.admission) == 0


def test_subscriptions_count_everywhere_until_they_end_or_their_process_does(one, other):
    ends = [one.client().subscribe(), other.client().subscribe()]
    exchange(one, other)
    with pytest.raises(LimitError):
        other.client().subscribe()
    for end in ends:
        end()
    exchange(one, other)
    end = other.client().subscribe()
    one.client().subscribe()
    other.usage.apply("one", one.usage.held(), is_worker=True)
    with pytest.raises(LimitError):
        other.client().subscribe()
    other.usage.forget("one")
    other.client().subscribe()
    end()


def test_a_class_that_only_another_process_has_is_left_out(one, other):
    other.usage.apply("one", {"gold/requests": {"principal key:ann": 9}})
    other.client().spend_request()


@pytest.mark.parametrize(
    "principal",
    [
        ANN,
        Principal("key:all", EVERYTHING),
        Principal(
            "sub:eve",
            Access.of([Grant(("A*",), deny=("AB",)), Grant(rights=("metrics",), quota="slow")]),
            "slow",
            1_900_000_000.5,
            "a1",
        ),
    ],
)
def test_a_principal_is_the_same_in_another_process(principal):
    decoded = Principal.decode(principal.encode())
    assert decoded == principal
    assert decoded.access is principal.access
