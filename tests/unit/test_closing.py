"""Close codes: what the README says of them is what the API's documentation says."""

from __future__ import annotations

from pathlib import Path

from mdtool.services.gateway.closing import MEANINGS, CloseCode, about_closing

README = Path(__file__).parents[2] / "README.md"


def test_every_code_is_documented():
    assert set(MEANINGS) == set(CloseCode)
    assert about_closing() in README.read_text("utf-8")
