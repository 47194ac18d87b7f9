"""Gateways whose tests wait for nothing but what they test."""

from __future__ import annotations

import pytest

from mdtool.services.gateway import websockets
from mdtool.services.gateway.feeds import books
from mdtool.services.gateway.protocols import sockjs
from tests.support.kernels import compile_kernels

_DAY_S = 86_400.0


@pytest.fixture(scope="session")
def kernels():
    """Compile nothing while a test waits."""
    compile_kernels()


@pytest.fixture
def books_are_polled_often(monkeypatch):
    monkeypatch.setattr(books, "POLL_S", 0.01)


@pytest.fixture
def clients_may_pause(monkeypatch):
    """Cut off no client while its test does not read, which then answers no ping either."""
    monkeypatch.setattr(websockets, "HEARTBEAT_S", _DAY_S)
    monkeypatch.setattr(sockjs, "_ABSENCE_S", _DAY_S)
