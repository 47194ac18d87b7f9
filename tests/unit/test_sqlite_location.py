"""URLs of SQLite stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.sqlite.connection import Location
from mdtool.core.data_folder import store_url
from mdtool.core.errors import ConfigError


def test_a_path_follows_three_slashes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Location.parse("sqlite:////data/trades.db").path == Path("/data/trades.db")
    assert Location.parse("sqlite:///trades.db").path == tmp_path / "trades.db"
    assert Location.parse("sqlite:///../a b%20.db").path == tmp_path.parent / "a b%20.db"
    assert Location.parse(store_url(Path("x"))).path == tmp_path / "x" / "mdtool.db"


def test_the_address_is_the_file():
    assert open_history("sqlite:////data/trades.db").address == "sqlite /data/trades.db"


def test_a_write_is_on_the_disk_unless_that_is_waived():
    assert Location.parse("sqlite:///trades.db").synchronous == "full"
    assert Location.parse("sqlite:///trades.db?synchronous=normal").synchronous == "normal"


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite:", "sqlite://", "sqlite:///", "sqlite:///?synchronous=full", "sqlite:trades.db"),
        *("sqlite://host/trades.db", "sqlite:///:memory:", "sqlite:///trades.db?synchronous=off"),
        *(
            "sqlite:///trades.db?mode=ro",
            "sqlite:///trades.db?synchronous",
            "sqlite:///trades.db?x",
        ),
    ],
)
def test_a_url_without_a_file_is_rejected(url):
    for opener in (open_store, open_history):
        with pytest.raises(ConfigError, match=r"sqlite:///PATH"):
            opener(url)
