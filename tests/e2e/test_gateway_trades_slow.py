"""Stores that take for ever: the gateway says so in time, and its threads come free again."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from mdtool.adapters.stores import open_store
from mdtool.services.gateway.history import THREADS
from tests.support.gateways import gateway_of
from tests.support.stores import NOON_NS, STORES, run, step
from tests.support.waiting import WITHIN_S

NOBODY = "127.0.0.1:1"
TRADES = "/api/v1/trades/AAPL"
ENDLESS = """
ALTER TABLE trade_rows RENAME TO kept;
CREATE VIEW trade_rows AS
    WITH RECURSIVE number(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number)
    SELECT kept.* FROM kept, number WHERE n < 0;
"""
ENDED = "DROP VIEW trade_rows; ALTER TABLE kept RENAME TO trade_rows;"


@contextlib.contextmanager
def endless_sqlite(url: str):
    """Whoever reads trades counts to infinity before the first."""
    path = url.removeprefix("sqlite:///").partition("?")[0]
    with contextlib.closing(sqlite3.connect(path, timeout=WITHIN_S)) as connection:
        connection.executescript(ENDLESS)
        yield
        connection.executescript(ENDED)


@contextlib.contextmanager
def endless_postgresql(url: str):
    """Whoever reads trades waits for a lock."""
    import psycopg

    with psycopg.connect(url) as connection:
        query = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'trades'"
        (schema,) = connection.execute(query).fetchone()
        connection.execute(f"LOCK TABLE {schema}.trades IN ACCESS EXCLUSIVE MODE")
        yield


ENDLESSNESS = {"sqlite": endless_sqlite, "postgresql": endless_postgresql}


@pytest.mark.parametrize("scheme", ENDLESSNESS)
async def test_a_store_that_takes_for_ever_is_504_and_others_are_served(scheme, tmp_path):
    with STORES[scheme](tmp_path) as new_url:
        url = new_url()
        with open_store(url) as store:
            store.write(step(["AAPL"], run("its", 0, [(0, 1, 1, NOON_NS)])))
        settings = {"breaker_least": 10_000, "breaker_window": 10_000, "upstream_requests_per_s": 0}
        async with gateway_of(NOBODY, store=url, timeout_ms=400, **settings) as client:

            async def served(path):
                """What is answered, once it is: a busy machine may take longer now and then."""
                while True:
                    status, answer = await client.answer(path)
                    if status != 504:
                        assert status == 200
                        return answer["data"]

            await served(TRADES)
            with ENDLESSNESS[scheme](url):
                for _ in range(THREADS + 2):  # more than could each take a thread for good
                    status, answer = await client.answer(TRADES)
                    assert (status, answer["data"], answer["error"]) == (504, None, "timeout")
                    assert (await served("/api/v1/symbols"))["available"][0]["trade_count"] == 1
            assert len((await served(TRADES))["data"]) == 1
