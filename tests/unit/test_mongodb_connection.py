"""A client of MongoDB is closed, whenever its request is interrupted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from mdtool.adapters.stores.errors import StoreInterruptedError
from mdtool.adapters.stores.mongodb.connection import Connection, Location


def test_a_read_that_is_interrupted_before_it_connects_opens_no_client(monkeypatch):
    used = []
    connection = Connection(Location.parse("mongodb://127.0.0.1:9/market"), used.append)
    interrupted, requests = threading.Event(), []

    class Late(threading.Thread):
        def __init__(self, **options):
            super().__init__(**options)
            requests.append(self)

        def run(self):
            interrupted.wait()
            super().run()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: None).result()  # its thread is an ordinary one
        monkeypatch.setattr("mdtool.adapters.stores.mongodb.connection.threading.Thread", Late)
        reading = pool.submit(connection.read, used.append)
        while not reading.done():
            connection.interrupt()
            wait([reading], timeout=0.01)
        monkeypatch.undo()
        with pytest.raises(StoreInterruptedError, match="interrupted"):
            reading.result()
    interrupted.set()
    for request in requests:
        request.join()
    assert (len(requests), used) == (1, [])
