"""The bench of stores in MongoDB, small, on a server of its protocol."""

from __future__ import annotations

import pymongo
import pytest

from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.bench.mongodb import SERVER, measure
from tests.support.commands import completed
from tests.support.mongodb_servers import shared_server


async def test_stored_ticks_are_measured_and_databases_deleted(monkeypatch):
    url = shared_server().new_url().rpartition("/")[0]
    monkeypatch.setenv(SERVER, url)
    (figure,) = await measure(ticks=500, rounds=1)
    assert figure.name == "mongodb"
    assert figure.value > 0
    assert figure.ratio is not None
    with pymongo.MongoClient(url) as client:
        assert not [name for name in client.list_database_names() if "bench" in name]


async def test_a_server_that_is_unavailable_is_not_waited_for(monkeypatch):
    monkeypatch.setenv(SERVER, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100")
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        await measure()


def test_without_a_server_the_bench_is_one_line(monkeypatch):
    monkeypatch.delenv(SERVER, raising=False)
    ended = completed("bench", "mongodb")
    assert ended.returncode == 2
    assert ended.stderr.decode() == (
        "mdtool: bench mongodb needs a server: set MDTOOL_MONGODB to its mongodb://HOST:PORT\n"
    )
