"""API keys: what the file has, what is accepted, and what a change of the file does."""

import json
import os

import pytest

from mdtool.adapters.identity.api_keys import ApiKey, ApiKeys, add, revoke
from mdtool.adapters.identity.errors import TokenError
from mdtool.core import reloading
from mdtool.core.errors import InputError
from tests.support.mounted import Mounted


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.jsonl"


def make(path, name="desk-7", roles=("trader",), valid_s=None):
    key, text = ApiKey.make(name, roles, valid_s)
    add(path, key)
    return text


def test_the_file_has_digests_only_and_is_its_owners_alone(path):
    text = make(path)
    secret = text.split("_", 2)[2]
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    key = ApiKeys(str(path)).find(text)
    assert (key.name, key.roles) == ("desk-7", ("trader",))


def test_other_texts_are_no_keys(path):
    text = make(path)
    keys = ApiKeys(str(path))
    prefix, key_id, secret = text.split("_", 2)
    for wrong in (
        *("", "mdt_", "mdt__", text[:-1], text + "A", text.upper(), f"{prefix}_{key_id}_"),
        *(f"{prefix}_{key_id[::-1]}_{secret}", f" {text}", f"{text} ", "é" * 100, "\0"),
    ):
        with pytest.raises(TokenError) as caught:
            keys.find(wrong)
        assert not secret or secret not in str(caught.value)


def test_a_key_expires(path):
    keys = make(path, valid_s=0), make(path, valid_s=1_000)
    known = ApiKeys(str(path))
    with pytest.raises(TokenError, match="expired"):
        known.find(keys[0])
    assert known.find(keys[1]).ends_s < 1e11


def test_a_revoked_key_is_gone_once_the_file_is_read_again(path):
    first, second = make(path, "a"), make(path, "b")
    keys = ApiKeys(str(path))
    assert not keys.reload()
    assert [key.name for key in revoke(path, "a")] == ["a"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.reload()
    with pytest.raises(TokenError, match="revoked"):
        keys.find(first)
    assert keys.find(second).name == "b"
    assert revoke(path, "nobody") == []
    assert not keys.reload()
    reloading.read_again()
    assert keys.reload()
    assert not keys.reload()


def test_a_file_that_is_broken_leaves_the_keys_read_before(path, caplog):
    text = make(path)
    keys = ApiKeys(str(path))
    path.write_text("{}\n")
    assert not keys.reload()
    assert "line 1 is not an API key" in caplog.text
    assert keys.find(text).name == "desk-7"
    with pytest.raises(InputError, match="line 1"):
        ApiKeys(str(path))


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "garbage",
        json.dumps({"id": 1, "digest": "0" * 64, "name": "a", "roles": [], "created_s": 1}),
        json.dumps({"id": "a", "digest": "0", "name": "a", "roles": [], "created_s": 1}),
        json.dumps({"id": "a", "digest": "é" * 64, "name": "a", "roles": [], "created_s": 1}),
        json.dumps({"id": "a", "digest": "0" * 64, "name": "a", "roles": [1], "created_s": 1}),
        json.dumps({"id": "a", "digest": "0" * 64, "name": "a", "roles": [], "created_s": "x"}),
    ],
)
def test_a_line_that_is_no_key_is_refused(path, line):
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1 is not an API key"):
        ApiKeys(str(path))


def test_a_volume_that_replaces_its_files_has_them_read_again(path, tmp_path):
    texts, files = [], []
    for name in ("a", "b"):
        path.unlink(missing_ok=True)
        texts.append(make(path, name))
        files.append({"keys": path.read_text()})
    mounted = Mounted(tmp_path / "mounted", files[0])
    keys = ApiKeys(mounted["keys"])
    for number in (1, 0, 1):
        mounted.replace(files[number])
        assert keys.reload()
        assert keys.find(texts[number])
        with pytest.raises(TokenError, match="revoked"):
            keys.find(texts[1 - number])


def test_a_key_is_added_on_a_line_of_its_own(path):
    first, _ = ApiKey.make("first", [], None)
    add(path, first)
    path.write_text(path.read_text().rstrip("\n"))
    second, text = ApiKey.make("second", [], None)
    add(path, second)
    assert [*ApiKeys(str(path))] == [first, second]
    assert ApiKeys(str(path)).find(text) == second


def test_a_replaced_file_of_the_same_size_is_noticed(path, tmp_path):
    make(path, "a")
    keys = ApiKeys(str(path))
    other = tmp_path / "other"
    text = make(other, "b")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert keys.reload()
    assert keys.find(text).name == "b"
