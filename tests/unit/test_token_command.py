"""`mdtool token`: keys made, listed, revoked, and tokens checked."""

import json

import pytest
from typer.testing import CliRunner

from mdtool.cli.app import app

pytestmark = pytest.mark.usefixtures("no_settings", "root_logger")


@pytest.fixture
def token(tmp_path, monkeypatch):
    (tmp_path / "mdtool.toml").write_text(
        f"[auth]\nmode = 'required'\nkeys = '{tmp_path}/keys'\n"
        "[roles.trader]\nread = ['A*']\nwrite = ['AAPL']\nfeeds = ['quotes']\nquota = 'gold'\n"
    )

    def run(*arguments, status=0, given=None):
        done = CliRunner().invoke(app, ["token", *arguments], input=given)
        failure = getattr(done.exception, "exit_code", done.exit_code)
        assert failure == status, (done.output, done.exception)
        return done.stdout if not status else str(done.exception or done.output)

    return run


def test_a_key_is_made_checked_and_revoked(token, tmp_path):
    text = token("new", "desk-7", "--role", "trader", "--valid", "1d").strip()
    (row,) = map(json.loads, token("list", "-J").splitlines())
    assert (row["name"], row["roles"]) == ("desk-7", ["trader"])
    assert "desk-7" in token("list")
    (tmp_path / "token").write_text(text + "\n")
    report = json.loads(
        token("check", "--token-file", str(tmp_path / "token"), "--symbol", "AAPL", "-J")
    )
    assert report == {
        "principal": "key:desk-7",
        "quota": "gold",
        "expires": row["expires"],
        "reads": ["quotes"],
        "writes": True,
    }
    assert "writes: False" in token("check", "--symbol", "AMD", given=text)
    assert row["id"] in token("revoke", "desk-7")
    assert text[-20:] not in token("check", given=text, status=1)
    token("revoke", "desk-7", status=1)


def test_a_role_that_does_not_exist_is_refused(token, tmp_path):
    assert "did you mean 'trader'" in token("new", "x", "--role", "trade", status=2)
    (tmp_path / "mdtool.toml").write_text("")
    refused = token("new", "x", "--role", "trader", "--keys", str(tmp_path / "keys"), status=2)
    assert refused == "--role trader: no such role; the settings need [roles.trader]"
