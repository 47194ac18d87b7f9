from __future__ import annotations

from pathlib import Path

from mdtool.core.data_folder import data_folder, store_url


def test_it_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "mdtool"


def test_by_default_it_is_in_the_users_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".local" / "share" / "mdtool"


def test_a_relative_folder_in_the_environment_does_not_count(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".local" / "share" / "mdtool"


def test_the_store_of_a_folder_has_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert store_url(Path("data")) == f"sqlite:///{tmp_path}/data/mdtool.db"


def test_the_store_of_the_user_is_in_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store_url() == f"sqlite:///{tmp_path}/mdtool/mdtool.db"
