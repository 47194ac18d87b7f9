"""Gateways whose tests wait for nothing but what they test."""

from __future__ import annotations

import pytest

from mdtool.services.gateway.feeds import books
from tests.support.kernels import compile_kernels


@pytest.fixture(scope="session")
def kernels():
    """Compile nothing while a test waits."""
    compile_kernels()


@pytest.fixture
def books_are_polled_often(monkeypatch):
    monkeypatch.setattr(books, "POLL_S", 0.01)
